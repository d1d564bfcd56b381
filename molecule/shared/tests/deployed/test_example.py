"""The worked example: trained by the deployment, registered, served, and there to be run again."""

from __future__ import annotations

import json

import pytest
from stack import Stack

SERVED = "http://127.0.0.1:5002/invocations"

# Prints what the champion's training run has predicted: {"inputs": records, "expected": numbers}.
SMOKE_TEST = """
import json, mlflow
version = mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion")
print(json.dumps(mlflow.artifacts.load_dict(f"runs:/{version.run_id}/smoke_test.json")))
"""

# Prints the champion's version.
CHAMPION = """
import json, mlflow
print(json.dumps(str(mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion").version)))
"""

# Runs the project and prints the parameter that it was given, as the server has it.
PROJECT = """
import json, mlflow
run = mlflow.run("work/wine-quality", parameters={"n_estimators": 10}, env_manager="local", experiment_name="project")
print(json.dumps(mlflow.get_run(run.run_id).data.params["n_estimators"]))
"""


def assert_predicts_as_in_training(stack: Stack) -> None:
    """What is served answers with the predictions of the champion's training."""
    test = stack.python(SMOKE_TEST)

    answer = stack.request("POST", SERVED, body={"dataframe_records": test["inputs"]})

    assert answer.status == 200
    predictions = json.loads(answer.body)["predictions"]
    assert len(predictions) == len(test["expected"]) > 0
    assert max(abs(a - b) for a, b in zip(predictions, test["expected"], strict=True)) < 1e-6


def test_the_served_model_predicts_as_in_training(stack: Stack) -> None:
    assert_predicts_as_in_training(stack)


def test_the_served_model_refuses_what_does_not_fit(stack: Stack) -> None:
    assert stack.request("POST", SERVED, body={"dataframe_records": [{"colour": "red"}]}).status == 400


def test_the_example_runs_as_a_project(stack: Stack) -> None:
    assert float(stack.python(PROJECT)) == 10


@pytest.mark.once
def test_a_version_that_fails_its_smoke_test_is_not_promoted(stack: Stack) -> None:
    """A new version is trained, as if the code were another, and must answer within 1 ms, which none can."""
    champion, started = stack.python(CHAMPION), stack.started_at()
    too_fast = {"example_champion_code": "", "example_max_latency_ms": 1}

    deployment = stack.deploy("--tags=example", f"--extra-vars={json.dumps(too_fast)}")

    assert deployment.returncode != 0
    assert "Test the candidate" in deployment.stdout
    assert "1 ms" in deployment.stdout, deployment.stdout[-2000:]
    assert stack.python(CHAMPION) == champion
    assert stack.started_at() == started  # the served one went on, and no candidate is left
    assert_predicts_as_in_training(stack)
