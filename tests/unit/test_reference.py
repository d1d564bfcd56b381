"""The variables: defaults and argument_specs say the same, and the reference says what they say."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path.name for path in (ROOT / "roles").iterdir())


def options(role: str) -> dict[str, dict[str, Any]]:
    """What a role's argument_specs say of each variable."""
    spec = yaml.safe_load((ROOT / "roles" / role / "meta/argument_specs.yml").read_text())
    found: dict[str, dict[str, Any]] = spec["argument_specs"]["main"]["options"]
    return found


def defaults_text(role: str) -> str:
    """A role's defaults/main.yml."""
    return (ROOT / "roles" / role / "defaults/main.yml").read_text()


@pytest.mark.parametrize("role", ROLES)
def test_defaults_and_argument_specs_agree(role: str) -> None:
    """A required variable has an empty value of its type among the defaults."""
    empty: dict[str, object] = {"list": [], "dict": {}}
    expected = {
        name: option["default"] if "default" in option else empty.get(option["type"], "")
        for name, option in options(role).items()
    }
    assert yaml.safe_load(defaults_text(role)) == expected


@pytest.mark.parametrize("role", ROLES)
def test_an_option_has_a_default_or_is_required(role: str) -> None:
    assert [
        name for name, option in options(role).items() if ("default" in option) == option.get("required", False)
    ] == []


@pytest.mark.parametrize("role", ROLES)
def test_each_default_has_one_line_of_comment(role: str) -> None:
    lines = ["", *defaults_text(role).splitlines()]
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+:", line)]
    assert keys
    bare = [lines[n] for n in keys if not lines[n - 1].startswith("# ") or lines[n - 2].startswith("#")]
    assert bare == []


def check_reference(root: Path) -> subprocess.CompletedProcess[str]:
    """Ask whether the reference of a copy of the project is up to date."""
    return subprocess.run([sys.executable, root / "docs/reference.py", "--check"], capture_output=True, text=True)


def test_reference_is_up_to_date() -> None:
    answer = check_reference(ROOT)
    assert answer.returncode == 0, answer.stderr


def test_reference_that_is_stale_is_seen(tmp_path: Path) -> None:
    for directory in ("docs", "roles", "playbooks"):
        shutil.copytree(ROOT / directory, tmp_path / directory)
    specs = tmp_path / "roles/mlflow/meta/argument_specs.yml"
    specs.write_text(specs.read_text().replace("Port on the host.", "Port that clients use."))

    answer = check_reference(tmp_path)

    assert (answer.returncode, "python docs/reference.py" in answer.stderr) == (1, True)
    subprocess.run([sys.executable, tmp_path / "docs/reference.py"], check=True)
    assert check_reference(tmp_path).returncode == 0
    assert "Port that clients use." in (tmp_path / "docs/reference.md").read_text()
