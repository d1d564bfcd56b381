"""make hands the inventory on as it was given, and one that is not there is an error."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from lookups import REPO


@pytest.mark.parametrize("target", ["deploy", "check", "compose"])
def test_an_inventory_with_a_blank_in_its_path(target: str) -> None:
    """Issue line C."""
    command = ["make", "--dry-run", target, "INVENTORY=my inventories/prod"]
    told = subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=True).stdout
    words = shlex.split(next(line for line in told.splitlines() if line.startswith("ansible-playbook ")))
    assert words[1:3] == ["-i", "my inventories/prod"]


def test_an_inventory_that_is_not_there_is_an_error() -> None:
    ansible = str(Path(sys.executable).with_name("ansible-playbook"))
    ended = subprocess.run(
        [ansible, "-i", "inventory/none", "site.yml", "--list-hosts"], cwd=REPO, capture_output=True, text=True
    )
    assert ended.returncode != 0
    assert f"inventory source {REPO / 'inventory/none'}" in ended.stderr
