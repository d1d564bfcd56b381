"""What cannot work is refused before anything is changed, with a message that names it and the cure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, wait_until

pytestmark = pytest.mark.once  # what is refused does not depend on the kind of host
MARK = "/run/before-refusal"


def assert_refused(stack: Stack, *arguments: str, words: tuple[str, ...]) -> str:
    """A real run, not in check mode, fails with a message that has all these words, and leaves the host untouched.

    Returns what it has said, each run of blanks as one.
    """
    stack.run(f"touch {MARK}")

    deployment = stack.deploy(*arguments)

    output = " ".join((deployment.stdout + deployment.stderr).split())
    assert deployment.returncode != 0
    assert [word for word in words if word not in output] == [], output
    assert stack.changed_files(since=MARK) == []
    assert stack.run("ls /run/mlflow-stack.lock 2>/dev/null || true") == ""
    return output


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("mlflow_workers=many", ('mlflow_workers is "many"', "a whole number")),
        ("mlflow_prot=5001", ("mlflow_prot is set", "did you mean mlflow_port?")),
        ('{"stack_config_root": "/srv"}', ("stack_config_root is /srv", "of the deployment's own")),
        ('{"image_archives_dir": "/nowhere"}', ('image_archives_dir is "/nowhere"', "make it, or unset it")),
        ('{"stack_minimum_memory_mb": 99999999}', ("memory", "99999999", "stack_minimum_memory_mb")),
        ('{"stack_minimum_disk_mb": 99999999}', ("/var/lib/docker", "99999999", "make room")),
        (
            '{"stack_minimum_disk_mb": 99999999, "docker_daemon_options": {"data-root": "/var/lib/docker/more"}}',
            ("MiB free for /var/lib/docker/more (on /", "99999999"),
        ),
        ('{"stack_distributions": {"Debian": "99"}}', ("Debian", "99")),
    ],
)
def test_bad_variables(stack: Stack, variables: str, words: tuple[str, ...]) -> None:
    """Issue line C; what is said of every variable is a matter of tests/unit/test_settings_messages.py."""
    assert_refused(stack, f"--extra-vars={variables}", words=words)


def test_all_faults_at_once(stack: Stack) -> None:
    """Issue line C: a sentence for each, and the value of no secret."""
    variables = {
        "mlflow_port": 70000,
        "ftp_password": "Xyzzy",
        "mlflow_accounts": [],
        "serving_models": [{"name": "a/b"}],
    }
    words = (
        "mlflow_port is 70000: it must be a port from 1 to 65535.",
        "ftp_password has 5 characters and needs 12: set a longer one.",
        "mlflow_accounts is empty: set it, or leave it out.",
        'serving_models, entry 1, name, is "a/b": it must be',
        "serving_models, entry 1, lacks port",
    )
    output = assert_refused(stack, f"--extra-vars={json.dumps(variables)}", words=words)
    assert "Xyzzy" not in output


def test_secrets_that_are_open_to_others(stack: Stack) -> None:
    """Issue line C: a world-writable secrets directory."""
    secrets = stack.inventory / "secrets"
    made = not secrets.exists()
    secrets.mkdir(exist_ok=True)
    secrets.chmod(0o777)
    try:
        assert_refused(stack, words=(f"{secrets} (stack_secrets_dir)", f"chmod 700 {secrets}"))
    finally:
        secrets.chmod(0o700)
        if made:
            secrets.rmdir()


@pytest.fixture
def taken_port(stack: Stack) -> Iterator[int]:
    """A port on the host that something else listens on."""
    port = 5999
    pid = stack.run(f"setsid python3 -m http.server --bind 127.0.0.1 {port} > /dev/null 2>&1 & echo $!").strip()
    wait_until(lambda: f":{port} " in stack.run("ss --listening --tcp --numeric"), seconds=10)
    yield port
    stack.run(f"kill {pid}")


def test_a_port_that_is_taken(stack: Stack, taken_port: int) -> None:
    assert_refused(stack, f"--extra-vars=mlflow_port={taken_port}", words=("mlflow_port", str(taken_port), "ss -ltnp"))


@pytest.mark.parametrize("missing", ["postgres", "mlflow"])
def test_a_group_that_is_missing(stack: Stack, tmp_path: Path, missing: str) -> None:
    """Each group is a line of the scenario's inventory."""
    lines = (stack.inventory / "hosts.yml").read_text().splitlines()
    (tmp_path / "hosts.yml").write_text("\n".join(line for line in lines if not line.startswith(f"    {missing}:")))

    assert_refused(Stack(stack.host, inventory=tmp_path), words=(f"group {missing}", "has 0 hosts"))


def test_portainer_on_another_host(stack: Stack, tmp_path: Path) -> None:
    """Issue line C."""
    lines = (stack.inventory / "hosts.yml").read_text().splitlines()
    elsewhere = "    portainer: {hosts: {elsewhere: {}}}"
    moved = [elsewhere if line.startswith("    portainer:") else line for line in lines]
    (tmp_path / "hosts.yml").write_text("\n".join(moved))

    assert_refused(
        Stack(stack.host, inventory=tmp_path), words=("spreads the services over", "elsewhere", "on one host")
    )
