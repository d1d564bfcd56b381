"""Through a real MLflow server that keeps its artifacts on a real FTP server, over TLS."""

import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import mlflow_servers
import pytest
import requests
from conftest import StartServer, only_tls
from ftp_servers import PASSWORD, Certificate
from mlflow.exceptions import MlflowException
from mlflow_servers import MlflowServer, wait_for

MIB = 1 << 20

pytestmark = only_tls


@pytest.fixture(scope="module")
def mlflow_server(
    start_server: StartServer, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[MlflowServer]:
    home = tmp_path_factory.mktemp("mlflow") / "home"
    with mlflow_servers.running(home, start_server(), certificate, "--app-name", "mlflow-ftps") as server:
        yield server


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
    for api in ("ajax-api", "api"):  # as the pages call it, and as clients do; the second time there is nothing left
        url = mlflow_server.artifact("gone").replace("/api/", f"/{api}/")
        assert requests.delete(url, timeout=10).status_code == 200
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


def test_a_large_file_needs_neither_memory_nor_a_temporary_file(mlflow_server: MlflowServer) -> None:
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
    received = 0
    with requests.get(mlflow_server.artifact("large/file"), timeout=120, stream=True) as answer:
        for block in answer.iter_content(MIB):
            received += len(block)
            seen.append(list(mlflow_server.temporary.rglob("*")))
    assert received == 512 * MIB
    assert not any(seen)
    assert mlflow_server.peak_memory() - before < 48 * MIB
    requests.delete(mlflow_server.artifact("large"), timeout=60).raise_for_status()


def test_a_client_that_dies_in_mid_upload_leaves_nothing(mlflow_server: MlflowServer) -> None:
    host, port = mlflow_server.url.removeprefix("http://").split(":")
    directory = mlflow_server.ftp.directory / "broken"
    with socket.create_connection((host, int(port))) as dying:
        dying.sendall(b"PUT /api/2.0/mlflow-artifacts/artifacts/broken/file HTTP/1.1\r\nHost: localhost\r\n")
        dying.sendall(b"Content-Length: 99999999\r\n\r\n" + bytes(8 * MIB))
        wait_for(lambda: directory.is_dir() and any(directory.iterdir()))
    wait_for(lambda: not any(directory.iterdir()))


def test_an_ftp_server_that_is_down_is_a_503_and_its_return_is_enough(mlflow_server: MlflowServer) -> None:
    requests.put(mlflow_server.artifact("up/file"), data=b"1", timeout=10).raise_for_status()
    mlflow_server.ftp.kill()
    answer = requests.get(mlflow_server.artifact("up/file"), timeout=30)
    assert (answer.status_code, answer.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    mlflow_server.ftp.start()
    assert requests.get(mlflow_server.artifact("up/file"), timeout=10).content == b"1"


@pytest.mark.parametrize("stored", [False, True], ids=["new", "from before"])
def test_a_clients_artifact_location_does_not_lead_the_server_anywhere(
    mlflow_server: MlflowServer, client: mlflow.MlflowClient, stored: bool
) -> None:
    """Issue line B1, also for what was stored by a server that knew no better."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.setblocking(False)
        for location in (f"ftps://127.0.0.1:{other.getsockname()[1]}/x", mlflow_server.ftp.uri):
            if not stored:
                with pytest.raises(MlflowException, match="cannot be named"):
                    client.create_experiment(f"at {location}", location)
                continue
            experiment = client.create_experiment(f"at {location}")
            with sqlite3.connect(mlflow_server.database.removeprefix("sqlite:///")) as database:
                database.execute(
                    "UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (location, experiment)
                )
            run = client.create_run(experiment).info.run_id
            listing = f"{mlflow_server.url}/api/2.0/mlflow/artifacts/list"
            answer = requests.get(listing, params={"run_id": run}, timeout=10)
            assert (answer.status_code, answer.json()["error_code"]) == (403, "PERMISSION_DENIED")
        with pytest.raises(BlockingIOError):
            other.accept()


def test_nothing_of_all_this_shows_the_password(mlflow_server: MlflowServer) -> None:
    assert PASSWORD not in mlflow_server.log.read_text()
