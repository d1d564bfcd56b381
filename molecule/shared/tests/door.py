"""The gateway of a deployment, as programs elsewhere meet it, and those who ask without pause."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from stack import ROOT, Answer, Stack

DOORS = {"start": 443, "mlflow": 5000, "jupyter": 8888, "models": 8443, "portainer": 9443}
REQUEST = ROOT / "roles/example/files/wine-quality/request.json"


@dataclass
class Door:
    """The deployment with its gateway; in the form names, `domain` is its public name, else `address` is."""

    stack: Stack
    address: str
    authority: Path
    inventory: Path
    domain: str = ""

    def deploy(self, **variables: object) -> subprocess.CompletedProcess[str]:
        """Deploy with the gateway, and these variables."""
        settings = {"stack_secrets_dir": str(self.stack.inventory / "secrets")}
        name = {"stack_public_name": self.domain or self.address, "gateway_form": "names" if self.domain else "ports"}
        given = json.dumps(settings | name | variables)
        return self.stack.deploy(f"--inventory={self.inventory}", f"--extra-vars={given}")

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


class Load:
    """Asks MLflow itself without pause, on connections that stay and on new ones; counts what came back."""

    def __init__(self, door: Door) -> None:
        self._door = door
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(keep,)) for keep in (True, True, False, False)]
        self.answers: Counter[str] = Counter()

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def _run(self, keep: bool) -> None:
        connection = self._door.connect("mlflow")
        while not self._end.is_set():
            try:
                connection.request("GET", "/static-files/favicon.ico", headers={} if keep else {"Connection": "close"})
                answer = connection.getresponse()
                answer.read()
                self.answers[str(answer.status)] += 1
            except (OSError, HTTPException) as error:
                self.answers[repr(error)] += 1
                connection = self._door.connect("mlflow")
            time.sleep(0.02)  # enough of them, and the machine has other work
