"""What the benchmarks of servers share: servers, clients that send requests side by side, memory of processes."""

import contextlib
import http.client
import os
import re
import ssl
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

REPO = Path(__file__).parents[1]
IMAGE = REPO / "roles/mlflow/files/image/mlflow_stack_server"
sys.path[:0] = [str(REPO / "mlflow_ftps/tests"), str(REPO / "tests/unit")]

from ftp_servers import free_port, process_tree  # noqa: E402

# uvicorn as MLflow installs it, also where what makes it faster is there.
AS_SHIPPED = {"UVICORN_LOOP": "asyncio", "UVICORN_HTTP": "h11"}


class Call(NamedTuple):
    """A request: its method, path and body."""

    method: str
    path: str
    body: bytes = b""


class Client:
    """A client that keeps its connection, as MLflow's does; paths of its calls are below `url`."""

    def __init__(self, url: str, headers: Mapping[str, str], trust: ssl.SSLContext | None = None) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = (
            http.client.HTTPSConnection(parts.netloc, timeout=60, context=trust)
            if parts.scheme == "https"
            else http.client.HTTPConnection(parts.netloc, timeout=60)
        )
        self._headers = {"Content-Type": "application/json", **headers}

    def send(self, call: Call) -> bytes:
        """The body of the answer. Raises RuntimeError if it is no success."""
        self._connection.request(call.method, self._path + call.path, call.body or None, self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{call.method} {call.path} is answered with {answer.status}: {body[:500]!r}")
        return body

    def close(self) -> None:
        self._connection.close()


class Server(NamedTuple):
    """A running server: where it answers, its process, what clients send with each request, and whom they trust."""

    url: str
    pid: int
    headers: Mapping[str, str] = {}
    trust: ssl.SSLContext | None = None

    def rate(self, call: Call, clients: int, seconds: float) -> float:
        """Answers a second that `clients` get together, each on a connection of its own, for `seconds`."""
        begin = time.monotonic() + seconds / 4  # the first quarter warms up
        end = begin + seconds

        def work(_: int) -> int:
            count = 0
            with contextlib.closing(Client(self.url, self.headers, self.trust)) as client:
                while (now := time.monotonic()) < end:
                    client.send(call)
                    count += now >= begin
            return count

        with ThreadPoolExecutor(clients) as threads:
            return sum(threads.map(work, range(clients))) / seconds

    def latency(self, call: Call, count: int) -> float:
        """The median time of an answer, in seconds, of `count` that are asked for one after the other."""
        times = []
        with contextlib.closing(Client(self.url, self.headers, self.trust)) as client:
            for _ in range(count):
                began = time.perf_counter()
                client.send(call)
                times.append(time.perf_counter() - began)
        return statistics.median(times)

    def memory(self) -> float:
        """What its processes use, in MiB: their proportional set sizes."""
        return sum(pss(pid) for pid in process_tree(self.pid))


def pss(pid: int) -> float:
    """The proportional set size of a process, in MiB: a page that n processes share counts 1/n. Raises OSError."""
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(kib) for kib in re.findall(r"^Pss: +(\d+) kB$", rollup, re.MULTILINE)) / 1024


@contextlib.contextmanager
def running(
    command: list[str], address: str, home: Path, variables: Mapping[str, str], headers: Mapping[str, str]
) -> Iterator[Server]:
    """A server that is started by `command` and a port, and is up when `address` is answered."""
    port = free_port()
    server_log = home / f"log-{port}"
    packages = os.pathsep.join([str(IMAGE), str(REPO / "mlflow_ftps/src"), *sys.path])
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": packages,
        "MLFLOW_DISABLE_TELEMETRY": "true",
        **variables,
    }
    with server_log.open("wb") as log:
        process = subprocess.Popen([*command, "--port", str(port)], env=environment, cwd=home, stdout=log, stderr=log)
    server = Server(f"http://127.0.0.1:{port}", process.pid, headers)
    try:
        _await(server, Call("GET", address), process, server_log)
        yield server
    finally:
        process.terminate()
        process.wait(30)


def _await(server: Server, call: Call, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + 120
    while True:
        with contextlib.suppress(OSError, http.client.HTTPException):
            Client(server.url, {}).send(call)
            return
        if process.poll() is not None or time.monotonic() > give_up:
            raise RuntimeError(f"The server did not start:\n{log.read_text()}")
        time.sleep(0.2)
