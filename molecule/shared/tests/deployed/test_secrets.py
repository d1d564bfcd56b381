"""No secret shows where somebody could see it who has not been given it."""

from __future__ import annotations

import json

import pytest
from stack import Stack

ALL_CONTAINERS = "$(docker ps --all --quiet)"


def shown(stack: Stack, command: str) -> str:
    """What the command shows to root, as far as it is text; its status does not count."""
    return stack.run(rf"({command}) 2>&1 | LC_ALL=C tr --complement '[:print:]' '\n'")


def leaked(stack: Stack, text: str) -> list[str]:
    """Names of the secrets whose values are in the text."""
    return [name for name, value in stack.secrets().items() if value in text]


def test_a_leak_would_be_seen(stack: Stack) -> None:
    secrets = stack.secrets()

    assert leaked(stack, f"password={secrets['ftp_password']}") == ["ftp_password"]
    assert all(len(value) >= 12 for value in secrets.values())


def test_secrets_are_private_on_this_machine(stack: Stack) -> None:
    directory = stack.inventory / "secrets"

    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("uid", [999, 1000, 65534])
def test_secrets_are_private_on_the_host(stack: Stack, uid: int) -> None:
    """Also from its users who happen to have the number of a container's user."""
    run_as = f"setpriv --reuid {uid} --regid {uid} --clear-groups"
    read = "find /etc/mlflow-stack -type f -exec cat {} +"

    assert f"uid={uid}" in shown(stack, f"{run_as} id")
    assert leaked(stack, shown(stack, read))  # root sees them
    assert leaked(stack, shown(stack, f"{run_as} {read}")) == []


@pytest.mark.parametrize(
    ("command", "shows"),
    [
        pytest.param("cat /proc/[0-9]*/cmdline", "mlflow", id="command lines"),
        pytest.param("cat /proc/[0-9]*/environ", "MLFLOW", id="environments"),
        pytest.param(f"docker inspect {ALL_CONTAINERS}", "mlflow-stack", id="docker inspect"),
        pytest.param("docker image inspect $(docker images --quiet)", "mlflow-stack", id="docker image inspect"),
        pytest.param("docker images --quiet | xargs -n 1 docker history --no-trunc", "pip install", id="image history"),
        pytest.param(
            f"for c in {ALL_CONTAINERS}; do docker logs $c 2>&1; done", "database system is ready", id="container logs"
        ),
        pytest.param(
            "find /var/log -type f -exec zcat --force {} +; journalctl 2>/dev/null", "apt", id="logs of the host"
        ),
    ],
)
def test_no_secret_shows_on_the_host(stack: Stack, command: str, shows: str) -> None:
    """`shows` is a word that the output surely has: a command that shows nothing would prove nothing."""
    output = shown(stack, command)

    assert shows in output
    assert leaked(stack, output) == []


def test_no_secret_shows_in_mlflow(stack: Stack) -> None:
    """Least of all in the locations of artifacts, which every reader sees."""
    account = f"admin:{stack.secrets()['mlflow_admin_password']}"
    api = "http://127.0.0.1:5000/api/2.0/mlflow"
    experiments = stack.request("POST", f"{api}/experiments/search", account=account, body={"max_results": 100}).body
    ids = [experiment["experiment_id"] for experiment in json.loads(experiments)["experiments"]]
    runs = stack.request("POST", f"{api}/runs/search", account=account, body={"experiment_ids": ids}).body
    uris = [run["info"]["artifact_uri"] for run in json.loads(runs)["runs"]]

    assert uris
    assert all(uri.startswith("mlflow-artifacts:/") for uri in uris)
    assert leaked(stack, experiments + runs) == []


@pytest.mark.once
def test_no_secret_shows_in_the_deployment_s_output(stack: Stack) -> None:
    """With files gone they are written anew, their differences shown, and -vvv shows the arguments of all modules.

    Nor does a checksum, from which a password that somebody has chosen could be guessed.
    """
    checksums = [line.split()[0] for line in stack.run("sha256sum $(find /etc/mlflow-stack -perm 0440)").splitlines()]
    stack.run("find /etc/mlflow-stack -type f -delete")

    deployment = stack.deploy("-vvv", "--diff")

    output = deployment.stdout + deployment.stderr
    assert deployment.returncode == 0, deployment.stdout[-2000:]
    assert "superuser_password" in output
    assert leaked(stack, output) == []
    assert checksums
    assert [checksum for checksum in checksums if checksum in output] == []
    stack.wait_until_healthy()
