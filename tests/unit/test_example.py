"""The worked example: what a run leaves in MLflow, that it can be served, and that project and notebook do the same."""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import mlflow
import nbformat
import pandas as pd
import pytest
import requests
import yaml
from nbclient import NotebookClient
from nbformat import NotebookNode

PROJECT = Path(__file__).parents[2] / "roles/example/files/wine-quality"
sys.path.insert(0, str(PROJECT))
sys.dont_write_bytecode = True  # the directory goes into Jupyter's image as it is
train: Any = importlib.import_module("train")

QUICK = train.Parameters(n_estimators=10, learning_rate=0.2, max_depth=2, subsample=0.5, seed=1)


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment that Jupyter's container gives: a tracking URI, and Python's programs on the path."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"
    mlflow.set_tracking_uri(uri)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    settings = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_DISABLE_TELEMETRY": "true", "PYTHONDONTWRITEBYTECODE": "1"}
    return {**os.environ, **settings, "PATH": path}


def result_of(arguments: list[str], directory: Path, environment: dict[str, str]) -> dict[str, Any]:
    """Run Python and return the JSON object on the last line of its standard output."""
    done = subprocess.run([sys.executable, *arguments], cwd=directory, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


@pytest.fixture(scope="module")
def result(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `python train.py` says, called as the deployment calls it."""
    options = [f"--{key.replace('_', '-')}={value}" for key, value in asdict(QUICK).items()]
    return result_of([str(PROJECT / "train.py"), *options], tmp_path_factory.mktemp("work"), environment)


@pytest.fixture(scope="module")
def endpoint(
    result: dict[str, Any], environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """The address of the trained model, served as the deployment serves it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = ["--model-uri", result["model_uri"], "--env-manager", "local", "--port", str(port)]
    log = tmp_path_factory.mktemp("serve") / "log"
    with log.open("w") as output:
        arguments = [sys.executable, "-m", "mlflow", "models", "serve", *options]
        server = subprocess.Popen(arguments, env=environment, stdout=output, stderr=output)
    try:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        yield f"http://127.0.0.1:{port}/invocations"
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_for(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    """Return when the URL answers 200; fail with the server's log if it ends or takes three minutes."""
    deadline = time.monotonic() + 180
    while server.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(url, timeout=1).ok:
                return
        except requests.ConnectionError:
            time.sleep(0.2)
    pytest.fail(f"{url} does not answer:\n{log.read_text()}")


def test_run_holds_the_parameters_and_the_code_version(result: dict[str, Any]) -> None:
    run = mlflow.get_run(result["run_id"])
    code = (PROJECT / "train.py").read_text()
    assert run.info.status == "FINISHED"
    assert run.data.params == {key: str(value) for key, value in asdict(QUICK).items()}
    assert run.data.tags["code.sha256"] == hashlib.sha256(code.encode()).hexdigest()
    assert run.data.tags["mlflow.source.name"] == str(PROJECT / "train.py")
    assert mlflow.artifacts.load_text(f"runs:/{result['run_id']}/code/train.py") == code


def test_metrics_have_one_step_a_tree_and_the_error_falls(result: dict[str, Any]) -> None:
    history = mlflow.MlflowClient().get_metric_history(result["run_id"], "train_rmse")
    assert [metric.step for metric in history] == list(range(1, QUICK.n_estimators + 1))
    assert history[-1].value < history[0].value
    assert mlflow.get_run(result["run_id"]).data.metrics == result["metrics"]


def test_figure_is_an_image(result: dict[str, Any]) -> None:
    image = mlflow.artifacts.load_image(f"runs:/{result['run_id']}/learning_curve.png")
    assert image.width > image.height > 100


def test_smoke_test_holds_what_the_same_training_predicts_again(result: dict[str, Any]) -> None:
    smoke_test = mlflow.artifacts.load_dict(f"runs:/{result['run_id']}/smoke_test.json")
    data = train.load(QUICK.seed)
    assert smoke_test == result["smoke_test"]
    assert smoke_test == train.smoke_test(train.fit(QUICK, data), data.x_test.head(train.SMOKE_TEST_ROWS))
    assert len(set(smoke_test["expected"])) == train.SMOKE_TEST_ROWS


def test_served_model_gives_the_predictions_of_training(result: dict[str, Any], endpoint: str) -> None:
    answer = requests.post(endpoint, json={"dataframe_records": result["smoke_test"]["inputs"]}, timeout=10)
    assert answer.json()["predictions"] == pytest.approx(result["smoke_test"]["expected"], rel=1e-9)


def test_model_has_an_input_example_and_refuses_what_its_signature_does_not_allow(result: dict[str, Any]) -> None:
    model = mlflow.pyfunc.load_model(result["model_uri"])
    assert model.input_example.to_dict(orient="records") == result["smoke_test"]["inputs"]
    with pytest.raises(mlflow.MlflowException, match=r"missing inputs .*alcohol"):
        model.predict(pd.DataFrame([{"hue": 1.0}]))


def test_training_registers_nothing(result: dict[str, Any]) -> None:
    assert result["name"] == "wine-quality"
    assert not mlflow.search_registered_models()


def test_project_has_the_parameters_of_the_script() -> None:
    declared = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]["main"]["parameters"]
    assert {key: parameter["default"] for key, parameter in declared.items()} == asdict(train.Parameters())


def test_project_logs_to_the_run_that_mlflow_opened(environment: dict[str, str], tmp_path: Path) -> None:
    """A number that is not typed as Python prints it must not clash with the parameter that the script logs."""
    options = [
        "--env-manager",
        "local",
        "--experiment-name",
        "project",
        "-P",
        "n_estimators=10",
        "-P",
        "subsample=0.50",
    ]
    result = result_of(["-m", "mlflow", "run", str(PROJECT), *options], tmp_path, environment)
    (run,) = mlflow.search_runs(experiment_names=["project"], output_format="list")
    assert run.info.run_id == result["run_id"]
    assert run.info.status == "FINISHED"
    defaults = {key: str(value) for key, value in asdict(train.Parameters()).items()}
    assert run.data.params == defaults | {"n_estimators": "10", "subsample": "0.50"}


def notebook() -> NotebookNode:
    """The notebook as it is stored."""
    stored: NotebookNode = nbformat.read(PROJECT / "wine-quality.ipynb", as_version=4)  # type: ignore[no-untyped-call]
    return stored


def printed(notebook: NotebookNode, cell_id: str) -> str:
    """What a cell of an executed notebook has printed."""
    (cell,) = (cell for cell in notebook.cells if cell.id == cell_id)
    return "".join(output.text for output in cell.outputs if output.name == "stdout")


def test_notebook_registers_a_challenger_beside_what_is_there_and_asks_the_served_model(
    environment: dict[str, str], result: dict[str, Any], endpoint: str
) -> None:
    mlflow.register_model(result["model_uri"], train.NAME)
    client = NotebookClient(notebook(), resources={"metadata": {"path": PROJECT}}, timeout=120)
    executed = client.execute(env={**environment, "MODEL_ENDPOINT": endpoint})
    challenger = mlflow.MlflowClient().get_model_version_by_alias(train.NAME, "challenger")
    assert str(challenger.version) == "2"
    served = mlflow.pyfunc.load_model(result["model_uri"])
    assert json.loads(printed(executed, "rest")) == pytest.approx(served.predict(train.load().x_test.head()), rel=1e-9)


def test_notebook_says_so_when_no_model_is_served(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MODEL_ENDPOINT", "http://127.0.0.1:1/invocations")
    (cell,) = (cell for cell in notebook().cells if cell.id == "rest")
    exec(cell.source, {"os": os, "requests": requests, "data": train.load()})  # noqa: S102 the cell is ours
    assert capsys.readouterr().out.startswith("Nothing answers at http://127.0.0.1:1/invocations.")


def test_notebook_is_stored_without_outputs() -> None:
    assert [cell.id for cell in notebook().cells if cell.get("outputs") or cell.get("execution_count")] == []
