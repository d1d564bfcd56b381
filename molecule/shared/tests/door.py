"""The gateway of a deployment, as programs elsewhere meet it, and those who ask without pause."""

from __future__ import annotations

import base64
import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from stack import PROJECT, ROOT, Answer, Stack

DOORS = {"start": 443, "mlflow": 5000, "jupyter": 8888, "models": 8443, "portainer": 9443}
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"
REQUEST = ROOT / "roles/example/files/wine-quality/request.json"


@dataclass
class Door:
    """The deployment with its gateway; in the form names, `domain` is its public name, else `address` is."""

    stack: Stack
    address: str
    authority: Path
    inventory: Path
    domain: str = ""

    def deploy(
        self, playbook: str = "site.yml", tags: str = "all", /, **variables: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a playbook with the gateway, and these variables."""
        settings = {"stack_secrets_dir": str(self.stack.inventory / "secrets")}
        name = {"stack_public_name": self.domain or self.address, "gateway_form": "names" if self.domain else "ports"}
        given = json.dumps(settings | name | variables)
        options = (f"--inventory={self.inventory}", f"--extra-vars={given}", f"--tags={tags}")
        return self.stack.deploy(*options, playbook=playbook)

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.authority))

    def url(self, service: str) -> str:
        """Where a browser finds a service."""
        if not self.domain:
            return f"https://{self.address}:{DOORS[service]}"
        return f"https://{self.domain if service == 'start' else f'{service}.{self.domain}'}"

    def settings(self, home: Path) -> dict[str, str]:
        """What MLflow's client needs in its environment, of which only the authority is special."""
        return {
            "PATH": str(Path(sys.executable).parent),
            "HOME": str(home),
            "MLFLOW_TRACKING_URI": f"https://{self.address}:5000",
            "MLFLOW_TRACKING_USERNAME": "jupyter",
            "MLFLOW_TRACKING_PASSWORD": self.stack.secrets()["jupyter_mlflow_password"],
            "MLFLOW_TRACKING_SERVER_CERT_PATH": str(self.authority),
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }

    def connect(self, service: str) -> HTTPSConnection:
        """A connection to a service by its public name, wherever that leads here."""
        if not self.domain:
            return HTTPSConnection(self.address, DOORS[service], context=self.tls, timeout=30)
        host = self.domain if service == "start" else f"{service}.{self.domain}"
        connection = HTTPSConnection(host, context=self.tls, timeout=30)
        to_address = {"_create_connection": lambda *_, **__: socket.create_connection((self.address, 443), 30)}
        connection.__dict__.update(to_address)
        return connection

    def ask(
        self,
        service: str,
        path: str = "/",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
    ) -> Answer:
        """Send one request, as a client that trusts the authority."""
        connection = self.connect(service)
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        try:
            return Answer(answer.status, answer.read().decode(errors="replace"))
        finally:
            connection.close()

    def predict(self, token: str) -> Answer:
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        return self.ask(
            "models", "/wine-quality/invocations", method="POST", headers=headers, body=REQUEST.read_bytes()
        )


def basic(user: str, password: str) -> dict[str, str]:
    """The header of a login."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


# Prints the address of a host that its default route leaves from.
ADDRESS = """
import socket
connection = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
connection.connect(("192.0.2.1", 9))
print(connection.getsockname()[0])
"""


@contextmanager
def opened(stack: Stack, directory: Path) -> Iterator[Door]:
    """The deployment to which `deploy` gives a gateway; it goes back to loopback at the end."""
    name = stack.host.backend.get_pytest_id().rpartition("/")[2]
    inventory = directory / "hosts.yml"
    inventory.write_text(json.dumps({"all": {"children": {"gateway": {"hosts": {name: {}}}}}}))
    yield Door(stack, stack.run("python3 -c %s", ADDRESS).strip(), directory / "authority.pem", inventory)
    run = stack.deploy()
    assert run.returncode == 0, run.stdout
    assert not {"gateway", "certbot"} & stack.services().keys()


class Load:
    """Asks without pause, on connections that stay and on new ones; counts what came back, by what was asked."""

    def __init__(self, door: Door) -> None:
        secrets = door.stack.secrets()
        login = basic("jupyter", secrets["jupyter_mlflow_password"])
        token = {"Authorization": f"Bearer {secrets[f'token_wine-quality_{PROJECT}']}"}
        closed = {"Connection": "close"}
        model = ("models", "POST", "/wine-quality/invocations", REQUEST.read_bytes())
        calls: list[tuple[str, str, str, bytes | None, dict[str, str]]] = [
            ("mlflow", "GET", SEARCH, None, login),
            ("mlflow", "GET", "/static-files/favicon.ico", None, closed),
            (*model, token | {"Content-Type": "application/json"}),
            (*model, token | closed | {"Content-Type": "application/json"}),
        ]
        self._door = door
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=call) for call in calls]
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, service: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
        connection = self._door.connect(service)
        while not self._end.is_set():
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                self.answers[str(answer.status)] += 1
            except (OSError, HTTPException) as error:
                self.answers[f"{method} {path}: {error!r}"] += 1
                connection = self._door.connect(service)
            time.sleep(0.25)  # enough of them, and the machine has other work
