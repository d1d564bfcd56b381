"""Serve an ASGI app with several processes that share what it has loaded.

uvicorn's own supervisor starts an interpreter for each worker, and each loads MLflow, and a model, anew: 200 MiB and
more, and seconds. Here the app is made once and the workers are forked from it. They write to few of its pages, so that
all of them together take little more than one; a worker that dies is replaced in a moment, by another fork.

What is made before the fork must survive it: no thread runs on in a fork, and a connection must have one owner.
"""

from __future__ import annotations

import argparse
import gc
import logging
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable
from http import HTTPStatus
from multiprocessing.connection import wait
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from starlette.types import ASGIApp
    from uvicorn.supervisors.multiprocess import Process

# Seconds after which a worker that says nothing is replaced. A host that is overloaded for a moment is no reason.
WORKER_TIMEOUT = 30

log = logging.getLogger("uvicorn.error")


def options() -> argparse.Namespace:
    """What the command line says of host, port and workers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workers", type=int, required=True)
    return parser.parse_args()


def use_one_thread() -> None:
    """Keep numpy's and Arrow's native libraries from starting threads of their own. Must come before their import."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("JE_ARROW_MALLOC_CONF", "background_thread:false")


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0))


def threads() -> int:
    """The threads of this process, those of its native libraries too."""
    return len(list(Path("/proc/self/task").iterdir()))


def serve(
    create_app: Callable[[], ASGIApp],
    workers: Callable[[], int],
    *,
    host: str,
    port: int,
    health: str,
    log_config: str = "",
) -> None:
    """Make the app and answer until SIGTERM or SIGINT, by `workers()` processes, which is asked once the app is made.

    One worker is this process itself. `health` is the path that Docker asks every few seconds, of which the log tells
    only what is no success. `log_config` is a file; without one the log is uvicorn's. Raises what `create_app` raises.
    """
    import uvicorn
    from uvicorn import _subprocess
    from uvicorn.supervisors import multiprocess

    # Sets up the log, before the app is made. Not "auto": where one of the two is missing, every answer would only be
    # slower, and 40 ms late with several workers.
    config = uvicorn.Config(
        "",
        host=host,
        port=port,
        loop="uvloop",
        http="httptools",
        log_config=log_config or uvicorn.config.LOGGING_CONFIG,
        timeout_worker_healthcheck=WORKER_TIMEOUT,
    )
    logging.getLogger("uvicorn.access").addFilter(lambda record: not _is_of_success(record, health))
    config.app = create_app()
    config.load()
    config.workers = workers()
    if config.workers == 1:
        uvicorn.Server(config).run()
        return
    # What is there now stays: collecting garbage must not write to pages that are shared.
    gc.collect()
    gc.freeze()
    os.register_at_fork(after_in_child=_begin_anew)
    _subprocess.spawn = multiprocessing.get_context("fork")  # type: ignore[assignment]
    multiprocess.Process = _patient(multiprocess.Process)  # type: ignore[misc]
    multiprocess.Multiprocess(config, [config.bind_socket()]).run()


def _is_of_success(record: logging.LogRecord, path: str) -> bool:
    """Whether this line of uvicorn's access log says that a question for `path` was answered with success."""
    match record.args:
        case (_, _, asked, _, int(status)):
            return asked == path and status < HTTPStatus.BAD_REQUEST
    return False


def _patient(process: type[Process]) -> type[Process]:
    """uvicorn's worker, but who waits for its answer is told at once when it has died.

    The other end of their pipe is open in its siblings, which are forks, so that it does not break.
    """

    class Patient(process):  # type: ignore[valid-type, misc]
        def _healthcheck(self, timeout: float) -> bool | None:
            try:
                self.parent_conn.send(b"ping")
                wait([self.parent_conn, self.process.sentinel], timeout)
                return bool(self.parent_conn.recv()) if self.parent_conn.poll(0) else None
            except (OSError, EOFError):
                return None

    return Patient


def _begin_anew() -> None:
    """What a new process would have of its own: what to do on a signal, and numpy's random numbers, as Python's are."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if numpy := sys.modules.get("numpy"):
        numpy.random.seed()
