"""What the gateway costs: the platform through it, over TLS, and past it, on the network of its containers.

    sudo .venv/bin/python benchmarks/gateway.py --rounds 7

Needs the platform deployed to this machine with a gateway in the form ports and a certificate of its own. Prints a
table in Markdown: medians of the rounds. In each of them both ways take turns, and begin in turn, so that a busy moment
of the machine meets both; the ratio is the median of the rounds' own. Fails where a limit is broken. Client, gateway
and servers share the machine.
"""

import argparse
import base64
import contextlib
import json
import secrets
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from clients import REPO, Call, Client, Server

API = "/api/2.0/mlflow"
CLIENTS = 8
SECONDS = 4.0
REQUESTS = 400
LARGE = 512 * 2**20
CONFIGURATION = Path("/etc/mlflow-stack/gateway/current")
Measure = Callable[[], float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--name", default="127.0.0.1", help="the public name")
    parser.add_argument("--secrets", type=Path, default=REPO / "inventory/local/secrets")
    arguments = parser.parse_args()
    password, token = (
        (arguments.secrets / f"{name}.txt").read_text().strip()
        for name in ("mlflow_admin_password", "token_wine-quality_mlflow-stack")
    )
    login = {"Authorization": f"Basic {base64.b64encode(f'admin:{password}'.encode()).decode()}"}
    bearer = {"Authorization": f"Bearer {token}"}
    trust = ssl.create_default_context(cafile=str(CONFIGURATION / "authority.pem"))
    through = {
        "mlflow": Server(f"https://{arguments.name}:5000", 0, login, trust),
        "model": Server(f"https://{arguments.name}:8443/wine-quality", 0, bearer, trust),
    }
    past = {
        "mlflow": Server(f"http://{address_of('mlflow')}:5000", 0, login | {"Host": "mlflow:5000"}),
        "model": Server(f"http://{address_of('serving-wine-quality')}:8080", 0, {}),
    }
    with experiment(past["mlflow"]) as directory:
        ways = [measures(servers, directory) for servers in (past, through)]
        found: list[dict[str, list[float]]] = [{what: [] for what in way} for way in ways]
        for round_ in range(arguments.rounds):
            turns = list(zip(ways, found, strict=True))
            for what in ways[0]:
                for way, figures in turns[:: -1 if round_ % 2 else 1]:
                    figures[what].append(way[what]())
            print(f"round {round_ + 1} of {arguments.rounds} done", file=sys.stderr)
    direct, door = ({what: statistics.median(figures[what]) for what in figures} for figures in found)
    print("| what | past it | through it | ratio | limit |")
    print("| --- | --- | --- | --- | --- |")
    broken = []
    for what, (limit, scale, unit) in LIMITS.items():
        ratio = statistics.median(b / a for a, b in zip(found[0][what], found[1][what], strict=True))
        most = unit != "/s"
        relation = "at most" if most else "at least"
        print(
            f"| {what} | {scale * direct[what]:.2f} {unit} | {scale * door[what]:.2f} {unit} "
            f"| {ratio:.2f} | {relation} {limit} |"
        )
        if (ratio > limit) if most else (ratio < limit):
            broken.append(f"{what}: {ratio:.2f}, must be {relation} {limit}")
    sys.exit("\n".join(broken) or None)


# By what is measured: the limit of the ratio, and how it is printed.
LIMITS = {
    "/health": (1.15, 1000, "ms"),
    "a search with login": (1.15, 1000, "ms"),
    "a served model": (1.15, 1000, "ms"),
    f"{CLIENTS} clients search": (0.95, 1, "/s"),
    "512 MiB up": (1.2, 1, "s"),
    "512 MiB down": (1.2, 1, "s"),
}


def measures(servers: dict[str, Server], directory: str) -> dict[str, Measure]:
    """How each is measured on one way, by the keys of LIMITS."""
    mlflow, model = servers["mlflow"], servers["model"]
    search = Call("POST", f"{API}/experiments/search", b'{"max_results": 1}')
    question = (REPO / "roles/example/files/wine-quality/request.json").read_bytes()
    file = f"/api/2.0/mlflow-artifacts/artifacts/{directory}/large"
    content = secrets.token_bytes(2**20) * (LARGE // 2**20)
    return dict(
        zip(
            LIMITS,
            [
                lambda: mlflow.latency(Call("GET", "/health"), REQUESTS),
                lambda: mlflow.latency(search, REQUESTS),
                lambda: model.latency(Call("POST", "/invocations", question), REQUESTS),
                lambda: mlflow.rate(search, CLIENTS, SECONDS),
                lambda: seconds(mlflow, Call("PUT", file, content)),
                lambda: seconds(mlflow, Call("GET", file)),
            ],
            strict=True,
        )
    )


def seconds(server: Server, call: Call) -> float:
    """The time of one answer."""
    with contextlib.closing(Client(server.url, server.headers, server.trust)) as client:
        began = time.perf_counter()
        client.send(call)
        return time.perf_counter() - began


@contextlib.contextmanager
def experiment(server: Server) -> Iterator[str]:
    """An experiment with a run; its directory in the artifact store."""
    with contextlib.closing(Client(server.url, server.headers)) as client:

        def send(path: str, **body: object) -> dict[str, dict[str, dict[str, str]]]:
            answer: dict[str, dict[str, dict[str, str]]] = json.loads(
                client.send(Call("POST", API + path, json.dumps(body).encode()))
            )
            return answer

        number = send("/experiments/create", name=f"benchmark {secrets.token_hex(4)}")["experiment_id"]
        run = send("/runs/create", experiment_id=number)["run"]["info"]["run_id"]
    yield f"{number}/{run}/artifacts"
    with contextlib.closing(Client(server.url, server.headers)) as client:
        client.send(Call("DELETE", f"/api/2.0/mlflow-artifacts/artifacts/{number}/{run}/artifacts/large"))
        client.send(Call("POST", f"{API}/experiments/delete", json.dumps({"experiment_id": number}).encode()))


def address_of(service: str) -> str:
    """Of a container, on the network that it shares with the gateway."""
    form = '{{(index .NetworkSettings.Networks "mlflow-stack").IPAddress}}'
    inspect = ["docker", "inspect", "--format", form, f"mlflow-stack-{service}"]
    return subprocess.run(inspect, check=True, capture_output=True, text=True).stdout.strip()


if __name__ == "__main__":
    main()
