"""The apps mlflow-ftps and mlflow-ftps-basic-auth: downloads as MLflow's own handler answers them."""

import os
from collections.abc import Iterator
from pathlib import Path

import mlflow.server
import mlflow_servers
import pytest
import requests
from fastapi import FastAPI
from ftp_servers import Certificate, FtpServer, Pyftpdlib
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
from mlflow_servers import MlflowServer

import mlflow_ftps.server
from mlflow_ftps.server import add_routes, create_app

FILES = {
    "text.txt": b"text",
    "page.html": b"<p>",
    "script.py": b"pass\n",
    "MLmodel": b"flavors:\n",
    "no bytes": b"",
    "größe 💾.bin": b"\0\xff",
    "one_block": os.urandom(1 << 20),
    "large.bin": os.urandom((3 << 20) + 1),
}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mlflow")


@pytest.fixture(scope="module")
def ftp(home: Path, certificate: Certificate) -> Iterator[FtpServer]:
    """A server with FILES in the directory of the experiment 0."""
    server = Pyftpdlib(home / "ftp", certificate)
    (server.directory / "0" / "directory").mkdir(parents=True)
    for name, content in FILES.items():
        (server.directory / "0" / name).write_bytes(content)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def stock(home: Path, ftp: FtpServer, certificate: Certificate) -> Iterator[MlflowServer]:
    with mlflow_servers.running(home / "stock", ftp, certificate) as server:
        yield server


@pytest.fixture(scope="module")
def ours(home: Path, ftp: FtpServer, certificate: Certificate) -> Iterator[MlflowServer]:
    with mlflow_servers.running(home / "ours", ftp, certificate, "--app-name", "mlflow-ftps") as server:
        yield server


def answer(server: MlflowServer, path: str, api: str = "api") -> tuple[int, bytes, dict[str, str]]:
    """Status, body and headers, but for how the body's end is told."""
    url = server.artifact(f"0/{path}").replace("/api/", f"/{api}/")
    response = requests.get(url, timeout=10)
    changing = {"date", "content-length", "transfer-encoding"}
    headers = {name.lower(): value for name, value in response.headers.items() if name.lower() not in changing}
    return response.status_code, response.content, headers


@pytest.mark.parametrize("api", ["api", "ajax-api"])
@pytest.mark.parametrize("name", [*FILES, "missing", "directory/missing"])
def test_answers_as_mlflow_does(stock: MlflowServer, ours: MlflowServer, name: str, api: str) -> None:
    expected = answer(stock, name, api)
    assert answer(ours, name, api) == expected
    assert expected[:2] == (200, FILES[name]) if name in FILES else expected[0] in (400, 404)


@pytest.mark.parametrize("api", ["api", "ajax-api"])
@pytest.mark.parametrize(
    "name", ["%2e%2e%2fescape", "./text.txt", "%252e/text.txt", "directory//x", "text.txt/", "a%23b", "line%0Abreak"]
)
def test_a_path_that_is_not_its_own_normal_form_is_refused(ours: MlflowServer, name: str, api: str) -> None:
    """Issue line B2."""
    for method in ("GET", "PUT", "DELETE")[: 2 if name == "text.txt/" else 3]:  # clients delete directories like that
        request = requests.Request(method, ours.url).prepare()
        request.url = ours.artifact(f"0/{name}").replace("/api/", f"/{api}/")
        refusal = requests.Session().send(request, timeout=10)
        assert (refusal.status_code, refusal.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE"), method
        assert "is not in its normal form" in refusal.json()["message"]


def test_a_directory_is_no_file(ours: MlflowServer) -> None:
    status, body, _ = answer(ours, "directory")
    assert (status, b"The artifact '0/directory' is a directory." in body) == (400, True)


def test_the_length_is_told_so_that_a_client_notices_a_broken_download(ours: MlflowServer) -> None:
    for name in ("text.txt", "large.bin"):
        response = requests.get(ours.artifact(f"0/{name}"), timeout=10)
        assert response.headers["Content-Length"] == str(len(FILES[name]))


def test_clients_that_go_away_leave_the_connections_to_others(ftp: FtpServer, ours: MlflowServer) -> None:
    with (ftp.directory / "0" / "huge").open("wb") as huge:
        huge.truncate(1 << 30)
    for _ in range(20):  # there are 16 connections
        with requests.get(ours.artifact("0/huge"), timeout=10, stream=True) as given_up:
            given_up.raise_for_status()
    assert requests.get(ours.artifact("0/text.txt"), timeout=10).content == FILES["text.txt"]


def test_a_server_lost_in_mid_download_is_a_broken_connection_not_a_file(ftp: FtpServer, ours: MlflowServer) -> None:
    with (ftp.directory / "0" / "huge").open("wb") as huge:
        huge.truncate(1 << 30)
    with requests.get(ours.artifact("0/huge"), timeout=10, stream=True) as broken:
        ftp.kill()
        with pytest.raises(requests.RequestException, match="IncompleteRead"):
            list(broken.iter_content(1 << 20))
    ftp.start()
    assert (
        "A client's download of '0/huge' breaks off: Could not download '0/huge' on the artifact store ftps://"
        in ours.log.read_text()
    )
    assert requests.get(ours.artifact("0/text.txt"), timeout=10).content == FILES["text.txt"]


def test_mlflows_permissions_hold(home: Path, ftp: FtpServer, certificate: Certificate) -> None:
    home = home / "auth"
    configuration = home.with_suffix(".ini")
    configuration.write_text(
        "[mlflow]\n"
        "default_permission = NO_PERMISSIONS\n"
        f"database_uri = sqlite:///{home / 'auth.db'}\n"
        "admin_username = admin\n"
        "admin_password = secret-of-the-administrator\n"
        "authorization_function = mlflow.server.auth:authenticate_request_basic_auth\n"
    )
    variables = {"MLFLOW_AUTH_CONFIG_PATH": str(configuration), "MLFLOW_FLASK_SERVER_SECRET_KEY": "secret-of-the-pages"}
    admin, reader = ("admin", "secret-of-the-administrator"), ("reader", "secret-of-the-reader")
    with mlflow_servers.running(home, ftp, certificate, "--app-name", "mlflow-ftps-basic-auth", **variables) as server:

        def post(path: str, body: dict[str, str]) -> None:
            url = f"{server.url}/api/{path}"
            requests.post(url, json=body, auth=admin, timeout=10).raise_for_status()

        def status(user: tuple[str, str] | None, method: str = "GET") -> int:
            url = server.artifact("0/text.txt")
            return requests.request(method, url, data=b"", auth=user, timeout=10).status_code

        post("2.0/mlflow/users/create", {"username": reader[0], "password": reader[1]})
        assert [status(None), status(("admin", "wrong")), status(admin), status(reader)] == [401, 401, 200, 403]
        grant = {"resource_type": "experiment", "resource_id": "0", "permission": "READ"}
        post("3.0/mlflow/users/permissions/grant", {"username": reader[0], **grant})
        assert status(reader) == 200
        for method in ("HEAD", "PUT", "DELETE"):  # MLflow lets a reader GET, and nothing else
            assert [status(None, method), status(reader, method)] == [401, 403]


def test_other_servers_and_other_stores_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SERVE_ARTIFACTS_ENV_VAR, "true")
    monkeypatch.setenv(ARTIFACTS_DESTINATION_ENV_VAR, "ftps://files/store")
    monkeypatch.setenv(_MLFLOW_SGI_NAME.name, "gunicorn")
    guarded: list[str] = []
    monkeypatch.setattr(mlflow_ftps.server, "guard", lambda: guarded.append("locations"))  # as it is for the process
    assert create_app() is mlflow.server.app
    assert guarded == ["locations"]

    other = FastAPI()
    routes = list(other.routes)
    monkeypatch.setenv(ARTIFACTS_DESTINATION_ENV_VAR, "s3://bucket")
    assert add_routes(other) is other
    assert other.routes == routes
    assert guarded == ["locations"]
