"""Through a real MLflow server that keeps its artifacts on a real FTP server, over TLS."""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pytest
import requests
from conftest import StartServer, only_tls
from ftp_servers import PASSWORD, USER, Certificate, FtpServer
from mlflow.exceptions import MlflowException

MIB = 1 << 20

pytestmark = only_tls


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
        pids = [self.pid]
        for pid in pids:
            pids += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        statuses = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return max(int(match[1]) for status in statuses if (match := re.search(r"VmHWM:\s+(\d+)", status))) * 1024


@pytest.fixture(scope="module")
def mlflow_server(
    start_server: StartServer, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    ftp = start_server()
    home = tmp_path_factory.mktemp("mlflow")
    temporary = home / "tmp"
    temporary.mkdir()
    (home / "netrc").write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
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
    }
    command = [
        *(sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"),
        *("--backend-store-uri", database, "--artifacts-destination", ftp.uri),
    ]
    with (home / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    server = MlflowServer(f"http://127.0.0.1:{port}", process.pid, temporary, home / "log", database, ftp)
    try:
        _await_health(server, process)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _await_health(server: MlflowServer, process: subprocess.Popen[bytes]) -> None:
    def is_healthy() -> bool:
        assert process.poll() is None, server.log.read_text()
        with suppress(requests.RequestException):
            return bool(requests.get(f"{server.url}/health", timeout=5).ok)
        return False

    _await(is_healthy, 120)


@pytest.fixture
def client(mlflow_server: MlflowServer) -> Iterator[mlflow.MlflowClient]:
    mlflow.set_tracking_uri(mlflow_server.url)
    yield mlflow.MlflowClient()
    mlflow.set_tracking_uri("")


def test_what_a_run_logs_comes_back(mlflow_server: MlflowServer, client: mlflow.MlflowClient, tmp_path: Path) -> None:
    run = client.create_run("0").info
    (tmp_path / "tree" / "sub").mkdir(parents=True)
    (tmp_path / "tree" / "sub" / "ä file").write_bytes(b"1")

    client.log_artifacts(run.run_id, str(tmp_path / "tree"), "model")

    assert run.artifact_uri.startswith("mlflow-artifacts:")
    assert (mlflow_server.ftp.directory / "0" / run.run_id / "artifacts" / "model" / "sub" / "ä file").exists()
    assert [info.path for info in client.list_artifacts(run.run_id, "model/sub")] == ["model/sub/ä file"]
    (tmp_path / "back").mkdir()
    client.download_artifacts(run.run_id, "model", str(tmp_path / "back"))
    assert (tmp_path / "back" / "model" / "sub" / "ä file").read_bytes() == b"1"


def test_a_missing_artifact_is_a_404_at_once(
    mlflow_server: MlflowServer, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    answer = requests.get(mlflow_server.artifact("no/such"), timeout=10)
    assert (answer.status_code, answer.json()["error_code"]) == (404, "RESOURCE_DOES_NOT_EXIST")
    start = time.monotonic()
    with pytest.raises(MlflowException, match="Failed to download artifacts from path 'such'"):
        client.download_artifacts(client.create_run("0").info.run_id, "no/such", str(tmp_path))
    assert time.monotonic() - start < 10


def test_delete_removes_a_directory(mlflow_server: MlflowServer) -> None:
    for name in ("a", "sub/.b"):
        requests.put(mlflow_server.artifact(f"gone/{name}"), data=b"1", timeout=10).raise_for_status()
    for _ in range(2):  # the second time there is nothing left
        assert requests.delete(mlflow_server.artifact("gone"), timeout=10).status_code == 200
    assert not (mlflow_server.ftp.directory / "gone").exists()


def test_gc_removes_the_files_and_the_run(
    mlflow_server: MlflowServer, client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"1")
    with_files, without_files = (client.create_run("0").info.run_id for _ in range(2))
    client.log_artifact(with_files, str(tmp_path / "file"), "deep/er")
    for run in (with_files, without_files):
        client.delete_run(run)

    subprocess.run(
        [
            *(sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", mlflow_server.database),
            *("--tracking-uri", mlflow_server.url, "--run-ids", f"{with_files},{without_files}"),
        ],
        check=True,
        capture_output=True,
    )
    assert not (mlflow_server.ftp.directory / "0" / with_files).joinpath("artifacts").exists()
    for run in (with_files, without_files):
        with pytest.raises(MlflowException, match="not found"):
            client.get_run(run)


def test_a_large_upload_needs_neither_memory_nor_temporary_files(mlflow_server: MlflowServer) -> None:
    for warm_up in range(2):
        requests.put(mlflow_server.artifact(f"warm/{warm_up}"), data=bytes(8 * MIB), timeout=60).raise_for_status()
    before = mlflow_server.peak_memory()
    seen = []

    def body() -> Iterator[bytes]:
        for _ in range(512):
            yield bytes(MIB)
            seen.append(list(mlflow_server.temporary.rglob("*")))

    requests.put(mlflow_server.artifact("large/file"), data=body(), timeout=120).raise_for_status()

    assert (mlflow_server.ftp.directory / "large" / "file").stat().st_size == 512 * MIB
    assert not any(seen)
    assert mlflow_server.peak_memory() - before < 48 * MIB
    requests.delete(mlflow_server.artifact("large"), timeout=60).raise_for_status()


def test_a_client_that_dies_in_mid_upload_leaves_nothing(mlflow_server: MlflowServer) -> None:
    host, port = mlflow_server.url.removeprefix("http://").split(":")
    directory = mlflow_server.ftp.directory / "broken"
    with socket.create_connection((host, int(port))) as dying:
        dying.sendall(b"PUT /api/2.0/mlflow-artifacts/artifacts/broken/file HTTP/1.1\r\nHost: localhost\r\n")
        dying.sendall(b"Content-Length: 99999999\r\n\r\n" + bytes(8 * MIB))
        _await(lambda: directory.is_dir() and any(directory.iterdir()))
    _await(lambda: not any(directory.iterdir()))


def test_an_ftp_server_that_is_down_is_a_503_and_its_return_is_enough(mlflow_server: MlflowServer) -> None:
    requests.put(mlflow_server.artifact("up/file"), data=b"1", timeout=10).raise_for_status()
    mlflow_server.ftp.kill()
    answer = requests.get(mlflow_server.artifact("up/file"), timeout=30)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    mlflow_server.ftp.start()
    assert requests.get(mlflow_server.artifact("up/file"), timeout=10).content == b"1"


def test_a_clients_artifact_location_does_not_lead_the_server_to_another_host(
    mlflow_server: MlflowServer, client: mlflow.MlflowClient
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        experiment = client.create_experiment("elsewhere", f"ftps://127.0.0.1:{other.getsockname()[1]}/x")
        run = client.create_run(experiment).info.run_id
        answer = requests.get(f"{mlflow_server.url}/api/2.0/mlflow/artifacts/list", params={"run_id": run}, timeout=10)
        assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")
        with pytest.raises(BlockingIOError):
            other.accept()


def test_nothing_of_all_this_shows_the_password(mlflow_server: MlflowServer) -> None:
    assert PASSWORD not in mlflow_server.log.read_text()


def _await(condition: Callable[[], bool], timeout: float = 20) -> None:
    give_up = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.02)
