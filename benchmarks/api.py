"""MLflow's API with a login, as the image serves it, and without one, by `mlflow server` as it is shipped.

    python benchmarks/api.py --rounds 7

Needs what the image of the role mlflow holds (requirements.in there), and PostgreSQL's programs. Two requests: several
clients create runs, and one searches ten runs of a hundred, ordered by a metric. Prints a table in Markdown: medians of
the rounds, in each of which the servers take turns on one database, so that a busy moment of the machine meets all of
them. "without login" is `mlflow server` with as many workers and the same event loop and HTTP parser as the image's
server: what a login costs is the ratio to it. Fails where a limit is broken.
"""

import argparse
import base64
import contextlib
import json
import statistics
import sys
import tempfile
import uuid
from pathlib import Path
from typing import NamedTuple

from clients import AS_SHIPPED, Call, Client, Server, running
from mlflow_stack_rig import ADMIN, Postgres
from mlflow_stack_rig import running as running_rig

API = "/api/2.0/mlflow"
CLIENTS = 8
SECONDS = 4.0
SEARCHES = 100
ACCOUNT = "scientist:a-password-of-the-scientist"
SHIPPED, WITHOUT, OURS = "mlflow server, as shipped", "without login", "the image's server, with login"


class Figures(NamedTuple):
    """What is measured of a server."""

    create: float  # runs a second
    search: float  # seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, contextlib.ExitStack() as stack:
        servers = _servers(Path(name), stack)
        calls = {label: _calls(server) for label, server in servers.items()}
        found: dict[str, list[Figures]] = {label: [] for label in servers}
        for round_ in range(rounds):
            for label, server in servers.items():
                create, search = calls[label]
                server.latency(search, SEARCHES // 5)  # warms up
                seconds = server.latency(search, SEARCHES)
                found[label].append(Figures(server.rate(create, CLIENTS, SECONDS), seconds))
            print(f"round {round_ + 1} of {rounds} done", file=sys.stderr)
        memory = {label: server.memory() for label, server in servers.items()}
    medians = {
        label: Figures(*(statistics.median(column) for column in zip(*figures, strict=True)))
        for label, figures in found.items()
    }
    print(f"| server | {CLIENTS} clients create runs, a second | ratio | a search, ms | ratio | memory (PSS), MiB |")
    print("| --- | --- | --- | --- | --- | --- |")
    shipped = medians[SHIPPED]
    for label, figures in medians.items():
        print(
            f"| {label} | {figures.create:.0f} | {figures.create / shipped.create:.2f} "
            f"| {1000 * figures.search:.1f} | {figures.search / shipped.search:.2f} | {memory[label]:.0f} |"
        )
    sys.exit("\n".join(_broken_limits(shipped, medians[WITHOUT], medians[OURS])) or None)


def _broken_limits(shipped: Figures, without: Figures, ours: Figures) -> list[str]:
    limits = [
        ("runs created with login, to those as shipped", ours.create / shipped.create, ">=", 1.6),
        ("a search with login, to one as shipped", ours.search / shipped.search, "<=", 0.25),
        ("runs created without login, to those with one", without.create / ours.create, "<=", 1.2),
        ("a search with login, to one without", ours.search / without.search, "<=", 1.2),
    ]
    for what, ratio, relation, limit in limits:
        print(f"{what}: {ratio:.2f}, must be {relation} {limit}")
    return [
        f"{what}: {ratio:.2f}"
        for what, ratio, relation, limit in limits
        if (ratio < limit if relation == ">=" else ratio > limit)
    ]


def _servers(home: Path, stack: contextlib.ExitStack) -> dict[str, Server]:
    """The servers, on one database of PostgreSQL."""
    home.chmod(0o755)  # PostgreSQL runs as another user
    database = stack.enter_context(Postgres.running())
    # Makes the schema and the administrator, and tells what the image's server needs.
    with running_rig(home / "rig", str(home / "artifacts"), database=database.uri) as rig:
        username, password = ACCOUNT.split(":")
        account = {"username": username, "password": password}
        assert rig.send("POST", f"{API}/users/create", account=ADMIN, body=account).status == 200  # noqa: S101
        environment = rig.environment
    login = {"Authorization": f"Basic {base64.b64encode(ACCOUNT.encode()).decode()}"}
    stock = [sys.executable, "-m", "mlflow", "server"]
    ours = [sys.executable, "-c", "import mlflow_stack_server; mlflow_stack_server.serve()"]
    faster = {"UVICORN_LOOP": "uvloop", "UVICORN_HTTP": "httptools"}

    def start(command: list[str], variables: dict[str, str], headers: dict[str, str]) -> Server:
        own = {name: value for name, value in environment.items() if name != "PYTHONPATH"}
        return stack.enter_context(running(command, "/health", home, own | variables, headers))

    return {
        SHIPPED: start(stock, AS_SHIPPED, {}),
        WITHOUT: start([*stock, "--workers=2"], faster, {}),
        OURS: start([*ours, "--workers=2"], {}, login),
    }


def _calls(server: Server) -> tuple[Call, Call]:
    """Requests that create a run, and that search some, each in an experiment of its own that the account has made."""
    client = Client(server.url, server.headers)

    def send(path: str, **body: object) -> dict[str, dict[str, dict[str, str]]]:
        answer: dict[str, dict[str, dict[str, str]]] = json.loads(
            client.send(Call("POST", API + path, json.dumps(body).encode()))
        )
        return answer

    new, old = (send("/experiments/create", name=str(uuid.uuid4()))["experiment_id"] for _ in range(2))
    for number in range(100):
        run = send("/runs/create", experiment_id=old, run_name=f"run {number}")["run"]["info"]["run_id"]
        metric = {"key": "rmse", "value": number, "timestamp": number, "step": 0}
        send("/runs/log-batch", run_id=run, metrics=[metric], params=[{"key": "alpha", "value": str(number)}])
    client.close()
    search = {"experiment_ids": [old], "max_results": 10, "order_by": ["metrics.rmse DESC"]}
    return (
        Call("POST", f"{API}/runs/create", json.dumps({"experiment_id": new, "run_name": "run"}).encode()),
        Call("POST", f"{API}/runs/search", json.dumps(search).encode()),
    )


if __name__ == "__main__":
    main()
