#!/usr/bin/env python3
"""Runs HAProxy, and has it take over what changes in its files without breaking a connection.

Its configuration is the directory that the link `current` leads to. Whoever changes the link, or a file, needs to tell
nobody: what HAProxy accepts is in force a second later, and while it refuses something, it goes on with what it has, or
begins with what has worked. A certificate that certbot keeps is taken over as it comes, without a reload.

gateway run      until it is told to stop
gateway health   exits with 0 if HAProxy answers with what the files say, 1 while it does not yet, and 78, with the
                 reason, if it refuses them
"""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

FILES = Path("/etc/mlflow-stack")
CURRENT = FILES / "current" if (FILES / "current").is_symlink() else FILES  # without links under Compose
WORKED = FILES / "worked"  # leads to the last one that was found to work
ISSUED = Path("/var/lib/certificate")  # by name, certificate, chain and key in one file; none before certbot has one
RUN = Path("/run/gateway")
LIVE = RUN / "live"  # leads to what HAProxy has accepted: it reads its files by this name, at a reload too
SINCE = RUN / "since"  # when it was written, in seconds since 1970
LOADED = RUN / "loaded"  # which state of the files that is
REFUSED = RUN / "refused"  # the state that it has refused last, and why
DECLINED = RUN / "declined"  # the certificate of certbot that it has refused last
MASTER = RUN / "master.sock"
STATISTICS = RUN / "haproxy.sock"
SERVERS = RUN / "servers"  # how they are: HAProxy's own form, read at a start
HEALTH = "http://127.0.0.1:8404/health"
INTERVAL = 1.0  # seconds between two looks at the files
PATIENCE = 30.0  # seconds for an answer of HAProxy
GRACE = 8.0  # seconds that requests under way have when it is told to stop


def state_of_files(link: Path = CURRENT) -> str:
    """The directory of a configuration, and when it or something in it has changed last. Raises OSError."""
    directory = link.resolve(strict=True)
    changed = max(path.stat().st_ctime_ns for path in (directory, *directory.iterdir()))
    return f"{directory} {changed}"


def directory_of(state: str) -> Path:
    return Path(state.rpartition(" ")[0])


def read(path: Path) -> str:
    """What a file holds; nothing where there is none."""
    return path.read_text() if path.exists() else ""


def link(state: str) -> None:
    """Have LIVE lead to a configuration, in one step, and say to state.lua since when it is what it is."""
    draft = RUN / "next"
    draft.unlink(missing_ok=True)
    draft.symlink_to(directory_of(state))
    draft.replace(LIVE)
    SINCE.write_text(str(int(state.split()[-1]) // 10**9))


def objection(directory: Path) -> str:
    """Why HAProxy does not accept a configuration; empty if it does."""
    command = ["haproxy", "-c", "-f", str(directory / "haproxy.cfg")]
    check = subprocess.run(command, capture_output=True, text=True, check=False)
    if check.returncode == 0:
        return ""
    alerts = [line for line in check.stderr.splitlines() if line.startswith("[ALERT]")]
    return "\n".join(alerts) or f"haproxy -c ends with status {check.returncode}"


def ask(path: Path, command: str) -> str:
    """What HAProxy answers to a command, of one line or with a payload, on one of its sockets. Raises OSError."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(PATIENCE)
        connection.connect(str(path))
        connection.sendall(command.encode())
        return b"".join(iter(lambda: connection.recv(65536), b"")).decode()


def shown(directory: Path) -> Path | None:
    """What HAProxy reads where certbot keeps the certificate of a configuration; None where it does not."""
    found = re.search(rf"{RUN}/\w+\.pem", (directory / "haproxy.cfg").read_text())
    return Path(found[0]) if found else None


def show(path: Path, pem: str) -> None:
    """Keep what HAProxy shows, for its next start and reload. Raises OSError."""
    draft = path.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_text(pem)
    draft.replace(path)


def provide(directory: Path) -> None:
    """Have that file be there for a configuration: what certbot has, or the configuration's own. Raises OSError."""
    if (path := shown(directory)) and not path.exists():
        show(path, read(ISSUED / path.name) or read(directory / "public.pem"))


def renew() -> None:
    """Have HAProxy show the certificate that certbot has got, unless that is done, or was refused. Raises OSError."""
    path = shown(LIVE)
    pem = read(ISSUED / path.name) if path else ""
    if not path or pem in ("", read(path), read(DECLINED)):
        return
    lines = "\n".join(line for line in pem.splitlines() if line)  # an empty one would be the end
    answer = ask(STATISTICS, f"set ssl cert {path} <<\n{lines}\n\n") + ask(STATISTICS, f"commit ssl cert {path}\n")
    answer = " ".join(answer.split())
    print(f"The certificate of certbot: {answer}")
    if answer.endswith("Success!"):
        show(path, pem)
    else:
        show(DECLINED, pem)


def follow() -> None:
    """Take over what the files say now, unless that is done, or was refused."""
    state = state_of_files()
    if state == read(LOADED) or read(REFUSED).partition("\n")[0] == state:
        return
    provide(directory_of(state))
    fault = objection(directory_of(state))
    if not fault:
        link(state)
        SERVERS.write_text(ask(STATISTICS, "show servers state\n"))
        answer = ask(MASTER, "reload\n")
        if answer.startswith("Success=1"):
            LOADED.write_text(state)
            print(f"Took over {directory_of(state)}.")
            return
        link(read(LOADED))
        fault = answer
    refuse(state, fault)


def begin(state: str) -> str:
    """Why HAProxy cannot begin with it, even with the configuration's own certificate in the place of certbot's."""
    directory = directory_of(state)
    provide(directory)
    fault = objection(directory)
    if fault and (path := shown(directory)):
        show(path, read(directory / "public.pem"))
        fault = objection(directory)
    return fault


def refuse(state: str, fault: str) -> None:
    """Keep why HAProxy does not take it."""
    REFUSED.write_text(f"{state}\n{fault}")
    print(f"Refused {directory_of(state)}: {fault}")


def run() -> int:
    """Run HAProxy until it ends or SIGTERM comes; the exit status."""
    state = state_of_files()
    if fault := begin(state):
        refuse(state, fault)
        if not WORKED.exists():
            return 1
        state = state_of_files(WORKED)
        if begin(state):
            return 1
    link(state)
    LOADED.write_text(state)
    command = ["haproxy", "-W", "-db", "-S", f"{MASTER},mode,600", "-f", str(LIVE / "haproxy.cfg")]
    with subprocess.Popen(command) as haproxy:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit())
        try:
            while True:
                try:
                    return haproxy.wait(INTERVAL)
                except subprocess.TimeoutExpired:
                    pass
                try:
                    follow()
                    renew()
                except OSError as error:
                    print(f"What has changed cannot be taken over: {error}.")
        finally:
            stop(haproxy)


def stop(haproxy: subprocess.Popen[bytes]) -> None:
    """Let HAProxy end what it has begun."""
    haproxy.send_signal(signal.SIGUSR1)
    try:
        haproxy.wait(GRACE)
    except subprocess.TimeoutExpired:
        haproxy.terminate()


def health() -> int:
    """Say how it is; the exit status."""
    state = state_of_files()
    refused, _, reason = read(REFUSED).partition("\n")
    if refused == state:
        print(f"HAProxy refuses the configuration and goes on with the one before:\n{reason}")
        return os.EX_CONFIG
    if read(LOADED) != state:
        print("The configuration is not taken over yet.")
        return 1
    try:
        urllib.request.urlopen(HEALTH, timeout=4).close()
    except OSError as error:
        print(f"HAProxy does not answer: {error}.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit({"run": run, "health": health}[sys.argv[1]]())
