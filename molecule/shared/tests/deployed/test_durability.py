"""What a data scientist has logged stays, whatever happens to the containers, and the stack comes back by itself."""

from __future__ import annotations

import json

import pytest
from stack import Stack

# The unmodified client, as in a notebook. Prints [run id, version].
LOG = """
import json, mlflow
from sklearn.linear_model import LinearRegression
mlflow.set_experiment("durability")
with mlflow.start_run() as run:
    mlflow.log_metric("answer", 42)
    mlflow.log_text("kept", "note.txt")
    model = LinearRegression().fit([[0.0], [1.0]], [0.0, 2.0])
    logged = mlflow.sklearn.log_model(model, name="line", registered_model_name="durability-line")
print(json.dumps([run.info.run_id, logged.registered_model_version]))
"""

# Prints [metric, artifact, prediction].
READ = """
import json, sys, mlflow
run_id, version = sys.argv[1:]
metric = mlflow.get_run(run_id).data.metrics["answer"]
text = mlflow.artifacts.load_text(f"runs:/{run_id}/note.txt")
model = mlflow.sklearn.load_model(f"models:/durability-line/{version}")
print(json.dumps([metric, text, round(model.predict([[3.0]]).tolist()[0], 6)]))
"""


@pytest.fixture(scope="module")
def logged(stack: Stack) -> list[str]:
    """Run id and model version of what a notebook has logged."""
    return [str(value) for value in stack.python(LOG)]


def test_what_was_logged_can_be_read(stack: Stack, logged: list[str]) -> None:
    assert stack.python(READ, *logged) == [42, "kept", 6]


def test_the_run_is_in_postgresql(stack: Stack, logged: list[str]) -> None:
    query = f"SELECT value FROM metrics WHERE run_uuid = '{logged[0]}' AND key = 'answer'"  # noqa: S608 (our own run id)

    assert float(stack.execute("postgres", "psql", "-U", "postgres", "-d", "mlflow", "-Atc", query)) == 42


def test_the_artifact_is_on_the_ftp_volume(stack: Stack, logged: list[str]) -> None:
    volume = stack.run("docker volume inspect --format '{{.Mountpoint}}' mlflow-stack_ftp").strip()

    assert stack.run(f"cat {volume}/*/{logged[0]}/artifacts/note.txt") == "kept"


@pytest.mark.parametrize(
    "disaster",
    [
        # How the containers come back is the engine's affair; how the engine does, the host's.
        pytest.param("docker restart $(docker ps --quiet)", id="all containers restart", marks=pytest.mark.once),
        pytest.param(
            "docker inspect --format '{{.State.Pid}}' $(docker ps --quiet) | xargs kill -9",
            id="all processes are killed",
            marks=pytest.mark.once,
        ),
        pytest.param("service docker restart", id="the Docker daemon restarts"),
        pytest.param(
            "pid=$(cat /run/docker.pid); kill -9 $pid; "
            "while test -e /proc/$pid; do sleep 0.1; done; service docker start",
            id="the Docker daemon is killed",
        ),
    ],
)
def test_it_survives(stack: Stack, logged: list[str], disaster: str) -> None:
    before = stack.started_at()

    stack.run(disaster)

    stack.wait_until_healthy(started_after=before)
    assert stack.python(READ, *logged) == [42, "kept", 6]


@pytest.mark.once
def test_a_store_without_tls_moves_to_tls(stack: Stack, logged: list[str]) -> None:
    """As it was before the deployment had certificates."""
    plain = {
        "ftp_certificate": "",
        "ftp_certificate_key": "",
        "mlflow_artifacts_destination": "ftp://ftp:2121/",
        "mlflow_artifacts_authority": "",
    }
    before = stack.deploy("--tags=ftp,mlflow", f"--extra-vars={json.dumps(plain)}")
    assert before.returncode == 0, before.stdout[-2000:]
    assert "TLS off" in stack.run("docker logs mlflow-stack-ftp")
    logged_before = [str(value) for value in stack.python(LOG)]

    after = stack.deploy("--tags=ftp,mlflow")

    assert after.returncode == 0, after.stdout[-2000:]
    assert "TLS required" in stack.run("docker logs mlflow-stack-ftp")
    for run in (logged, logged_before):
        assert stack.python(READ, *run) == [42, "kept", 6]


@pytest.mark.once  # Debian 12 has no package of Docker Compose 2
def test_compose_takes_over_and_hands_back(stack: Stack, logged: list[str]) -> None:
    stack.run("apt-get update && apt-get install --yes --no-install-recommends docker-compose")
    compose = "docker compose --file /etc/mlflow-stack/compose.yaml"

    written = stack.deploy(playbook="playbooks/compose.yml")
    assert written.returncode == 0, written.stdout[-2000:]
    assert "level=warning" not in stack.run(f"{compose} config 2>&1")

    before = stack.started_at()
    stack.run(f"{compose} up --detach --wait")
    stack.wait_until_healthy(started_after=before)
    assert stack.python(READ, *logged) == [42, "kept", 6]

    deployment = stack.deploy()
    assert deployment.returncode == 0, deployment.stdout[-2000:]
    stack.wait_until_healthy()
    assert stack.python(READ, *logged) == [42, "kept", 6]
