"""An authority that speaks ACME, on this machine: pebble, and a DNS in which every name leads to one host."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

from stack import wait_until

LIFETIME = 90  # seconds that a certificate of this authority holds
# It neither waits before it asks, nor refuses some requests on purpose.
ENVIRONMENT = {"PATH": "/usr/bin", "PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0"}


@dataclass(frozen=True)
class Authority:
    """Where it is asked, who signs its own certificate, and with what it signs others; files, PEM."""

    directory: str
    own: Path
    root: Path


def free_port() -> int:
    with socket.create_server(("", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def address_towards(host: str) -> str:
    """This machine's address, as a host sees it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.connect((host, 9))
        address: str = connection.getsockname()[0]
        return address


@contextmanager
def running(home: Path, host: str) -> Iterator[Authority]:
    """The authority, which finds every name at `host`; its files go to `home`."""
    address = address_towards(host)
    certificate, key = home / "pebble.pem", home / "pebble.key"
    new = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{address}"]
    subprocess.run([*new, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    asked, managed, dns, dns_managed = (free_port() for _ in range(4))
    settings = {
        "listenAddress": f"{address}:{asked}",
        "managementListenAddress": f"{address}:{managed}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": 80,
        "tlsPort": 443,
        "certificateValidityPeriod": LIFETIME,
    }
    (home / "pebble.json").write_text(json.dumps({"pebble": settings}))
    leads = ["-defaultIPv4", host, "-defaultIPv6", "", "-http01", "", "-https01", "", "-tlsalpn01", ""]
    servers = (
        ["pebble-challtestsrv", *leads, "-dns01", f"127.0.0.1:{dns}", "-management", f"127.0.0.1:{dns_managed}"],
        ["pebble", "-config", str(home / "pebble.json"), "-dnsserver", f"127.0.0.1:{dns}"],
    )
    with ExitStack() as stack, (home / "pebble.log").open("w") as log:
        for server in servers:
            process = stack.enter_context(subprocess.Popen(server, stdout=log, stderr=log, env=ENVIRONMENT))
            stack.callback(process.terminate)
        root = home / "root.pem"
        trust = ssl.create_default_context(cafile=str(certificate))
        url = f"https://{address}:{managed}/roots/0"

        def fetch() -> bool:
            try:
                root.write_bytes(urlopen(url, context=trust, timeout=5).read())
            except OSError:
                return False
            return True

        wait_until(fetch, 20)
        yield Authority(f"https://{address}:{asked}/dir", certificate, root)
