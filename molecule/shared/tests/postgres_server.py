"""A PostgreSQL server of the tests' own, from Debian's package."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import trustme

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


@dataclass(frozen=True)
class Postgres:
    """A server with its files in `home`: whoever comes over loopback may do all, others need TLS and a password."""

    home: Path
    port: int
    address: str

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        """Stop at once, with all its connections."""
        self._control("stop", "-m", "immediate")

    def execute(self, *statements: str) -> None:
        """Run SQL, each statement by itself."""
        commands = [f"--command={statement}" for statement in statements]
        self._run("psql", "--host=127.0.0.1", f"--port={self.port}", "--username=postgres", "--no-psqlrc", *commands)

    @classmethod
    @contextmanager
    def running(cls, address: str = "127.0.0.1", authority: trustme.CA | None = None) -> Iterator[Postgres]:
        """A new one, at another address too, with a certificate. Skips the test where PostgreSQL is not installed."""
        if not PROGRAMS:
            pytest.skip("PostgreSQL is not installed")
        # Not in pytest's own directory: it is root's alone, whom PostgreSQL does not serve.
        with TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as directory:
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                server = cls(Path(directory), free.getsockname()[1], address)
            if os.getuid() == 0:
                shutil.chown(directory, "nobody")
            server._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata", f"{directory}/data")
            if authority:
                server._take_certificate(authority)
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def _take_certificate(self, authority: trustme.CA) -> None:
        certificate, data = authority.issue_cert(self.address), self.home / "data"
        certificate.private_key_pem.write_to_path(data / "server.key")
        (data / "server.key").chmod(0o600)
        certificate.cert_chain_pems[0].write_to_path(data / "server.crt")
        if os.getuid() == 0:
            shutil.chown(data / "server.key", "nobody")
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("hostssl all all all scram-sha-256\n")
        with (data / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")

    def _control(self, *arguments: str) -> None:
        addresses = ",".join({"127.0.0.1", self.address})
        options = f"-h {addresses} -p {self.port} -k {self.home} -F"
        data = ["--pgdata", str(self.home / "data"), "--log", str(self.home / "log")]
        self._run("pg_ctl", *arguments, "-w", "-o", options, *data)

    def _run(self, program: str, *arguments: str) -> None:
        user = "nobody" if os.getuid() == 0 else None
        command = [str(PROGRAMS[-1] / program), *arguments]
        subprocess.run(command, user=user, cwd=self.home, check=True, stdout=subprocess.DEVNULL)
