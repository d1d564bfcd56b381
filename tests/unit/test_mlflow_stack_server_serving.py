"""A model as the image serves it, spoken to over HTTP (issue line B11)."""

from __future__ import annotations

import http.client
import io
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import mlflow
import pandas as pd
import pytest
import requests
from mlflow.models import infer_signature
from mlflow_stack_rig import PACKAGE, free_port, process_tree, pss, wait_for
from sklearn.linear_model import LinearRegression

sys.path.append(str(PACKAGE))

import mlflow_stack_serving
from mlflow_stack_workers import cores

MIB = 1 << 20
ROW = b"[1.23456789,2.50],"
COLUMNS = ["x", "y"]


@dataclass(frozen=True)
class Served:
    """A served model."""

    url: str
    pid: int

    def post(self, body: object, content_type: str = "application/json") -> requests.Response:
        return requests.post(
            f"{self.url}/invocations",
            data=body,  # type: ignore[arg-type]
            headers={"Content-Type": content_type},
            timeout=120,
        )

    def peak_memory(self) -> int:
        """The most that one of its processes has used, in bytes."""
        lines = [
            line.split()
            for pid in process_tree(self.pid)
            for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        ]
        return max(int(line[1]) * 1024 for line in lines if line and line[0] == "VmHWM:")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a model of two columns."""
    path = tmp_path_factory.mktemp("model") / "model"
    rows = pd.DataFrame([[1.0, 2.0], [2.0, 1.0], [3.0, 5.0]], columns=COLUMNS)
    fitted = LinearRegression().fit(rows, [3.0, 3.0, 8.0])
    mlflow.sklearn.save_model(fitted, path, signature=infer_signature(rows, fitted.predict(rows)))
    return path


@contextmanager
def running(command: list[str], log: Path, **variables: str) -> Iterator[Served]:
    """A server of a model, which listens on the port that the command ends with."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE), "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin"}
    with log.open("wb") as output:
        process = subprocess.Popen(command, env=environment | variables, stdout=output, stderr=output)
    served = Served(f"http://127.0.0.1:{command[-1]}", process.pid)

    def answers() -> bool:
        assert process.poll() is None, log.read_text()
        with suppress(requests.RequestException):
            return requests.get(f"{served.url}/ping", timeout=5).ok
        return False

    try:
        wait_for(answers, 120)
        yield served
    finally:
        process.terminate()
        process.wait(30)


@contextmanager
def ours(model: Path, log: Path, *, workers: int = 1, **variables: str) -> Iterator[Served]:
    """The server of the image."""
    main = "import mlflow_stack_serving; mlflow_stack_serving.main()"
    command = [sys.executable, "-c", main, "--workers", str(workers), "--port"]
    with running([*command, str(free_port())], log, __pyfunc_model_path__=str(model), **variables) as served:
        yield served


@pytest.fixture(scope="module")
def served(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The model, with the limits as they are by default."""
    with ours(model, tmp_path_factory.mktemp("served") / "log") as server:
        yield server


@pytest.fixture(scope="module")
def stock(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The same model, served by MLflow itself."""
    command = [sys.executable, "-m", "mlflow", "models", "serve", "--env-manager", "local", "--model-uri", str(model)]
    with running([*command, "--port", str(free_port())], tmp_path_factory.mktemp("stock") / "log") as server:
        yield server


def rows(size: int) -> bytes:
    """A request of `size` bytes."""
    begin, end = b'{"dataframe_split":{"columns":["x","y"],"data":[', b"]}}"
    count = (size - len(begin) - len(end)) // len(ROW)
    body = begin + (ROW * count)[:-1] + end
    return body + b" " * (size - len(body))


@pytest.mark.parametrize("path", ["ping", "health", "version", "nothing"])
def test_get_is_answered_as_by_mlflow(served: Served, stock: Served, path: str) -> None:
    ours, theirs = (requests.get(f"{server.url}/{path}", timeout=30) for server in (served, stock))
    assert (ours.status_code, ours.content) == (theirs.status_code, theirs.content)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (rows(1000), "application/json"),
        (b'{"inputs": {"x": [1, 2], "y": [3, 4]}}', "application/json; charset=utf-8"),
        (b'{"dataframe_records": [{"x": 1, "y": 2}]}', "application/json"),
        (b"x,y\n1,2\n", "text/csv"),
        (b"x,y\n1,2\n", "text/plain"),
        (b'{"inputs": [', "application/json"),
        (b'{"inputs": [["a", "b"]]}', "application/json"),
        (b"", "application/json"),
        (b"no parquet", "application/vnd.apache.parquet"),
    ],
)
def test_invocations_are_answered_as_by_mlflow(served: Served, stock: Served, body: bytes, content_type: str) -> None:
    ours, theirs = (server.post(body, content_type) for server in (served, stock))
    assert (ours.status_code, ours.headers["content-type"]) == (theirs.status_code, theirs.headers["content-type"])
    if ours.status_code < 500 and "stack_trace" not in theirs.text:
        assert ours.content == theirs.content


def test_parquet_is_answered_as_by_mlflow(served: Served, stock: Served) -> None:
    buffer = io.BytesIO()
    pd.DataFrame([[1.0, 2.0]], columns=COLUMNS).to_parquet(buffer)
    ours, theirs = (server.post(buffer.getvalue(), "application/vnd.apache.parquet") for server in (served, stock))
    assert (ours.status_code, ours.content) == (200, theirs.content)


@pytest.mark.parametrize("told", [True, False], ids=["length told", "chunked"])
def test_a_body_above_the_limit_is_a_413_and_a_sentence(served: Served, told: bool) -> None:
    """Issue line B11."""
    before = served.peak_memory()
    body = rows(50 * MIB)
    if told:
        answer = served.post(body)
        assert answer.status_code == 413
        content = answer.json()
    else:
        connection = http.client.HTTPConnection(served.url.removeprefix("http://"), timeout=30)
        blocks = (body[start : start + MIB] for start in range(0, len(body), MIB))
        with suppress(ConnectionError):  # the server does not wait for the end
            connection.request(
                "POST", "/invocations", blocks, {"Content-Type": "application/json"}, encode_chunked=True
            )
        response = connection.getresponse()
        assert response.status == 413
        content = json.loads(response.read())
    assert content == {
        "error_code": "BAD_REQUEST",
        "message": "The request's body has more than 16 MiB, which is the most that this server takes. "
        "Send fewer rows at a time.",
    }
    assert served.peak_memory() - before < 64 * MIB
    assert served.post(rows(1000)).status_code == 200


def test_a_body_of_the_limit_is_answered_within_the_memory_that_a_container_has(served: Served) -> None:
    """Issue line B11: 1 GiB is what a container has by default."""
    answer = served.post(rows(16 * MIB))
    assert answer.status_code == 200
    assert len(answer.json()["predictions"]) == (16 * MIB - 54) // len(ROW)
    assert served.peak_memory() < 1000 * MIB


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"inputs":[' + b"[]," * (5 * MIB) + b"[]]}", "application/json"),
        (b'{"inputs":[' + b"{}," * (5 * MIB) + b"{}]}", "application/json"),
        (b"parquet", "application/vnd.apache.parquet"),
    ],
    ids=["lists", "objects", "parquet"],
)
def test_a_small_body_that_would_be_large_in_memory_is_refused(served: Served, body: bytes, content_type: str) -> None:
    """Issue line B11: 16 MiB of empty lists took 1.9 GiB."""
    if body == b"parquet":
        buffer = io.BytesIO()
        pd.DataFrame({"x": [1.0], "y": [1.0]}).loc[[0] * 20_000_000].to_parquet(buffer, index=False)
        body = buffer.getvalue()
        assert len(body) < MIB
    answer = served.post(body, content_type)
    assert (answer.status_code, answer.json()["error_code"]) == (413, "BAD_REQUEST")
    assert served.peak_memory() < 1000 * MIB


def test_many_large_bodies_at_once_share_the_memory(served: Served) -> None:
    """Issue line B11: they are worked on one after the other; what is too much is asked to come again."""
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(served.post(rows(16 * MIB)).status_code)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    assert requests.get(f"{served.url}/ping", timeout=30).status_code == 200
    for thread in threads:
        thread.join()
    assert set(statuses) <= {200, 503}
    assert statuses.count(200) >= 4
    assert served.peak_memory() < 1000 * MIB


def test_clients_that_send_slowly_do_not_hold_up_others(model: Path, tmp_path: Path) -> None:
    with ours(model, tmp_path / "log", MLFLOW_STACK_MAX_BODY_MB="1") as served:
        host, port = served.url.removeprefix("http://").split(":")
        request = f"POST /invocations HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        slow = []
        for _ in range(20):
            connection = socket.create_connection((host, int(port)), timeout=10)
            connection.sendall(f"{request}Content-Length: {MIB}\r\n\r\n".encode() + b"x" * 1000)
            slow.append(connection)
        began = time.monotonic()
        assert served.post(rows(MIB)).status_code == 200
        assert time.monotonic() - began < 10
        for connection in slow:  # else the server's end would wait for theirs
            connection.close()
        assert served.post(rows(MIB + 1)).status_code == 413


def test_workers_share_the_model_and_answer_as_one(model: Path, stock: Served, tmp_path: Path) -> None:
    """Issue line B7: two workers took twice the memory of one; now they take less than MLflow's command with one."""
    with ours(model, tmp_path / "log", workers=cores()) as served:
        children = process_tree(served.pid)[1:]
        assert len(children) == cores() > 1
        answers = {served.post(rows(1000)).content for _ in range(20)}  # each on a connection of its own
        assert answers == {stock.post(rows(1000)).content}
        assert sum(map(pss, process_tree(served.pid))) < sum(map(pss, process_tree(stock.pid)))


def test_a_worker_that_is_killed_is_replaced_at_once(model: Path, tmp_path: Path) -> None:
    """Issue line B7."""
    with ours(model, tmp_path / "log", workers=2) as served:
        killed = process_tree(served.pid)[1]
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: len(set(process_tree(served.pid)) - {killed}) == 3, 5)  # seconds: to load it takes longer
        assert {served.post(rows(1000)).status_code for _ in range(20)} == {200}
        assert "died" in (tmp_path / "log").read_text()


def model_of_code(directory: Path, code: str) -> Path:
    """The directory of a model that is a program."""
    program = directory / "program.py"
    program.write_text(code)
    table = pd.DataFrame([[1.0, 2.0]], columns=COLUMNS)
    mlflow.pyfunc.save_model(directory / "model", python_model=str(program), signature=infer_signature(table, [1]))
    return directory / "model"


RANDOM_MODEL = """
import numpy
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Random(PythonModel):
    def predict(self, context, model_input, params=None):
        return numpy.random.randint(1 << 60, size=len(model_input))

set_model(Random())
"""


def test_workers_draw_random_numbers_of_their_own(tmp_path: Path) -> None:
    """A fork begins with its parent's numbers, and a worker that replaces another would begin with them again."""
    with ours(model_of_code(tmp_path, RANDOM_MODEL), tmp_path / "log", workers=2) as served:
        answers = [served.post(rows(100)).json()["predictions"][0] for _ in range(20)]
    assert len(set(answers)) == len(answers)


THREADED_MODEL = """
import threading
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel

class Threaded(PythonModel):
    def load_context(self, context):
        threading.Thread(target=threading.Event().wait, name="of the model", daemon=True).start()

    def predict(self, context, model_input, params=None):
        return [[thread.name for thread in threading.enumerate()].count("of the model")] * len(model_input)

set_model(Threaded())
"""


def test_a_model_that_has_started_threads_is_served_by_the_process_that_has_them(tmp_path: Path) -> None:
    """Issue line B7: a thread does not come along into a worker that is forked."""
    with ours(model_of_code(tmp_path, THREADED_MODEL), tmp_path / "log", workers=2) as served:
        assert process_tree(served.pid) == [served.pid]
        assert served.post(rows(100)).json()["predictions"][0] == 1
        assert "it is served by one worker" in (tmp_path / "log").read_text()


@pytest.mark.parametrize(
    ("limit", "resident", "most", "workers"),
    [
        ("max", 300, 4, 4),
        ("1000", 300, 4, 1),
        ("1280", 300, 4, 2),
        ("2688", 300, 4, 4),
        ("500", 400, 4, 1),  # one there must be
        (None, 300, 2, 2),
    ],
)
def test_there_are_as_many_workers_as_the_memory_allows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str | None, resident: int, most: int, workers: int
) -> None:
    """Issue line B7. Each may need 30 times the limit of a body, here 16 MiB."""
    if limit is not None:
        (tmp_path / "limit").write_text(str(int(limit) * MIB) if limit.isdigit() else limit)
    found = mlflow_stack_serving.memory_limit((tmp_path / "nothing", tmp_path / "limit"))
    monkeypatch.setattr(mlflow_stack_serving, "memory_limit", lambda: found)
    monkeypatch.setattr(mlflow_stack_serving, "resident_memory", lambda: resident * MIB)
    monkeypatch.setattr(mlflow_stack_serving, "threads", lambda: 1)
    assert mlflow_stack_serving.worker_count(most, 16 * MIB) == workers


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan", "inf"])
def test_a_limit_that_is_none_is_named(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    monkeypatch.setenv("MLFLOW_STACK_MAX_BODY_MB", value)
    with pytest.raises(ValueError, match=f"MLFLOW_STACK_MAX_BODY_MB is '{value}', expected a number of MiB above zero"):
        mlflow_stack_serving.body_limit()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("low 0\nhigh 0\nmax 7\noom 2\noom_kill 2\n", True),  # control groups, version 2
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 1\n", True),  # version 1
        ("oom_kill_disable 0\nunder_oom 0\noom_kill 0\n", False),
        ("nothing of the kind", False),
        (None, False),
    ],
)
def test_a_worker_that_the_kernel_has_killed_is_explained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: str | None, said: bool
) -> None:
    """Issue line B11: the log said 'Return code = -9'."""
    if content is not None:
        (tmp_path / "counter").write_text(content)
    with caplog.at_level(logging.ERROR, "uvicorn.error"):
        mlflow_stack_serving.explain_killed_workers((tmp_path / "nothing", tmp_path / "counter"))
    assert ("for lack of memory" in caplog.text) == said
