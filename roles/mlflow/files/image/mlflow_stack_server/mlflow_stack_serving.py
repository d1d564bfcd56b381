"""A model as a service: MLflow's own scoring app, behind a limit on what a request may hold.

    mlflow-stack-serving --host 0.0.0.0 --port 8080 --workers 4

It answers as `mlflow models serve` does (/ping, /health, /version, /invocations, with the same timeout of
MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT seconds), but

- a body of more than MLFLOW_STACK_MAX_BODY_MB MiB is a 413, whether its length is told or not, and so is one that is
  small but would grow out of all proportion in memory (MAX_PARTS);
- at most that many MiB of bodies are worked on at a time in a worker, the others wait;
- a body that does not arrive within BODY_TIMEOUT seconds is a 408, and 503 says that too many are on their way;
- where the kernel has killed a worker for lack of memory, its successor says so in the log;
- the workers share the model, which is loaded once (`mlflow_stack_workers`). There are at most as many as asked for, as
  there are cores, and as the container's memory allows; and one if the model has started threads.

Environment: `__pyfunc_model_path__`, the directory of the model, a local path, as `mlflow models serve` passes it to
its workers (required); MLFLOW_STACK_MAX_BODY_MB (16).

Each worker needs at most 30 times the limit beside the model. Measured with 16 MiB and the example's model (296 MiB
when idle): rows in JSON or CSV need 420 to 680 MiB at their peak, the worst that could be thought of 780 MiB. So 1 GiB
is enough for one worker.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import mlflow_stack_workers
from mlflow_stack_workers import cores, threads

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

MIB = 1 << 20
BODY_TIMEOUT = 60.0  # seconds
MEMORY_OF_BODY = 30  # times the limit: the most that a worker takes while it answers
WAITING_BODIES = 4  # times the limit: bodies that are held while they arrive or wait
# What a body may have, for each byte of the limit: an empty list has three bytes in JSON and takes a hundred in memory,
# and a few bytes of Parquet can stand for millions of cells.
MAX_PARTS = {"application/json": ("lists and objects", 1 / 16), "application/vnd.apache.parquet": ("cells", 1 / 2)}
# Where the kernel counts what it has killed in this container, in the two versions of control groups.
_COUNTERS = (Path("/sys/fs/cgroup/memory.events"), Path("/sys/fs/cgroup/memory/memory.oom_control"))
# The same for the memory that it allows.
_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))

log = logging.getLogger("uvicorn.error")


class RefusalError(Exception):
    """Why a body is not taken: an HTTP status, MLflow's error code and a sentence."""

    def __init__(self, status: int, error_code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.error_code = error_code


class Budget:
    """Bytes that may be in use at a time; who wants more than there is waits, in turn."""

    def __init__(self, size: int) -> None:
        self._size = self._free = size
        self._changed = asyncio.Condition()

    async def take(self, count: int) -> None:
        """Wait until `count` bytes, at most all of them, are free, and take them."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._free >= count)
            self._free -= count

    async def give_back(self, count: int) -> None:
        async with self._changed:
            self._free += count
            self._changed.notify_all()


class BodyLimit:
    """In front of an ASGI app: reads each body whole, and hands it on when its turn has come. `limit` is in bytes."""

    def __init__(self, app: ASGIApp, limit: int, timeout: float = BODY_TIMEOUT) -> None:
        self._app = app
        self._limit = limit
        self._timeout = timeout
        self._working = Budget(limit)
        self._held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body: list[bytes] = []
        taken = 0
        try:
            try:
                async with asyncio.timeout(self._timeout):
                    complete = await self._read(scope, receive, body)
            except TimeoutError:
                message = f"The request's body did not arrive within {self._timeout:g} s."
                raise RefusalError(408, "BAD_REQUEST", message) from None
            if not complete:
                return  # the client is gone
            await asyncio.to_thread(check_parts, body, _header(scope, b"content-type"), self._limit)
            await self._working.take(size := sum(map(len, body)))
            taken = size
            await self._app(scope, _replay(body, receive), send)
        except RefusalError as refusal:
            await _answer(send, refusal)
        finally:
            self._held -= sum(map(len, body))
            await self._working.give_back(taken)

    async def _read(self, scope: Scope, receive: Receive, body: list[bytes]) -> bool:
        """Read the whole body into `body`; False if the client goes away. Raises RefusalError."""
        told = _header(scope, b"content-length")
        size, read = int(told) if told.isdigit() else 0, 0
        while size <= self._limit:
            message = await receive()
            if message["type"] == "http.disconnect":
                return False
            block = message.get("body", b"")
            if self._held + len(block) > WAITING_BODIES * self._limit:
                sentence = "The server holds as many large requests as it can. Send this one again later."
                raise RefusalError(503, "TEMPORARILY_UNAVAILABLE", sentence)
            self._held += len(block)
            body.append(block)
            read += len(block)
            size = max(size, read)
            if not message.get("more_body", False):
                return True
        raise RefusalError(
            413,
            "BAD_REQUEST",
            f"The request's body has more than {self._limit / MIB:g} MiB, which is the most that this server takes. "
            "Send fewer rows at a time.",
        )


def check_parts(body: list[bytes], content_type: bytes, limit: int) -> None:
    """Raise RefusalError if a body has more parts than the `limit`, in bytes, allows."""
    kind = content_type.partition(b";")[0].strip().lower().decode("latin-1")
    if kind not in MAX_PARTS:
        return
    name, per_byte = MAX_PARTS[kind]
    most = int(limit * per_byte)
    count = _cells(body) if name == "cells" else sum(block.count(b"[") + block.count(b"{") for block in body)
    if count > most:
        raise RefusalError(
            413,
            "BAD_REQUEST",
            f"The request's body has {count:,} {name}, and {most:,} is the most that this server takes. "
            "Send fewer rows at a time.",
        )


def _cells(body: list[bytes]) -> int:
    """The cells of a table in Parquet; 0 if it is none, which MLflow says better."""
    from pyarrow import ArrowException, BufferReader, parquet  # type: ignore[import-untyped]

    try:
        metadata = parquet.ParquetFile(BufferReader(b"".join(body))).metadata
    except (ArrowException, OSError):
        return 0
    return int(metadata.num_rows * metadata.num_columns)


def _header(scope: Scope, name: bytes) -> bytes:
    return next((bytes(value) for header, value in scope["headers"] if header == name), b"")


def _replay(body: list[bytes], receive: Receive) -> Receive:
    """What `receive` gave, again, and then what it gives."""
    blocks = list(body)

    async def replay() -> Message:
        if not blocks:
            return await receive()
        return {"type": "http.request", "body": blocks.pop(0), "more_body": bool(blocks)}

    return replay


async def _answer(send: Send, refusal: RefusalError) -> None:
    content = json.dumps({"error_code": refusal.error_code, "message": str(refusal)}).encode()
    # The connection is closed, as the rest of the body may still be under way on it.
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refusal.status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def explain_killed_workers(counters: tuple[Path, ...] = _COUNTERS) -> None:
    """Say in the log if the kernel has killed a process of this container for lack of memory."""
    for counter in counters:
        try:
            lines = dict(line.split() for line in counter.read_text().splitlines())
        except (OSError, ValueError):
            continue
        if int(lines.get("oom_kill", "0")):
            log.error(
                "The kernel has killed a process of this container for lack of memory, %s times so far. That ends in "
                "'Child process died' or 'Return code = -9' above. Raise the container's memory limit, or lower "
                "MLFLOW_STACK_MAX_BODY_MB, the number of workers or the size of the requests.",
                lines["oom_kill"],
            )


def body_limit() -> int:
    """The limit in bytes. Raises ValueError if MLFLOW_STACK_MAX_BODY_MB is no number above zero."""
    text = os.environ.get("MLFLOW_STACK_MAX_BODY_MB", "16")
    try:
        limit = int(float(text) * MIB)
    except (ValueError, OverflowError):
        limit = 0
    if limit < 1:
        raise ValueError(f"MLFLOW_STACK_MAX_BODY_MB is {text!r}, expected a number of MiB above zero.")
    return limit


def main() -> None:
    """Serve the model in `__pyfunc_model_path__` until SIGTERM or SIGINT."""
    options = mlflow_stack_workers.options()
    most = min(options.workers, cores())
    if most > 1:
        mlflow_stack_workers.use_one_thread()  # the cores are for the workers
    os.register_at_fork(after_in_child=explain_killed_workers)
    mlflow_stack_workers.serve(
        create_app, lambda: worker_count(most, body_limit()), host=options.host, port=options.port, health="/ping"
    )


def worker_count(most: int, limit: int) -> int:
    """How many workers the model that is loaded allows, of `most`; `limit` is that of a body, in bytes."""
    if most > 1 and threads() > 1:
        log.warning(
            "The model has started threads while it was loaded, and they would be missing in workers that share it: "
            "it is served by one worker."
        )
        return 1
    free = memory_limit() - resident_memory()
    return max(1, min(most, free // (MEMORY_OF_BODY * limit)))


def memory_limit(limits: tuple[Path, ...] = _LIMITS) -> int:
    """The bytes of memory that this container may have; very many if it has no limit."""
    texts = [path.read_text().strip() for path in limits if path.exists()]
    return min((int(text) for text in texts if text.isdigit()), default=sys.maxsize)


def resident_memory() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


def create_app() -> ASGIApp:
    """The app of the model in `__pyfunc_model_path__`."""
    explain_killed_workers()
    limit = body_limit()
    from mlflow.pyfunc.scoring_server.app import app as scoring_app

    return BodyLimit(scoring_app, limit)
