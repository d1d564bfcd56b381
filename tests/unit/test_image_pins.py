"""What goes into images: one set of versions for all of them, one Python, and hooks that do no harm."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "roles"
PINS = ROLES / "image/files/python"
IMAGES = ["jupyter/files/base", "jupyter/files/image", "mlflow/files/image"]


def constraints() -> dict[str, str]:
    """The pinned versions, by name."""
    lines = (PINS / "constraints.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines if not line.startswith("#"))


def wanted(image: str) -> list[str]:
    """What an image asks for, as it stands there."""
    return re.findall(r"^[^#\s].*", (ROLES / image / "requirements.in").read_text(), re.MULTILINE)


@pytest.mark.parametrize("image", IMAGES)
def test_every_image_has_the_pinned_versions(image: str) -> None:
    """Issue line C3: versions drifted, as each image had some of its own."""
    pins = constraints()
    for requirement in wanted(image):
        name, _, version = requirement.lower().partition("==")
        assert name in pins, f"{name} has no pin: compile the constraints anew, as docs/images.md says"
        assert version in ("", pins[name])
    assert (ROLES / image / "constraints.txt").resolve() == PINS / "constraints.txt"


def test_the_command_that_moves_the_pins_is_in_their_head_and_in_the_docs() -> None:
    """Issue line C4: a reader knows how to move them."""
    head = (PINS / "constraints.txt").read_text().splitlines()[1]
    options = re.findall(r"--\S+", head)

    assert "--output-file=roles/image/files/python/constraints.txt" in options
    assert all(option in (ROOT / "docs/images.md").read_text() for option in options)
    assert re.findall(r"\S+/requirements.in", head) == [f"roles/{image}/requirements.in" for image in IMAGES]


def test_a_project_that_mlflow_runs_elsewhere_has_the_same_python() -> None:
    """Issue line C3."""
    environment = yaml.safe_load((ROLES / "example/files/wine-quality/python_env.yaml").read_text())
    assert f"--python-version={environment['python']}" in (PINS / "constraints.txt").read_text()


def test_an_image_with_another_python_is_not_built(tmp_path: Path) -> None:
    """Issue line C3: an image of Jupyter that has another Python trained models that could not be served."""
    here = "{}.{}".format(*sys.version_info)
    (tmp_path / "constraints.txt").write_text("# uv pip compile --python-version=3.1 --quiet\n")
    (tmp_path / "install.sh").write_bytes((PINS / "install.sh").read_bytes())

    command = ["sh", str(tmp_path / "install.sh"), sys.executable]
    refused = subprocess.run(command, capture_output=True, text=True, check=False)

    assert refused.returncode == 1
    assert f"Python {here}, and all images of the platform need 3.1" in refused.stderr
    assert "jupyter_image" in refused.stderr


HOOKS = [path for path in (ROLES / "jupyter/files/image").glob("*.sh") if not path.is_symlink()]


@pytest.mark.parametrize("hook", HOOKS, ids=[hook.name for hook in HOOKS])
def test_examples_that_cannot_be_copied_do_not_end_the_start_script(hook: Path, tmp_path: Path) -> None:
    """Issue line C4: start scripts source hooks, and end where one fails. Here are no examples to copy."""
    script = f"export HOME={tmp_path}; source {hook}; echo started"

    start = subprocess.run(["bash", "-ec", script], capture_output=True, text=True, check=False)  # noqa: S607

    assert start.stdout == "started\n"
    assert "/opt/examples" in start.stderr
