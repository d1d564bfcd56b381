"""The worked example: trained by the deployment, registered, served, and there to be run again."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from stack import ROOT, Stack, changes, wait_until

SERVED = "http://127.0.0.1:5002/invocations"

# Prints what the champion's training run has predicted: {"inputs": records, "expected": numbers}.
SMOKE_TEST = """
import json, mlflow
version = mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion")
print(json.dumps(mlflow.artifacts.load_dict(f"runs:/{version.run_id}/smoke_test.json")))
"""

# Prints the champion's version and its tags.
CHAMPION = """
import json, mlflow
version = mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion")
print(json.dumps([int(version.version), dict(version.tags)]))
"""

# Trains and registers another model by hand, and prints its version. Its sample is what it predicts, unless broken.
RIVAL = """
import json, sys, mlflow
sys.path.insert(0, "/opt/examples/wine-quality")
import train
mlflow.set_experiment("wine-quality")
result = train.train(train.Parameters(n_estimators=20))
if sys.argv[1] == "broken":
    wrong = {**result["smoke_test"], "expected": [value + 1 for value in result["smoke_test"]["expected"]]}
    mlflow.MlflowClient().log_dict(result["run_id"], wrong, "smoke_test.json")
print(json.dumps(int(mlflow.register_model(result["model_uri"], "wine-quality").version)))
"""

# Registers a version that ends the process that loads it.
CRASHING = """
import json, mlflow
class Crashing(mlflow.pyfunc.PythonModel):
    def load_context(self, context):
        raise SystemExit("nobody can load this")
    def predict(self, context, model_input):
        return model_input
mlflow.set_experiment("wine-quality")
with mlflow.start_run():
    mlflow.log_dict({"inputs": [[1]], "expected": [1]}, "smoke_test.json")
    model = mlflow.pyfunc.log_model(name="crashing", python_model=Crashing())
print(json.dumps(int(mlflow.register_model(model.model_uri, "wine-quality").version)))
"""

# Moves the alias by hand; with a digest of the code, its tag is forged too.
MOVE = """
import json, sys, mlflow
version, *code = sys.argv[1:]
client = mlflow.MlflowClient()
client.set_registered_model_alias("wine-quality", "champion", version)
for digest in code:
    client.set_model_version_tag("wine-quality", version, "code.sha256", digest)
print(json.dumps(None))
"""

# Sends 50 MB to the served model, and prints the answer's status and text.
LARGE = """
import json, os, requests
answer = requests.post(os.environ["MODEL_ENDPOINT"], json={"inputs": [[0.5] * 10_000_000]}, timeout=60)
print(json.dumps([answer.status_code, answer.text]))
"""

# Rows to predict, whatever is served.
ROWS = """
import json, sys
sys.path.insert(0, "/opt/examples/wine-quality")
import train
print(json.dumps(train.load().x_test.head().to_dict(orient="records")))
"""

# Predicts with a version, by itself, in the notebook's own process.
PREDICT = """
import json, sys, mlflow
model = mlflow.pyfunc.load_model(f"models:/wine-quality/{sys.argv[1]}")
sys.path.insert(0, "/opt/examples/wine-quality")
import train
print(json.dumps(model.predict(train.load().x_test.head()).tolist()))
"""

# Runs the project and prints the parameter that it was given, as the server has it.
PROJECT = """
import json, mlflow
run = mlflow.run("wine-quality", parameters={"n_estimators": 10}, env_manager="local", experiment_name="project")
print(json.dumps(mlflow.get_run(run.run_id).data.params["n_estimators"]))
"""


def assert_predicts_as_in_training(stack: Stack, url: str = SERVED) -> None:
    """What is served answers with the predictions of the champion's training."""
    test = stack.python(SMOKE_TEST)

    answer = stack.request("POST", url, body={"dataframe_records": test["inputs"]})

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


def predictions(stack: Stack) -> list[float]:
    """What is served, by what it predicts."""
    answer = stack.request("POST", SERVED, body={"dataframe_records": stack.python(ROWS)})
    assert answer.status == 200, answer
    values: list[float] = json.loads(answer.body)["predictions"]
    return values


def served_version(stack: Stack) -> str:
    """The version of the served model, by its label."""
    label: str = stack.services()["serving-wine-quality"]["Config"]["Labels"]["mlflow-stack.model-version"]
    return label


def test_the_served_model_can_write_nowhere_and_has_no_credentials(stack: Stack) -> None:
    """Issue line B7: whoever takes over the process that serves a model holds that model and nothing else."""
    container = stack.services()["serving-wine-quality"]
    tries = "touch /home/mlflow/x /models/x /opt/mlflow/x; ls /etc/mlflow-stack/credentials; ls /models/*/MLmodel"

    said = stack.execute("serving-wine-quality", "bash", "-c", f"({tries}) 2>&1")

    assert said.count("Read-only file system") == 3, said
    assert "'/etc/mlflow-stack/credentials': No such file" in said
    assert said.splitlines()[-1].endswith("/MLmodel")
    assert container["HostConfig"]["ReadonlyRootfs"]
    assert not [line for line in container["Config"]["Env"] if line.startswith("MLFLOW_TRACKING")]


@pytest.mark.once
def test_a_large_request_harms_nobody(stack: Stack) -> None:
    """Issue line B11: 50 MB are refused in a sentence, and the model goes on."""
    started, before = stack.started_at(), predictions(stack)

    said = stack.python(LARGE)

    assert said[0] == 413, said
    assert "16 MiB" in said[1]
    assert stack.started_at() == started
    assert predictions(stack) == before


@pytest.mark.once
def test_the_model_is_served_without_mlflow(stack: Stack) -> None:
    """Issue line B7: what is served needs neither MLflow nor its stores to start again."""
    before = predictions(stack)
    stack.run("docker stop mlflow-stack-mlflow")
    try:
        stack.run("docker restart mlflow-stack-serving-wine-quality")
        wait_until(lambda: stack.services()["serving-wine-quality"]["State"]["Health"]["Status"] == "healthy", 90)
        assert predictions(stack) == before
    finally:
        stack.run("docker start mlflow-stack-mlflow")
        stack.wait_until_healthy()


@pytest.mark.once
def test_a_version_that_fails_its_smoke_test_is_not_promoted(stack: Stack) -> None:
    """Issue line A8: the code is another, as by a comment, and the model, which is the same, must answer within 1 ms.

    None can: the version keeps the tag of the code that it was proved with.
    """
    (champion, tags), started = stack.python(CHAMPION), stack.started_at()
    too_fast = {"__example_code": "another", "example_max_latency_ms": 1}

    deployment = stack.deploy("--tags=example", f"--extra-vars={json.dumps(too_fast)}")

    assert deployment.returncode != 0
    assert "Test the candidate" in deployment.stdout
    assert "1 ms" in deployment.stdout, deployment.stdout[-2000:]
    version, tags_after = stack.python(CHAMPION)
    assert (version, tags_after["code.sha256"]) == (champion, tags["code.sha256"])
    assert stack.started_at() == started  # the served one went on
    assert "candidate" not in stack.run("docker ps --all --format '{{.Names}}'")
    assert_predicts_as_in_training(stack)


@pytest.mark.once
def test_an_alias_that_was_moved_by_hand_is_followed_after_proof(stack: Stack) -> None:
    """Issue line B8: an untested version is served by no restart and no run, whatever its tags say."""
    (champion, tags), before = stack.python(CHAMPION), predictions(stack)
    broken, sound = stack.python(RIVAL, "broken"), stack.python(RIVAL, "sound")
    try:
        stack.python(MOVE, str(broken), tags["code.sha256"])
        stack.run("docker restart mlflow-stack-serving-wine-quality")
        stack.wait_until_healthy()
        assert predictions(stack) == before

        held_back = stack.deploy("--tags=example")
        assert held_back.returncode == 0, held_back.stdout[-3000:]
        assert f"goes on with version {champion} of wine-quality, not with version {broken}" in held_back.stdout
        assert "row 0: expected" in held_back.stdout
        assert (predictions(stack), served_version(stack)) == (before, str(champion))
        assert stack.python(CHAMPION)[0] == broken  # what somebody has chosen is not taken back behind his back

        stack.python(MOVE, str(sound))
        followed = stack.deploy("--tags=example")
        assert followed.returncode == 0, followed.stdout[-3000:]
        assert f"champion of wine-quality stays at version {sound}" in followed.stdout
        assert served_version(stack) == str(sound)
        assert predictions(stack) != before
        assert stack.python(CHAMPION)[0] == sound

        again = stack.deploy("--tags=example")
        assert changes(again.stdout) == 0, again.stdout[-3000:]
    finally:
        stack.python(MOVE, str(champion))
        back = stack.deploy("--tags=example")
    assert back.returncode == 0, back.stdout[-3000:]
    assert (predictions(stack), served_version(stack)) == (before, str(champion))


def promote(stack: Stack, **variables: object) -> subprocess.CompletedProcess[str]:
    """Run the playbook of that name."""
    return stack.deploy(f"--extra-vars={json.dumps(variables)}", playbook="playbooks/promote.yml")


def last_run(stack: Stack) -> dict[str, str]:
    """What the host has written down of it."""
    line: dict[str, str] = json.loads(stack.run("tail -n 1 /var/log/mlflow-stack.log"))
    return line


@pytest.mark.once
def test_an_operator_promotes_a_version(stack: Stack) -> None:
    """Issue line 13.6: with rows and predictions of his own, or with the test that its run has kept; and back again."""
    (champion, _), before, started = stack.python(CHAMPION), predictions(stack), stack.started_at()
    rival, crashing = stack.python(RIVAL, "broken"), stack.python(CRASHING)
    mine = {"inputs": stack.python(ROWS), "expected": stack.python(PREDICT, str(rival))}
    for wrong, message in (
        ({"model": "wine-quality"}, "promotes version (not given) of wine-quality"),
        ({"model": "wine", "version": 1}, "serving_models has no model wine with the alias champion"),
        ({"model": "wine-quality", "version": 1, "alias": "best"}, "it has wine-quality@champion"),
        ({"model": "wine-quality", "version": 99}, "has no version 99; its latest is"),
        ({"model": "wine-quality", "version": f"{rival}\n"}, "give both, the version by its number"),
        ({"model": "wine-quality", "version": rival, "inputs": mine["inputs"]}, "Found list inputs and no expected"),
        ({"model": "wine-quality", "version": rival, **mine, "expected": 1.5}, "Found list inputs and float expected"),
        ({"model": "wine-quality", "version": rival, **mine, "expected": [9]}, "inputs has 5 rows, and expected 1"),
        ({"model": "wine-quality", "version": crashing}, "nobody can load this"),
        ({"model": "wine-quality", "version": rival, **mine, "expected": [9] * 5}, "row 0: expected 9, got"),
    ):
        refused = promote(stack, **wrong)
        assert refused.returncode != 0
        assert message in refused.stdout, refused.stdout
    assert (stack.python(CHAMPION)[0], stack.started_at()) == (champion, started)
    assert "candidate" not in stack.run("docker ps --all --format '{{.Names}}'")

    assert last_run(stack)["outcome"].startswith("failed: promote | Test the candidate")

    promoted = promote(stack, model="wine-quality", version=rival, **mine)
    assert promoted.returncode == 0, promoted.stdout
    what = f"playbooks/promote.yml, wine-quality version {rival} as champion"
    assert (last_run(stack)["what"], last_run(stack)["outcome"]) == (what, "done")
    assert f"serves version {rival} of wine-quality, its champion; version={champion} goes back" in promoted.stdout
    assert (stack.python(CHAMPION)[0], served_version(stack)) == (rival, str(rival))
    assert predictions(stack) == mine["expected"]

    # The proof lasts: what its run has kept does not pass.
    stack.run("docker rm --force mlflow-stack-serving-wine-quality")
    mended = stack.deploy("--tags=serving")
    assert mended.returncode == 0, mended.stdout
    assert (predictions(stack), served_version(stack)) == (mine["expected"], str(rival))

    back = promote(stack, model="wine-quality", version=champion)
    assert back.returncode == 0, back.stdout
    assert (stack.python(CHAMPION)[0], served_version(stack), predictions(stack)) == (champion, str(champion), before)
    assert changes(stack.deploy("--tags=serving").stdout) == 0


@pytest.mark.once
def test_a_candidate_that_a_kill_has_left_is_removed_by_the_next_run(stack: Stack) -> None:
    """Issue line A8: with its credentials."""

    def left() -> list[str]:
        """Containers of candidates, and directories of their configuration."""
        found = "docker ps --all --format '{{.Names}}'; ls /etc/mlflow-stack"
        return [line for line in stack.run(found).splitlines() if "candidate" in line]

    command = ["ansible-playbook", f"--inventory={stack.inventory}", "--tags=example", "site.yml"]
    with subprocess.Popen(
        [*command, '--extra-vars={"__example_code": "another"}'],
        cwd=ROOT,
        env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg")},
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        try:
            wait_until(lambda: "mlflow-stack-serving-wine-quality-candidate" in left(), 240)
        finally:
            os.killpg(run.pid, signal.SIGKILL)
    assert left()

    deployment = stack.deploy("--tags=example")

    assert deployment.returncode == 0, deployment.stdout[-3000:]
    assert left() == []
    assert_predicts_as_in_training(stack)


@pytest.mark.once
def test_a_model_that_is_served_no_more_is_stopped(stack: Stack) -> None:
    """Issue part C: serving_models without the example's model, and empty; what is taken out does not run on."""
    nothing = stack.deploy("--tags=example", '--extra-vars={"serving_models": []}')
    assert nothing.returncode == 0, nothing.stdout[-3000:]
    assert "serving_models has no model wine-quality with the alias champion" in nothing.stdout
    assert not [service for service in stack.services() if service.startswith("serving-")]

    other = {"serving_models": [{"name": "wine", "model": "wine-quality", "alias": "champion", "port": 5003}]}
    renamed = stack.deploy("--tags=example", f"--extra-vars={json.dumps(other)}")
    assert renamed.returncode == 0, renamed.stdout[-3000:]
    assert [service for service in stack.services() if service.startswith("serving-")] == ["serving-wine"]
    assert_predicts_as_in_training(stack, "http://127.0.0.1:5003/invocations")

    deployment = stack.deploy("--tags=example")
    assert deployment.returncode == 0, deployment.stdout[-3000:]
    assert [service for service in stack.services() if service.startswith("serving-")] == ["serving-wine-quality"]
    assert_predicts_as_in_training(stack)


# Adds a number to every prediction that the champion's training run says it made, as its owner can at any time.
TAMPER = """
import json, sys, mlflow
version = mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion")
test = mlflow.artifacts.load_dict(f"runs:/{version.run_id}/smoke_test.json")
test["expected"] = [value + float(sys.argv[1]) for value in test["expected"]]
mlflow.log_dict(test, "smoke_test.json", run_id=version.run_id)
print(json.dumps(str(version.version)))
"""


@pytest.mark.once
def test_a_sample_that_is_changed_after_the_proof_does_not_end_every_run(stack: Stack) -> None:
    """Issue line B8, "a clear word, and a run that goes on"."""
    started = stack.started_at()
    stack.python(TAMPER, "1")
    try:
        deployment = stack.deploy("--tags=example")
    finally:
        stack.python(TAMPER, "-1")

    assert deployment.returncode == 0, deployment.stdout[-3000:]
    assert "DID NOT PASS ITS SMOKE TEST AGAIN" in deployment.stdout
    assert stack.started_at() == started
    assert "DID NOT PASS" not in stack.deploy("--tags=example").stdout
