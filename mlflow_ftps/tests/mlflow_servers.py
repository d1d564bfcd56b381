"""A real MLflow server that keeps its artifacts on a real FTP server."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import requests
from ftp_servers import PASSWORD, USER, Certificate, FtpServer, free_port, process_tree


@dataclass(frozen=True)
class MlflowServer:
    """A running MLflow server, and the FTP server under it."""

    url: str
    pid: int
    temporary: Path
    log: Path
    database: str
    ftp: FtpServer

    def artifact(self, path: str) -> str:
        return f"{self.url}/api/2.0/mlflow-artifacts/artifacts/{path}"

    def peak_memory(self) -> int:
        """The most that one of the server's processes has ever used, in bytes."""
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in process_tree(self.pid)]
        return max(int(match[1]) for status in statuses if (match := re.search(r"VmHWM:\s+(\d+)", status))) * 1024


@contextmanager
def running(
    home: Path, ftp: FtpServer, certificate: Certificate, *options: str, **variables: str
) -> Iterator[MlflowServer]:
    """An MLflow server with files of its own in the new directory ``home``, and further options and variables."""
    temporary = home / "tmp"
    temporary.mkdir(parents=True)
    (home / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    port = free_port()
    database = f"sqlite:///{home / 'mlflow.db'}"
    environment = {
        **os.environ,
        "MLFLOW_FTPS_NETRC": str(home / "netrc"),
        "MLFLOW_FTPS_CA_FILE": str(certificate.authority),
        "MLFLOW_FTPS_REPLY_TIMEOUT": "2",
        "MLFLOW_FTPS_RETRY_WINDOW": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "TMPDIR": str(temporary),
        **variables,
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database, "--artifacts-destination", ftp.uri, *options),
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    server = MlflowServer(f"http://127.0.0.1:{port}", process.pid, temporary, home / "log", database, ftp)

    def is_healthy() -> bool:
        assert process.poll() is None, server.log.read_text()
        with suppress(requests.RequestException):
            return bool(requests.get(f"{server.url}/health", timeout=5).ok)
        return False

    try:
        wait_for(is_healthy, 120)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def wait_for(condition: Callable[[], bool], timeout: float = 20) -> None:
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
