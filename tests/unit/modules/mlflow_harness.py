"""What the tests of the modules for MLflow stand on: servers, real and told what to say, and models that multiply."""

from __future__ import annotations

import json
import os
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import mlflow
import pandas as pd
import pytest
import requests
from sklearn.linear_model import LinearRegression

USERNAME, PASSWORD = "admin", "a password of the tests"
INPUTS = [{"x": 1.0}, {"x": 2.0}, {"x": 3.0}]
DOUBLED = [2.0, 4.0, 6.0]

Run = Callable[..., dict[str, Any]]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


@contextmanager
def process(arguments: list[str], url: str, log: Path, environment: dict[str, str]) -> Iterator[None]:
    """Run `python -m mlflow …` until the block ends; the block begins when the URL answers 200."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "MLFLOW_DISABLE_TELEMETRY": "true", **environment}
    with log.open("w") as output:
        command = [sys.executable, "-m", "mlflow", *arguments]
        running = subprocess.Popen(command, env=environment, cwd=log.parent, stdout=output, stderr=output)
    try:
        deadline = time.monotonic() + 180
        while not _answers(url):
            if running.poll() is not None or time.monotonic() > deadline:
                pytest.fail(f"{url} does not answer:\n{log.read_text()}")
            time.sleep(0.1)
        yield
    finally:
        running.terminate()
        running.wait(timeout=30)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=1).ok
    except requests.RequestException:
        return False


@dataclass(frozen=True)
class Answer:
    """What a peer says; body: bytes, or anything as JSON; seconds: how long it takes; hang_up: it says nothing.

    pause: seconds before each byte of the body.
    """

    status: int
    body: object = b""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0
    hang_up: bool = False
    pause: float = 0


@dataclass(frozen=True)
class Asked:
    """What a peer was asked."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Peer:
    """A server that says what it is told to: one answer after the other, and the last one again and again."""

    url: str
    answers: list[Answer] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)

    def says(self, *answers: Answer) -> str:
        """Returns the URL."""
        self.answers = list(answers)
        return self.url


@contextmanager
def listening(port: int = 0, tls: ssl.SSLContext | None = None) -> Iterator[Peer]:
    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            peer.asked.append(Asked(self.command, self.path, dict(self.headers), body))
            answer = peer.answers.pop(0) if len(peer.answers) > 1 else peer.answers[0]
            time.sleep(answer.seconds)
            if answer.hang_up:
                self.close_connection = True
                return
            content = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
            self.send_response(answer.status)
            for header in {"Content-Length": str(len(content)), **answer.headers}.items():
                self.send_header(*header)
            self.end_headers()
            if not answer.pause:
                self.wfile.write(content)
                return
            with suppress(ConnectionError):  # nobody waits for the end of it
                for byte in content:
                    time.sleep(answer.pause)
                    self.wfile.write(bytes([byte]))

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer  # noqa: N815 the names are the base class's

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    if tls:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    peer = Peer(f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}")
    Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield peer
    finally:
        server.shutdown()
        server.server_close()


@dataclass(frozen=True)
class Models:
    """What was logged: models that multiply by the number of their name.

    doubler, doubler_again: URIs of the same model, of two runs; run: that of the doubler, which has kept samples too,
    and the doubler in the way of MLflow 2, as artifacts below old-style; with_example: has INPUTS as its input example,
    and no samples; directory: a quadrupler on disk.
    """

    run: str
    doubler: str
    doubler_again: str
    tripler: str
    with_example: str
    directory: Path


@contextmanager
def mlflow_client(tracking_uri: str) -> Iterator[None]:
    """MLflow's own client talks to that server, as the administrator, until the block ends."""
    before = mlflow.get_tracking_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_USERNAME", USERNAME)
        patch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)
        mlflow.set_tracking_uri(tracking_uri)
        try:
            yield
        finally:
            mlflow.set_tracking_uri(before)


def multiplier(factor: int) -> LinearRegression:
    """A model without rounding errors."""
    x = pd.DataFrame({"x": [1.0]})
    return LinearRegression(fit_intercept=False).fit(x, x["x"] * factor)


def signature() -> mlflow.models.ModelSignature:
    return mlflow.models.infer_signature(pd.DataFrame(INPUTS), pd.Series(DOUBLED))
