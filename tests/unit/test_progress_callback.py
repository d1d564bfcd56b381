"""What an operator sees of a run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).parents[2]
Task = dict[str, Any]

PYTHON = f"ansible_python_interpreter={sys.executable}"
UNCHANGED: Task = {"name": "Look around", "ansible.builtin.command": "true", "changed_when": False}
CHANGED: Task = {"name": "Change something", "ansible.builtin.command": "true", "changed_when": True}
LOOP: Task = {
    "name": "Change much",
    "ansible.builtin.command": "true",
    "changed_when": "item != 'b'",
    "loop": ["a", "b", "c"],
}
SLOW: Task = {"name": "Build for long", "ansible.builtin.command": "sleep 3", "changed_when": True}
SAID: Task = {"name": "Say it", "ansible.builtin.debug": {"msg": "first line\n  second line"}}
FAILING: Task = {"name": "Check", "ansible.builtin.assert": {"that": "false", "fail_msg": "mlflow_port is taken."}}


def play(
    directory: Path, *tasks: Task, hosts: str = "localhost", arguments: tuple[str, ...] = (), **environment: str
) -> str:
    """The output of a play with these tasks on this machine."""
    playbook = directory / "play.yml"
    plays = [{"name": "The play", "hosts": hosts, "gather_facts": False, "tasks": list(tasks)}]
    playbook.write_text(json.dumps(plays))
    options = ["--inventory=localhost,", "--connection=local", f"--extra-vars={PYTHON}", *arguments]
    run = subprocess.run(
        ["ansible-playbook", *options, str(playbook)],  # noqa: S607
        env=os.environ | {"ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"} | environment,
        capture_output=True,
        text=True,
    )
    return run.stdout + run.stderr


def test_a_line_for_what_changes_and_none_for_what_does_not(tmp_path: Path) -> None:
    """Issue line B3."""
    output = play(tmp_path, UNCHANGED, CHANGED, LOOP, SAID)

    shown = re.sub(r"(?m)^ +\d+:\d\d  | \(\d+:\d\d\)$", "", output.partition("PLAY RECAP")[0])
    assert shown == (
        "The play\n  localhost: Change something\n  localhost: Change much: a, c\n\nfirst line\n  second line\n\n"
    )
    assert re.search(r"^It took \d+:\d\d\.$", output, re.MULTILINE)


def test_what_check_mode_would_do_is_said(tmp_path: Path) -> None:
    would = {"name": "Say it", "ansible.builtin.debug": {"msg": "Would start mlflow"}, "changed_when": True}

    assert "  localhost: Would start mlflow\n" in play(tmp_path, would)


def test_what_the_inventory_has_no_host_for_is_not_spoken_of(tmp_path: Path) -> None:
    output = play(tmp_path, CHANGED, hosts="localhost:!localhost")

    assert "The play" not in output
    assert "no hosts matched" not in output


def test_everything_with_v(tmp_path: Path) -> None:
    output = play(tmp_path, UNCHANGED, LOOP, arguments=("-v",))

    assert "TASK [Look around]" in output
    assert output.count("changed: [localhost] => (item=") == 2


def test_a_terminal_obeys_no_message(tmp_path: Path) -> None:
    """What a program of the host says, or a person, is shown as it is."""
    evil = "one\x1b[2K\rtwo\x9b1m\a\n\tthree\r\nfour"
    said: Task = {"name": "Say it", "ansible.builtin.debug": {"msg": evil}}
    failing: Task = {"name": "Fail", "ansible.builtin.fail": {"msg": evil}}

    output = play(tmp_path, said, failing)

    shown = "one\\x1b[2K\\x0dtwo\\x9b1m\\x07\n\tthree\nfour"
    assert output.count(shown) == 2
    assert "\x1b" not in output
    assert "\r" not in output


def test_a_failure_is_said_once(tmp_path: Path) -> None:
    output = play(tmp_path, FAILING)

    assert "fatal: [localhost]: FAILED! => mlflow_port is taken.\n" in output
    assert output.count("mlflow_port is taken.") == 1


def test_a_sign_of_life(tmp_path: Path) -> None:
    """Issue line B3: minutes of silence."""
    output = play(tmp_path, SLOW, MLFLOW_STACK_SIGN_OF_LIFE="1")

    assert "  … Build for long (0:01)\n" in output
    assert re.search(r"  localhost: Build for long \(0:0\d\)\n", output)


@pytest.mark.parametrize(
    ("task", "said"),
    [(SAID, "nothing was changed, and nothing would be"), (CHANGED, "nothing was changed, 1 would be")],
)
def test_check_mode_says_what_would_change(tmp_path: Path, task: Task, said: str) -> None:
    """Issue line B2."""
    command = task | {"check_mode": False} if "changed_when" in task else task

    assert said in play(tmp_path, command, arguments=("--check",))
