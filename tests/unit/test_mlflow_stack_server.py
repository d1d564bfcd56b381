"""MLflow's server as the image runs it, with two workers, on PostgreSQL and an FTP server."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import mlflow_stack_rig
import pytest
import requests
from mlflow_stack_rig import ADMIN, Postgres, Pyftpdlib, Rig, attacks, wait_for
from requests.auth import HTTPBasicAuth

API = "/api/2.0/mlflow"
MIB = 1 << 20


@pytest.fixture(scope="module")
def ftp(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pyftpdlib]:
    """The store's server."""
    server = Pyftpdlib(tmp_path_factory.mktemp("ftp"), None)
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """The database."""
    with Postgres.running() as server:
        yield server


@pytest.fixture(scope="module")
def rig(ftp: Pyftpdlib, postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The server. Webhooks may go to this machine, and not over TLS, as the receiver of the tests is here."""
    allowed = {"MLFLOW_WEBHOOK_ALLOW_PRIVATE_IPS": "true", "MLFLOW_WEBHOOK_ALLOWED_SCHEMES": "http"}
    home = tmp_path_factory.mktemp("mlflow") / "home"
    with mlflow_stack_rig.running(home, ftp.uri, workers=2, database=postgres.uri, **allowed) as server:
        yield server


def basic(login: bytes) -> str:
    return f"Basic {base64.b64encode(login).decode()}"


ODD_LOGINS = {
    "bearer": "Bearer a-token",
    "bearer alone": "Bearer",
    "digest": 'Digest username="admin", realm="mlflow", nonce="x", uri="/", response="x"',
    "negotiate": "Negotiate YII=",
    "basic alone": "Basic",
    "basic, blank": "Basic ",
    "no base64": "Basic !!!!",
    "padding": "Basic YQ",
    "no colon": basic(b"admin"),
    "colon alone": basic(b":"),
    "no user": basic(b":a-password-of-the-tests"),
    "no password": basic(b"admin:"),
    "nul in user": basic(b"admin\0:a-password-of-the-tests"),
    "nul in password": basic(b"admin:\0"),
    "line break": basic(b"admin:a\r\nb"),
    "not utf-8": basic(b"\xff\xfe:\xff"),
    "surrogate": basic(b"\xed\xa0\x80:x"),
    "unknown user": basic("jürgen:💾".encode()),
    "long user": basic(b"a" * 20000 + b":b"),
    "long password": basic(b"admin:" + b"b" * 20000),
    "quote": basic(b"admin' OR '1'='1:x"),
    "two in one": f"{basic(b'admin:x')}, {basic(b'admin:y')}",
    "empty": "",
    "letters": "x",
    "latin-1": "Bearer \xe9",
}
ADDRESSES = [
    f"{API}/experiments/search?max_results=1",
    "/api/2.0/mlflow-artifacts/artifacts/0/file",
    "/api/2.0/mlflow-artifacts/artifacts?path=0",
    "/get-artifact?run_id=x&path=x",
    "/graphql",
    "/v1/traces",
    "/gateway/x/mlflow/invocations",
    "/",
    "/version",
]


@pytest.mark.parametrize("login", ODD_LOGINS)
def test_what_is_no_login_is_a_401_at_once(rig: Rig, login: str) -> None:
    """Issue line B9."""
    began = time.monotonic()
    for address in ADDRESSES:
        method = "POST" if address in ("/graphql", "/v1/traces", "/gateway/x/mlflow/invocations") else "GET"
        answer = rig.send(method, address, headers={"Authorization": ODD_LOGINS[login]})
        assert answer.status == 401, address
    assert rig.send("GET", "/health", headers={"Authorization": ODD_LOGINS[login]}).status == 200
    assert time.monotonic() - began < 10


def test_two_logins_are_none(rig: Rig) -> None:
    """Issue line B9: of two headers, MLflow's two halves would read different ones."""
    host, port = rig.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        header = f"Authorization: {basic(ADMIN.encode())}\r\n" * 2
        request = f"GET {ADDRESSES[0]} HTTP/1.1\r\nHost: {host}\r\n{header}Connection: close\r\n\r\n"
        connection.sendall(request.encode())
        assert b" 401 " in connection.makefile("rb").readline()


PROTECTED_BY_MIDDLEWARE = {
    "a download": ("GET", "/api/2.0/mlflow-artifacts/artifacts/0/file"),
    "an upload": ("PUT", "/api/2.0/mlflow-artifacts/artifacts/0/file"),
    "a gateway": ("POST", "/gateway/a/mlflow/invocations"),
    "traces": ("POST", "/v1/traces"),
    "jobs": ("GET", "/ajax-api/3.0/jobs/0"),
    "the assistant": ("GET", "/ajax-api/3.0/mlflow/assistant/config"),
    "MCP servers": ("GET", "/api/3.0/mlflow/mcp-servers"),
}


@pytest.mark.parametrize(("method", "path"), PROTECTED_BY_MIDDLEWARE.values(), ids=PROTECTED_BY_MIDDLEWARE)
def test_what_mlflows_middleware_protects_needs_a_login(rig: Rig, method: str, path: str) -> None:
    assert rig.send(method, path).status == 401
    assert rig.send(method, path, account=ADMIN).status != 401


def test_a_workspace_is_refused_where_there_are_none(rig: Rig) -> None:
    answer = rig.send(
        "GET", f"{API}/experiments/get?experiment_id=0", account=ADMIN, headers={"X-Mlflow-Workspace": "a"}
    )
    assert (answer.status, json.loads(answer.body)["error_code"]) == (500, "FEATURE_DISABLED")


class Receiver(BaseHTTPRequestHandler):
    """Keeps what webhooks deliver."""

    delivered: list[tuple[dict[str, str], bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.delivered.append((dict(self.headers.items()), body))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def receiver() -> Iterator[tuple[str, list[tuple[dict[str, str], bytes]]]]:
    """An address, and what is delivered there."""
    delivered: list[tuple[dict[str, str], bytes]] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Receiver,), {"delivered": delivered}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}/", delivered
    server.shutdown()
    thread.join()


def test_webhooks_with_a_secret_work_through_all_workers_and_after_a_restart(
    rig: Rig, receiver: tuple[str, list[tuple[dict[str, str], bytes]]]
) -> None:
    """Issue line B10: each worker had a key of its own."""
    url, delivered = receiver
    body = {
        "name": "hook",
        "url": url,
        "secret": "known to both sides",
        "events": [{"entity": "REGISTERED_MODEL", "action": "CREATED"}],
    }
    created = rig.send("POST", f"{API}/webhooks", account=ADMIN, body=body)
    assert created.status == 200, created
    identity = created.json()["webhook"]["webhook_id"]

    def exercise(kind: str) -> None:
        for number in range(16):  # each on a connection of its own, so that both workers get some
            assert rig.send("GET", f"{API}/webhooks/{identity}", account=ADMIN).status == 200
            assert rig.send("GET", f"{API}/webhooks", account=ADMIN).status == 200
            name = {"name": f"{kind}-{number}"}
            assert rig.send("POST", f"{API}/registered-models/create", account=ADMIN, body=name).status == 200
        test = rig.send("POST", f"{API}/webhooks/{identity}/test", account=ADMIN, body={})
        assert test.json()["result"]["success"], test
        wait_for(lambda: len(delivered) == 17)
        for headers, content in delivered:
            signed = f"{headers['X-MLflow-Delivery-Id']}.{headers['X-MLflow-Timestamp']}.{content.decode()}"
            digest = hmac.new(b"known to both sides", signed.encode(), hashlib.sha256).digest()
            assert headers["X-MLflow-Signature"] == f"v1,{base64.b64encode(digest).decode()}"
        names = {json.loads(content)["data"]["name"] for _, content in delivered}
        assert {f"{kind}-{number}" for number in range(16)} < names
        delivered.clear()

    exercise("before")
    rig.stop()
    rig.start()
    exercise("after")


_STORE_SECRET = """
import os, sys
from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
store = SqlAlchemyStore(os.environ["MLFLOW_BACKEND_STORE_URI"], "mlflow-artifacts:/")
if sys.argv[1] == "store":
    store.create_gateway_secret("key", {"api_key": "sk-secret"}, provider="openai")
else:
    import mlflow_stack_server
    mlflow_stack_server.read_keys() if sys.argv[1] == "own" else None
    from mlflow.store.tracking.dbmodels.models import SqlGatewaySecret
    from mlflow.utils.crypto import KEKManager, _decrypt_secret
    with store.ManagedSessionMaker() as session:
        secret = session.query(SqlGatewaySecret).one()
        locked = (secret.encrypted_value, secret.wrapped_dek)
        print(_decrypt_secret(*locked, KEKManager(), secret.secret_id, secret.secret_name))
"""


def test_the_gateways_secrets_are_locked_with_the_deployments_own_passphrase(rig: Rig) -> None:
    """Issue line B6: what is in the database was locked with a passphrase that is public, in MLflow's source."""

    def python(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=rig.environment,
            capture_output=True,
            text=True,
            check=False,
        )

    assert python(_STORE_SECRET, "store").returncode == 0
    assert "sk-secret" in python(_STORE_SECRET, "public").stdout
    for _ in range(2):
        prepared = python("import mlflow_stack_server; mlflow_stack_server.prepare()")
        assert prepared.returncode == 0, prepared.stderr
    assert "sk-secret" in python(_STORE_SECRET, "own").stdout
    assert python(_STORE_SECRET, "public").returncode != 0


def test_the_ai_gateway_is_off(rig: Rig) -> None:
    """Issue line B6, as the role sets it by default."""
    answer = rig.send("GET", "/api/3.0/mlflow/gateway/endpoints/list", account=ADMIN)
    assert (answer.status, answer.json()["error_code"]) == (501, "NOT_IMPLEMENTED")


def test_an_accounts_own_experiment_is_its_own_whoever_comes_first(rig: Rig) -> None:
    """It was theirs who logged to it first, who shut all others out, the shared account of the notebooks among them."""
    people = {"ida": "a-password-of-ida", "notebooks": "a-password-of-the-notebooks"}
    for name, password in people.items():
        body = {"username": name, "password": password}
        assert rig.send("POST", f"{API}/users/create", account=ADMIN, body=body).status == 200
    ida, notebooks = (f"{name}:{password}" for name, password in people.items())
    assert rig.send("POST", f"{API}/experiments/create", account=ida, body={"name": "hers"}).status == 200

    def prepare(experiment: str) -> None:
        own = {"username": "notebooks", "password": people["notebooks"], "admin": False, "experiment": experiment}
        (rig.home / "accounts.json").write_text(json.dumps([own]))
        program = "import mlflow_stack_server; mlflow_stack_server.prepare()"
        subprocess.run([sys.executable, "-c", program], env=rig.environment, check=True, capture_output=True)

    def log(account: str, name: str) -> int:
        found = rig.send("GET", f"{API}/experiments/get-by-name?experiment_name={name}", account=ADMIN).json()
        body = {"experiment_id": found["experiment"]["experiment_id"]}
        return rig.send("POST", f"{API}/runs/create", account=account, body=body).status

    assert log(notebooks, "hers") == 403
    for experiment in ("hers", "new", "new"):
        prepare(experiment)
    assert [log(account, "hers") for account in (ida, notebooks)] == [200, 200]
    assert [log(account, "new") for account in (ida, notebooks)] == [403, 200]


def stores(rig: Rig) -> tuple[int, str]:
    answer = rig.send("GET", "/health/stores")
    return answer.status, answer.body


def test_health_tells_whether_the_database_answers(rig: Rig, postgres: Postgres) -> None:
    """Issue line A8: /health says OK while every user gets an error."""
    wait_for(lambda: stores(rig) == (200, "The stores answer."))
    postgres.stop()
    try:
        wait_for(lambda: stores(rig) == (503, "The database does not answer."))
        assert rig.send("GET", "/health").status == 200
        assert rig.send("GET", f"{API}/experiments/search?max_results=1", account=ADMIN).status >= 500
    finally:
        postgres.start()
    wait_for(lambda: stores(rig) == (200, "The stores answer."), 40)


def test_health_tells_whether_the_artifact_store_answers(rig: Rig, ftp: Pyftpdlib) -> None:
    """Issue line A8."""
    wait_for(lambda: stores(rig) == (200, "The stores answer."))
    ftp.freeze()
    try:
        wait_for(lambda: stores(rig) == (503, "The artifact store does not answer."))
        began = time.monotonic()
        stores(rig)
        assert time.monotonic() - began < 4
        for _ in range(30):  # the address is open to everybody: each is not a question of its own, of 3 s
            stores(rig)
        assert time.monotonic() - began < 30
    finally:
        ftp.resume()
    wait_for(lambda: stores(rig) == (200, "The stores answer."), 40)


@pytest.fixture(scope="module")
def prey(rig: Rig, ftp: Pyftpdlib) -> attacks.Prey:
    """Two accounts, of which one may not see what the other has."""
    return attacks.prepare(rig.send, ADMIN, "y", ftp.uri)


def big_downloads(prey: attacks.Prey) -> dict[str, str]:
    return {
        "run": f"/get-artifact?run_id={prey.run}&path=large",
        "run, old name": f"/get-artifact?run_uuid={prey.run}&path=large",
        "version": f"/model-versions/get-artifact?name={prey.model}&version=1&path=large",
        "logged model": f"/ajax-api/2.0/mlflow/logged-models/{prey.logged_model}/artifacts/files"
        "?artifact_file_path=large",
    }


@pytest.mark.parametrize("kind", ["run", "run, old name", "version", "logged model"])
def test_what_a_slow_client_has_not_taken_is_not_held_in_memory(
    rig: Rig, prey: attacks.Prey, ftp: Pyftpdlib, kind: str
) -> None:
    """Issue line B12. The file is 300 MiB; the client takes nothing, then all."""
    path = f"{prey.experiment}/models/{prey.logged_model}/artifacts" if kind == "logged model" else prey.directory
    large = ftp.directory / path / "large"
    large.parent.mkdir(parents=True, exist_ok=True)
    with large.open("wb") as file:
        file.truncate(300 * MIB)
    address = rig.url + big_downloads(prey)[kind]
    owner, thief = (HTTPBasicAuth(*account.split(":")) for account in (prey.owner, prey.thief))
    assert requests.get(address, auth=owner, timeout=60, stream=True).headers["Content-Length"] == str(300 * MIB)
    before = rig.memory()

    with requests.get(address, auth=owner, timeout=60, stream=True) as answer:
        assert answer.status_code == 200
        time.sleep(4)
        assert rig.memory() - before < 32 * MIB
        assert list((rig.home / "tmp").rglob("large")) == []
        assert answer.headers["Content-Disposition"] == "attachment; filename=large"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert "X-Frame-Options" in answer.headers
        assert sum(len(block) for block in answer.iter_content(MIB)) == 300 * MIB
    large.unlink()
    # What is streamed is guarded as before.
    assert requests.get(address, auth=owner, timeout=60).status_code == 404
    assert requests.get(address, auth=thief, timeout=60).status_code == 403
    assert requests.get(address, timeout=60).status_code == 401
