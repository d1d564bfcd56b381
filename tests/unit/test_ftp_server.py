"""The artifact store's FTP server as its image runs it, spoken to by Python's own FTP client."""

from __future__ import annotations

import datetime
import ftplib
import io
import ipaddress
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from passlib.hash import sha512_crypt

SERVER = Path(__file__).parents[2] / "roles/ftp/files/image/server.py"
USER = "mlflow"
PASSWORD = "correct-horse-battery-staple"
SESSIONS = 100


@dataclass(frozen=True)
class Server:
    """A running server."""

    process: subprocess.Popen[bytes]
    port: int
    root: Path
    log: Path

    def connect(self, ftp: ftplib.FTP | None = None) -> ftplib.FTP:
        """A session that has not logged in."""
        ftp = ftp or ftplib.FTP()  # noqa: S321 it is what we test
        ftp.connect("127.0.0.1", self.port, timeout=10)
        return ftp

    def login(self) -> ftplib.FTP:
        """A session that has logged in."""
        ftp = self.connect()
        ftp.login(USER, PASSWORD)
        return ftp

    def logged(self, lines: int) -> list[str]:
        """Stop it as Docker does, when it has logged so many lines; returns all, from the names of their levels on."""
        deadline = time.monotonic() + 10
        while self.log.read_text().count("\n") < lines and time.monotonic() < deadline:
            time.sleep(0.02)
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(timeout=10) == 0
        return [re.sub(r"^[-\d]+ [:,\d]+ ", "", line) for line in self.log.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def running(
    home: Path, certificate: Path | None = None, *, user: str = USER, password: str = PASSWORD
) -> Iterator[Server]:
    """A server that accepts connections, with the settings that the role gives it."""
    root, accounts, settings, log = home / "artifacts", home / "accounts.json", home / "server.json", home / "log"
    root.mkdir(exist_ok=True)
    accounts.write_text(json.dumps([{"user": user, "password_hash": sha512_crypt.using(rounds=5000).hash(password)}]))
    port = free_port()
    settings.write_text(
        json.dumps(
            {
                "port": port,
                "root": str(root),
                "accounts": str(accounts),
                "passive_ports": [30000, 30099],
                "advertised_address": None,
                "max_connections": 256,
                "certificate": certificate and str(certificate),
            }
        )
    )
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(SERVER)],
            env={**os.environ, "FTP_SETTINGS": str(settings), "PYTHONUNBUFFERED": "1"},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for(port, process, log)
        yield Server(process, port, root, log)
    finally:
        process.kill()
        process.wait()


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the port accepts connections; fail with the server's log if it ends or takes half a minute."""
    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
        else:
            return
    pytest.fail(f"The server does not answer:\n{log.read_text()}")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server without TLS."""
    with running(tmp_path) as server:
        yield server


def test_files_are_uploaded_listed_renamed_read_and_deleted(server: Server) -> None:
    with server.login() as ftp:
        ftp.mkd("/1")
        ftp.mkd("/1/naïve model")
        ftp.storbinary("STOR /1/naïve model/.draft", io.BytesIO(b"weights" * 100_000))
        ftp.rename("/1/naïve model/.draft", "/1/naïve model/model.pkl")
        assert (server.root / "1" / "naïve model" / "model.pkl").read_bytes() == b"weights" * 100_000
        assert ftp.size("/1/naïve model/model.pkl") == 700_000
        assert [(name, facts["type"]) for name, facts in ftp.mlsd("/1/naïve model")] == [("model.pkl", "file")]
        content = io.BytesIO()
        ftp.retrbinary("RETR /1/naïve model/model.pkl", content.write)
        assert content.getvalue() == b"weights" * 100_000
        ftp.delete("/1/naïve model/model.pkl")
        ftp.rmd("/1/naïve model")
        assert ftp.nlst("/1") == []


def test_nothing_outside_the_store_is_seen(server: Server) -> None:
    (server.root.parent / "secret").write_text("x")
    with server.login() as ftp, pytest.raises(ftplib.error_perm, match=r"^550 "):
        ftp.retrbinary("RETR /../secret", lambda _: None)


def test_wrong_password_and_unknown_account_get_the_same_answer(server: Server) -> None:
    answers = []
    with server.connect() as wrong, server.connect() as unknown:
        for ftp, user in ((wrong, USER), (unknown, "nobody")):
            ftp.sendcmd(f"USER {user}")
            ftp.putcmd("PASS guess")
        for ftp in (wrong, unknown):
            with pytest.raises(ftplib.error_perm) as caught:
                ftp.getresp()
            answers.append(str(caught.value))
            with pytest.raises(ftplib.error_perm, match=r"^530 Log in with USER and PASS first"):
                ftp.nlst()
    assert answers == ["530 Authentication failed."] * 2


def test_many_sessions_from_one_address(server: Server) -> None:
    with ExitStack() as stack:
        sessions = [stack.enter_context(server.login()) for _ in range(SESSIONS)]
        for number, ftp in enumerate(sessions):
            ftp.storbinary(f"STOR /{number}", io.BytesIO(b"x"))
        assert len(sessions[0].nlst()) == SESSIONS


def test_one_line_a_session_and_no_password(server: Server) -> None:
    for command in ("RETR model.pkl", "NLST"):
        with server.login() as ftp:
            ftp.storbinary("STOR model.pkl", io.BytesIO(b"weights"))
            ftp.retrlines(command, lambda _: None)
    with server.connect() as refused, pytest.raises(ftplib.error_perm):
        refused.login(USER, f"{PASSWORD}!")
    server.connect().quit()  # as the container's health check
    server.connect().close()
    assert server.logged(lines=4) == [
        f"INFO Serving {server.root} on port {server.port}, TLS off",
        f"INFO {USER}@127.0.0.1: files received 1, sent 1, broken off 0",
        f"INFO {USER}@127.0.0.1: files received 1, sent 0, broken off 0",
        f"WARNING {USER}@127.0.0.1: login refused",
    ]


def test_transfer_that_breaks_off_is_counted(server: Server) -> None:
    with (server.root / "model.pkl").open("wb") as model:
        model.truncate(1 << 30)
    ftp = server.login()
    ftp.transfercmd("RETR model.pkl").close()
    ftp.close()
    assert server.logged(lines=2)[1] == f"INFO {USER}@127.0.0.1: files received 0, sent 0, broken off 1"


def issue(directory: Path) -> tuple[Path, Path]:
    """A certificate of 127.0.0.1: the file with its key that the role writes, and the one that clients trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ftp")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = certificate.public_bytes(serialization.Encoding.PEM)
    form = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    both, trusted = directory / "certificate.pem", directory / "trusted.pem"
    both.write_bytes(key.private_bytes(*form) + b"\n" + pem)
    trusted.write_bytes(pem)
    return both, trusted


def test_certificate_makes_tls_a_must_on_both_channels(tmp_path: Path) -> None:
    certificate, trusted = issue(tmp_path)
    with running(tmp_path, certificate) as server:
        with server.connect() as plain, pytest.raises(ftplib.error_perm, match=r"^550 SSL/TLS required on the control"):
            plain.login(USER, PASSWORD)
        tls = ftplib.FTP_TLS(context=ssl.create_default_context(cafile=str(trusted)))  # noqa: S321
        server.connect(tls)
        tls.login(USER, PASSWORD)
        with pytest.raises(ftplib.error_perm, match=r"^550 SSL/TLS required on the data"):
            tls.nlst()
        tls.prot_p()
        tls.storbinary("STOR model.pkl", io.BytesIO(b"weights"))
        assert tls.nlst() == ["model.pkl"]
        tls.quit()
        assert (server.root / "model.pkl").read_bytes() == b"weights"
        assert server.logged(lines=2) == [
            f"INFO Serving {server.root} on port {server.port}, TLS required",
            f"INFO {USER}@127.0.0.1: files received 1, sent 0, broken off 0",
        ]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Where `running` has its root: a file system of 1 MiB."""
    root = tmp_path / "artifacts"
    root.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root)],  # noqa: S607
        check=False,
        capture_output=True,
    )
    if mounted.returncode:
        pytest.skip("a small file system takes root to mount")
    yield root
    subprocess.run(["umount", "--lazy", str(root)], check=True)  # noqa: S607


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("size", [1000, 100_000, 50_000_000])
def test_a_full_disk_is_a_452_and_the_session_goes_on(
    tmp_path: Path, small_disk: Path, size: int, encrypted: bool
) -> None:
    """Issue line C, the last: the connection was closed without a word. What is small is written when it is closed."""
    certificate, trusted = issue(tmp_path)
    (small_disk / "filler").write_bytes(bytes((1 << 20) - (0 if size == 1000 else 8192)))
    with running(tmp_path, certificate if encrypted else None) as server:
        ftp = ftplib.FTP()  # noqa: S321
        if encrypted:
            ftp = ftplib.FTP_TLS(context=ssl.create_default_context(cafile=str(trusted)))  # noqa: S321
        server.connect(ftp)
        ftp.login(USER, PASSWORD)
        if isinstance(ftp, ftplib.FTP_TLS):
            ftp.prot_p()
        ftp.voidcmd("TYPE I")
        channel = ftp.transfercmd("STOR large")
        began = time.monotonic()
        try:
            channel.sendall(bytes(size))
            if isinstance(channel, ssl.SSLSocket):
                channel.unwrap()
        except OSError:
            pass  # it is closed while there is something to send
        finally:
            channel.close()
        with pytest.raises(ftplib.error_temp, match=r"^452 No space left on device"):
            ftp.voidresp()
        ftp.delete("filler")
        ftp.storbinary("STOR small", io.BytesIO(b"weights"))
        assert set(ftp.nlst()) == {"large", "small"}
        assert time.monotonic() - began < 5
