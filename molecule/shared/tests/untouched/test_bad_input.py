"""What cannot work is refused before anything is changed, with a message that names it and the cure."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, wait_until

pytestmark = pytest.mark.once  # what is refused does not depend on the kind of host
MARK = "/run/before-refusal"


def assert_refused(stack: Stack, *arguments: str, words: tuple[str, ...]) -> None:
    """A real run, not in check mode, fails with a message that has all these words, and leaves the host untouched."""
    stack.run(f"touch {MARK}")

    deployment = stack.deploy(*arguments)

    output = " ".join((deployment.stdout + deployment.stderr).split())
    assert deployment.returncode != 0
    assert [word for word in words if word not in output] == [], output
    assert stack.changed_files(since=MARK) == []


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ("mlflow_workers=many", ("mlflow_workers", "many")),
        ("image_origin=elsewhere", ("image_origin", "elsewhere", "distro")),
        ("ftp_password=short", ("ftp_password", "5 characters", "set a longer one")),
        ("image_archives_dir=/nowhere", ("image_archives_dir", "/nowhere")),
        ('{"stack_minimum_memory_mb": 99999999}', ("memory", "99999999", "stack_minimum_memory_mb")),
        ('{"stack_minimum_disk_mb": 99999999}', ("/var/lib/docker", "99999999", "make room")),
        ('{"stack_distributions": {"Debian": "99"}}', ("Debian", "99")),
    ],
)
def test_bad_variables(stack: Stack, variables: str, words: tuple[str, ...]) -> None:
    assert_refused(stack, f"--extra-vars={variables}", words=words)


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
