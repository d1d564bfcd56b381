"""The server of the role mlflow as its image runs it: MLflow, our apps and an FTP server, on free ports of loopback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import pytest
import requests

REPO = Path(__file__).parents[2]
sys.path += [str(REPO / "mlflow_ftps/tests"), str(REPO / "molecule/shared/tests")]

import attacks  # noqa: E402
from attacks import Answer  # noqa: E402
from ftp_servers import PASSWORD as FTP_PASSWORD  # noqa: E402
from ftp_servers import USER as FTP_USER  # noqa: E402
from ftp_servers import Pyftpdlib, free_port, process_tree  # noqa: E402
from mlflow_servers import wait_for  # noqa: E402

__all__ = ["Answer", "Pyftpdlib", "attacks", "free_port", "process_tree", "wait_for"]  # for the tests
PACKAGE = REPO / "roles/mlflow/files/image/mlflow_stack_server"
FTP_LOGIN = f"login {FTP_USER} password {FTP_PASSWORD}"
ADMIN = "admin:a-password-of-the-administrator"


@dataclass
class Rig:
    """A running server; `restart` starts it anew with the same files."""

    home: Path
    environment: dict[str, str]
    workers: int
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> str:
        return (self.home / "log").read_text()

    def send(
        self,
        method: str,
        path: str,
        *,
        account: str = "",
        body: object = None,
        headers: dict[str, str] | None = None,
    ) -> Answer:
        """Send a request; the path goes over the wire as it is."""
        request = requests.Request(
            method,
            self.url,
            json=body,
            headers=headers,
            auth=tuple(account.split(":", 1)) if account else None,
        ).prepare()
        request.url = self.url + path.replace(" ", "%20")
        with requests.Session() as session:
            session.trust_env = False
            answer = session.send(request, timeout=60)
        return Answer(answer.status_code, answer.text)

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = [
            *(sys.executable, "-c", "import mlflow_stack_server; mlflow_stack_server.serve()"),
            *("--host", "127.0.0.1", "--port", str(self.port), "--workers", str(self.workers)),
        ]
        with (self.home / "log").open("ab") as log:
            self.process = subprocess.Popen(command, env=self.environment, cwd=self.home, stdout=log, stderr=log)

        def answers() -> bool:
            assert self.process is not None
            assert self.process.poll() is None, self.log
            with suppress(requests.RequestException):
                return requests.get(f"{self.url}/health", timeout=5).ok
            return False

        wait_for(answers, 120)

    def stop(self) -> None:
        """Stop as Docker does."""
        if self.process:
            self.process.terminate()
            self.process.wait(30)
            self.process = None

    def memory(self) -> int:
        """What the largest of the server's processes uses, in bytes."""
        assert self.process is not None
        used = []
        for pid in process_tree(self.process.pid):
            status = Path(f"/proc/{pid}/status").read_text()
            used += [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmRSS")]
        return max(used)


def pss(pid: int) -> float:
    """The proportional set size of a process, in MiB: a page that n processes share counts 1/n."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in rollup if line.startswith("Pss:")) / 1024


@contextmanager
def running(
    home: Path, store: str, *, login: str = FTP_LOGIN, workers: int = 1, database: str = "", **variables: str
) -> Iterator[Rig]:
    """A server with its files in `home`, its artifacts at the URI `store`, and the account ADMIN.

    `login` is what netrc says of the store; `database` is a URI, by default that of a file in `home`.
    """
    rig = Rig(home, environment_of(home, store, login, database) | variables, workers, free_port())
    subprocess.run(
        [sys.executable, "-c", "import mlflow_stack_server; mlflow_stack_server.prepare()"],
        env=rig.environment,
        check=True,
        capture_output=True,
    )
    try:
        rig.start()
        yield rig
    finally:
        rig.stop()


@dataclass(frozen=True)
class Postgres:
    """A PostgreSQL server with its files in `home`, for whoever comes over loopback."""

    home: Path
    port: int

    @property
    def uri(self) -> str:
        return f"postgresql+psycopg2://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        self._control("start")

    def stop(self) -> None:
        """Stop at once, with all its connections."""
        self._control("stop", "-m", "immediate")

    @classmethod
    @contextmanager
    def running(cls) -> Iterator[Postgres]:
        """A new one. Skips the test where PostgreSQL is not installed."""
        if not _POSTGRES:
            pytest.skip("PostgreSQL is not installed")
        # Not in pytest's own directory: it is root's alone, whom PostgreSQL does not serve.
        with TemporaryDirectory(prefix="postgres-", ignore_cleanup_errors=True) as directory:
            server = cls(Path(directory), free_port())
            if os.getuid() == 0:
                shutil.chown(directory, "nobody")
            server._run("initdb", "--auth=trust", "--username=postgres", "--no-sync", "--pgdata", f"{directory}/data")
            server.start()
            try:
                yield server
            finally:
                server.stop()

    def _control(self, *arguments: str) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.home} -F"
        data = ["--pgdata", str(self.home / "data"), "--log", str(self.home / "log")]
        self._run("pg_ctl", *arguments, "-w", "-o", options, *data)

    def _run(self, program: str, *arguments: str) -> None:
        user = "nobody" if os.getuid() == 0 else None
        command = [str(_POSTGRES[-1] / program), *arguments]
        subprocess.run(command, user=user, cwd=self.home, check=True, stdout=subprocess.DEVNULL)


_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


def environment_of(home: Path, store: str, login: str = FTP_LOGIN, database: str = "") -> dict[str, str]:
    """Write the files that the server reads to `home`, and return its variables."""
    (home / "tmp").mkdir(parents=True)
    database = database or f"sqlite:///{home / 'mlflow.db'}"
    username, password = ADMIN.split(":")
    files = {
        "netrc": f"machine {urlsplit(store).hostname} {login}\n",
        "secret_key": "key-of-the-pages",
        "crypto_passphrase": "passphrase-of-the-tests",
        "webhook_key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE=",
        "accounts.json": f'[{{"username": "{username}", "password": "{password}", "admin": true}}]',
        "auth.ini": "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {database}\n"
        f"admin_username = {username}\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
        "auth_cache_ttl_seconds = 60\n",
    }
    for name, content in files.items():
        (home / name).write_text(content)
    return {
        **os.environ,
        "PYTHONPATH": f"{REPO / 'mlflow_ftps/src'}:{PACKAGE}:{_metadata(home)}",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "TMPDIR": str(home / "tmp"),
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_ARTIFACTS_DESTINATION": store,
        "MLFLOW_SERVE_ARTIFACTS": "true",
        "MLFLOW_AUTH_CONFIG_PATH": str(home / "auth.ini"),
        "MLFLOW_FTPS_NETRC": str(home / "netrc"),
        "MLFLOW_FTPS_REPLY_TIMEOUT": "2",
        "MLFLOW_FTPS_RETRY_WINDOW": "2",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_ENABLE_AI_GATEWAY": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_STACK_SECRETS": str(home),
    }


def _metadata(home: Path) -> Path:
    """A directory with the entry points of the package, as pip would install them."""
    project = tomllib.loads((PACKAGE / "pyproject.toml").read_text())["project"]
    info = home / "packages" / f"mlflow_stack_server-{project['version']}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n")
    sections = {**project["entry-points"], "console_scripts": project["scripts"]}
    lines = [
        line for name, points in sections.items() for line in (f"[{name}]", *(f"{k} = {v}" for k, v in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")
    return info.parent
