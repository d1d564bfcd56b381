"""Portainer's stand-in as a process, and a Docker engine for it to manage."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import Any

REPO = Path(__file__).parents[3]
PASSWORD = "an administrator's password"

ENGINE_ANSWERS = {
    "/info": {"Name": "host1", "ServerVersion": "28.5.2", "Containers": 6},
    "/containers/json?all=true": [{"Id": "c0ffee"}],
}

Run = Callable[..., dict[str, Any]]


class Engine(BaseHTTPRequestHandler):
    """A Docker engine that answers what is asked of it here."""

    def do_GET(self) -> None:
        body = json.dumps(ENGINE_ANSWERS[self.path]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Quiet; there is no address of a client to log."""


@contextmanager
def docker_engine() -> Iterator[str]:
    """The URL of a Docker engine."""
    with tempfile.TemporaryDirectory() as directory:  # pytest's are longer than the path of a socket may be
        path = f"{directory}/docker.sock"
        with ThreadingUnixStreamServer(path, Engine) as server:
            Thread(target=server.serve_forever).start()
            yield f"unix://{path}"
            server.shutdown()


@dataclass
class Standin:
    """A Portainer with its data directory; `start` it as often as you like, `stop` it in between."""

    data: Path
    port: int
    process: subprocess.Popen[str] | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    def start(self, password: str | None = PASSWORD, setup: str = "") -> None:
        """Start, and do not wait. setup: Python that runs in the process before it serves."""
        arguments = ["--http-disabled", f"--bind-https=127.0.0.1:{self.port}", f"--data={self.data}"]
        if password is not None:
            (self.data / "password").write_text(password)
            arguments.append(f"--admin-password-file={self.data / 'password'}")
        program = f"import standin\n{setup}\nstandin.main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            cwd=REPO / "tests/portainer_standin",
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def stop(self) -> None:
        if self.process is not None:
            self.process.terminate()
            self.process.wait(timeout=10)
