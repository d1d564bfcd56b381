"""A first run in check mode leaves the host as it found it; prepare.yml marks the moment before that run."""

from __future__ import annotations

from stack import Stack

MARK = "/run/before-check"


def test_check_mode_changes_nothing(stack: Stack) -> None:
    assert stack.changed_files(since=MARK) == []


def test_a_change_would_be_seen(stack: Stack) -> None:
    stack.run("touch /etc/issue")

    assert "/etc/issue" in stack.changed_files(since=MARK)
    stack.run(f"touch {MARK}")  # these tests can be run again
