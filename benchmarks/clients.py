"""What the benchmarks of servers share: clients that send requests side by side, and the memory of processes."""

import http.client
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit


class Call(NamedTuple):
    """A request: its method, path and body."""

    method: str
    path: str
    body: bytes = b""


class Client:
    """A client that keeps its connection, as MLflow's does."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=60)
        self._headers = {"Content-Type": "application/json", **headers}

    def send(self, call: Call) -> bytes:
        """The body of the answer. Raises RuntimeError if it is no success."""
        self._connection.request(call.method, call.path, call.body or None, self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{call.method} {call.path} is answered with {answer.status}: {body[:500]!r}")
        return body

    def close(self) -> None:
        self._connection.close()


def rate(clients: list[Client], call: Call, seconds: float) -> float:
    """Answers a second that the clients get together, each sending `call` again and again for that long."""
    give_up = time.monotonic() + seconds

    def work(client: Client) -> int:
        count = 0
        while time.monotonic() < give_up:
            client.send(call)
            count += 1
        return count

    began = time.monotonic()
    with ThreadPoolExecutor(len(clients)) as threads:
        total = sum(threads.map(work, clients))
    return total / (time.monotonic() - began)


def latency(client: Client, call: Call, count: int) -> float:
    """The median time of an answer, in seconds, of `count` that are asked for one after the other."""

    def seconds() -> float:
        began = time.perf_counter()
        client.send(call)
        return time.perf_counter() - began

    return sorted(seconds() for _ in range(count))[count // 2]
