"""The server's workers, which are forks of one process, and what they ask the database about logins."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow_stack_rig
import pytest
import requests
from mlflow_stack_rig import ADMIN, Postgres, Rig, process_tree, pss, wait_for

API = "/api/2.0/mlflow"
USER = "scientist:a-password-of-the-scientist"
ATTEMPTS = 12  # each on a connection of its own, so that both workers get some


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """The database, which logs each statement."""
    with Postgres.running() as server:
        yield server


@pytest.fixture(scope="module")
def rig(postgres: Postgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    """The server, with two workers, the account USER, and nothing that accounts may do by default."""
    home = tmp_path_factory.mktemp("mlflow") / "home"
    with mlflow_stack_rig.running(home, str(home / "store"), workers=2, database=postgres.uri) as server:
        settings = home / "auth.ini"
        settings.write_text(settings.read_text().replace("READ", "NO_PERMISSIONS"))
        server.stop()
        server.start()
        name, password = USER.split(":")
        account = {"username": name, "password": password}
        assert server.send("POST", f"{API}/users/create", account=ADMIN, body=account).status == 200
        yield server


def workers(rig: Rig) -> list[int]:
    assert rig.process is not None
    return process_tree(rig.process.pid)[1:]


def test_two_workers_take_little_more_memory_than_one_process(rig: Rig) -> None:
    """Issue line B6: MLflow's command and two workers took 600 MiB."""
    assert rig.process is not None
    for _ in range(ATTEMPTS):
        assert rig.send("POST", f"{API}/runs/search", account=ADMIN, body={"experiment_ids": ["0"]}).status == 200
    assert len(workers(rig)) == 2
    assert sum(map(pss, [rig.process.pid, *workers(rig)])) < 400


def test_the_log_is_not_of_health_checks(rig: Rig) -> None:
    for _ in range(ATTEMPTS):
        assert rig.send("GET", "/health/stores").status == 200
    rig.send("GET", "/version")
    assert '"GET /version HTTP/1.1" 401' in rig.log
    assert "/health/stores" not in rig.log


def test_a_worker_that_is_killed_is_replaced_at_once_and_has_connections_of_its_own(rig: Rig) -> None:
    """Issue line B6."""
    killed = workers(rig)[0]
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: len(set(workers(rig)) - {killed}) == 2, 5)  # seconds: to load MLflow takes longer
    for _ in range(ATTEMPTS):
        assert rig.send("POST", f"{API}/experiments/search", account=ADMIN, body={"max_results": 1}).status == 200


def test_the_workers_are_told_what_mlflows_command_tells_them(tmp_path: Path) -> None:
    """Issue line B6: `mlflow server` is a process that does nothing but to set variables."""
    variables = {
        **mlflow_stack_rig.environment_of(tmp_path, "ftp://files/"),
        "MLFLOW_EXPOSE_PROMETHEUS": str(tmp_path / "metrics"),
    }
    theirs = """
import json, mlflow.server
def tell(command, extra_env, **options):
    print(json.dumps(extra_env))
    raise SystemExit
mlflow.server._exec_cmd = tell
from mlflow.cli import cli
cli(["server", "--app-name", "mlflow-stack"])
"""
    ours = "import json, mlflow_stack_server; print(json.dumps(mlflow_stack_server.server_environment()))"

    def told(program: str) -> dict[str, str]:
        done = subprocess.run(
            [sys.executable, "-c", program], env=variables, stdout=subprocess.PIPE, text=True, check=True
        )
        found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
        assert len(found.pop("_MLFLOW_SERVER_BOOT_ID")) == 32  # another at each start
        return found

    assert told(ours) == told(theirs)


# Makes an app, and lists the routes that are FastAPI's own.
_APP = """
import json, os, re
import mlflow_stack_server
os.environ.update(mlflow_stack_server.server_environment())
mlflow_stack_server.read_keys()
{app}

def native(routes):
    for route in routes:
        if hasattr(route, "original_router"):
            prefix = route.include_context.prefix
            yield from ((method, prefix + path) for method, path in native(route.original_router.routes))
        else:
            yield from ((method, route.path) for method in getattr(route, "methods", None) or ["all"])
"""
_ROUTES = """
from mlflow.server import app as flask
mounted = ((method, rule.rule) for rule in flask.url_map.iter_rules() for method in rule.methods)
print(json.dumps([*native(app.routes), *mounted]))
"""
# Prints the middlewares that a request may go around, the others of their kind, and which requests go around.
_AROUND = """
from mlflow_stack_permissions import Around
from starlette.middleware.base import BaseHTTPMiddleware

def of(kind):
    found = [middleware.kwargs for middleware in app.user_middleware if middleware.cls is kind]
    return {options["dispatch"].__name__: options.get("is_theirs") for options in found}

requests = [("POST", "/api/2.0/mlflow/runs/search")]
requests += [(method, re.sub("{.*?}", "x", path)) for method, path in native(app.routes) if method != "all"]
is_theirs = [*of(Around).values()][0]
scopes = [{"type": "http", "method": method, "path": path, "headers": []} for method, path in requests]
around = [scope["path"] for scope in scopes if not is_theirs(scope)]
print(json.dumps([sorted(of(Around)), [*of(BaseHTTPMiddleware)], around]))
"""


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables with which an app can be made, and its database."""
    environment = mlflow_stack_rig.environment_of(tmp_path_factory.mktemp("app"), "ftp://files/")
    prepare = "import mlflow_stack_server; mlflow_stack_server.prepare()"
    subprocess.run([sys.executable, "-c", prepare], env=environment, check=True)
    return environment


def told(environment: dict[str, str], app: str, program: str) -> list[Any]:
    """What a program prints of the app that is made so."""
    program = _APP.replace("{app}", app) + program
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True, check=True
    )
    answer: list[Any] = json.loads(done.stdout.splitlines()[-1])
    return answer


OURS = "app = mlflow_stack_server.create_shared_app()"


def test_no_route_is_lost(prepared: dict[str, str]) -> None:
    """Issue line B6."""

    def routes(app: str) -> set[tuple[str, str]]:
        return {(method, path) for method, path in told(prepared, app, _ROUTES)}

    theirs = routes("from mlflow.server.auth import create_app; app = create_app()")
    assert ("POST", "/gateway/{endpoint_name}/mlflow/invocations") in theirs  # of both kinds
    assert ("POST", f"{API}/runs/create") in theirs
    assert theirs <= routes(OURS)


def test_only_what_is_for_flask_goes_around_middlewares_that_are_known(prepared: dict[str, str]) -> None:
    """One that a release of MLflow adds is not gone around."""
    known, others, around = told(prepared, OURS, _AROUND)
    assert known == ["fastapi_permission_middleware", "gateway_timing_middleware", "workspace_context_middleware"]
    assert others == []
    assert around == [f"{API}/runs/search"]


def experiment_of(rig: Rig, name: str) -> str:
    """An experiment that the administrator makes."""
    answer = rig.send("POST", f"{API}/experiments/create", account=ADMIN, body={"name": name})
    identity: str = answer.json()["experiment_id"]
    return identity


def statuses(rig: Rig, identity: str, account: str = USER) -> set[int]:
    """How both workers answer the account that asks for an experiment."""
    path = f"{API}/experiments/get?experiment_id={identity}"
    return {rig.send("GET", path, account=account).status for _ in range(ATTEMPTS)}


def permit(rig: Rig, verb: str, identity: str, **permission: str) -> None:
    body = {"username": USER.split(":")[0], "resource_type": "experiment", "resource_id": identity, **permission}
    answer = rig.send("POST", f"/api/3.0/mlflow/users/permissions/{verb}", account=ADMIN, body=body)
    assert answer.status == 200, answer


def test_a_permission_holds_at_once_in_all_workers_and_so_does_its_end(rig: Rig) -> None:
    """Issue line B7."""
    identity = experiment_of(rig, "permissions")
    assert statuses(rig, identity) == {403}
    for _ in range(3):
        permit(rig, "grant", identity, permission="READ")
        assert statuses(rig, identity) == {200}
        permit(rig, "revoke", identity)
        assert statuses(rig, identity) == {403}


def test_who_becomes_an_administrator_is_one_at_once_and_so_is_who_is_none_any_more(rig: Rig) -> None:
    """Issue line B7."""
    identity = experiment_of(rig, "administrators")
    for is_admin, expected in ((True, {200}), (False, {403})):
        body = {"username": USER.split(":")[0], "is_admin": is_admin}
        assert rig.send("PATCH", f"{API}/users/update-admin", account=ADMIN, body=body).status == 200
        assert statuses(rig, identity) == expected


def test_who_makes_something_may_use_it_at_once(rig: Rig) -> None:
    """Issue line B7."""
    for number in range(ATTEMPTS):
        made = rig.send("POST", f"{API}/experiments/create", account=USER, body={"name": f"own-{number}"})
        run = rig.send("POST", f"{API}/runs/create", account=USER, body={"experiment_id": made.json()["experiment_id"]})
        assert run.status == 200, run


def test_an_account_that_is_deleted_is_refused(rig: Rig) -> None:
    """Issue line B7."""
    account = {"username": "leaver", "password": "a-password-of-the-leaver"}
    assert rig.send("POST", f"{API}/users/create", account=ADMIN, body=account).status == 200
    identity = experiment_of(rig, "leaver")
    assert rig.send("DELETE", f"{API}/users/delete", account=ADMIN, body={"username": "leaver"}).status == 200
    assert 200 not in statuses(rig, identity, "leaver:a-password-of-the-leaver")


def test_links_to_models_are_hidden_from_accounts_that_they_are_denied_to(rig: Rig) -> None:
    """Issue line B7: the answer is taken apart only for them."""
    identity = experiment_of(rig, "links")
    run = rig.send("POST", f"{API}/runs/create", account=ADMIN, body={"experiment_id": identity}).json()
    run_id = run["run"]["info"]["run_id"]
    model = rig.send(
        "POST", f"{API}/logged-models", account=ADMIN, body={"experiment_id": identity, "name": "m"}
    ).json()
    model_id = model["model"]["info"]["model_id"]
    body = {"run_id": run_id, "models": [{"model_id": model_id, "step": 0}]}
    assert rig.send("POST", f"{API}/runs/outputs", account=ADMIN, body=body).status == 200
    permit(rig, "grant", identity, permission="READ")
    search = {"experiment_ids": [identity]}
    for denied in (False, True):
        if denied:
            permission = {"resource_type": "logged_model", "resource_id": "*", "permission": "DENY"}
            answer = rig.send(
                "POST",
                "/api/3.0/mlflow/users/permissions/grant",
                account=ADMIN,
                body={"username": USER.split(":")[0], **permission},
            )
            assert answer.status == 200, answer
        for _ in range(ATTEMPTS):
            answer = rig.send("POST", f"{API}/runs/search", account=USER, body=search)
            assert (model_id in answer.body) != denied, answer
            answer = rig.send("GET", f"{API}/runs/get?run_id={run_id}", account=USER)
            assert (model_id in answer.body) != denied, answer


def test_a_database_that_went_away_and_came_back_is_used_again(rig: Rig, postgres: Postgres) -> None:
    """Issue line B7: whether a connection is there is asked once a second, not at each use."""
    with requests.Session() as session:
        session.trust_env = False
        session.auth = (USER.split(":")[0], USER.split(":")[1])

        def status() -> int:
            body = {"max_results": 1}
            return session.post(f"{rig.url}{API}/experiments/search", json=body, timeout=60).status_code

        assert status() == 200
        postgres.stop()
        postgres.start()
        wait_for(lambda: status() == 200, 10)
        assert {status() for _ in range(50)} == {200}
    time.sleep(1)  # for which the other worker takes its connections for alive


_COUNT = """
import asyncio, base64, json, os, sys
import mlflow_stack_server
os.environ.update(mlflow_stack_server.server_environment())
app = mlflow_stack_server.create_shared_app()
from mlflow.server import auth
from sqlalchemy import event
asked = []
event.listen(auth.store.engine, "before_cursor_execute", lambda *arguments: asked.append(arguments[2]))
login, path, body = sys.argv[1], sys.argv[2], sys.argv[3].encode()
headers = {"host": "127.0.0.1:1", "content-type": "application/json", "content-length": str(len(body)),
           "authorization": "Basic " + base64.b64encode(login.encode()).decode()}
scope = {"type": "http", "http_version": "1.1", "method": "POST", "path": path, "raw_path": path.encode(),
         "query_string": b"", "root_path": "", "scheme": "http", "client": ("127.0.0.1", 1),
         "server": ("127.0.0.1", 1), "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
async def answer():
    messages = []
    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}
    async def send(message):
        messages.append(message)
    await app(dict(scope), receive, send)
    return messages[0]["status"]
async def main():
    assert await answer() == 200  # now the password is known
    asked.clear()
    assert await answer() == 200
asyncio.run(main())
print(json.dumps(asked))
"""


def test_a_login_costs_one_statement_in_a_request(rig: Rig) -> None:
    """Issue line B7: it were three and more, in a transaction each."""
    made = rig.send("POST", f"{API}/experiments/create", account=USER, body={"name": "counted"})
    identity = made.json()["experiment_id"]
    requests_ = {"create": {"experiment_id": identity}, "search": {"experiment_ids": [identity]}}
    for path, body in requests_.items():
        done = subprocess.run(
            [sys.executable, "-c", _COUNT, USER, f"{API}/runs/{path}", json.dumps(body)],
            env=rig.environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        asked = json.loads(done.stdout.splitlines()[-1])
        assert len(asked) == 1, (path, asked)
