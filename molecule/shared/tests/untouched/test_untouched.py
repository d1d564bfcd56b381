"""A first run in check mode leaves the host as it found it; prepare.yml marks the moment before that run."""

from __future__ import annotations

from stack import Stack

# What is not the host's own state: file systems in memory, logs, and where Ansible keeps its temporary files.
IGNORED = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/log", "/root/.ansible", "/home/ops/.ansible")  # noqa: S108


def changed_files(stack: Stack) -> list[str]:
    """What was made or changed, in content or attributes, since the mark; what was deleted shows as its directory."""
    ignored = " -o ".join(f"-path {path}" for path in IGNORED)
    command = rf"find / /var/lib/docker -xdev \( {ignored} \) -prune -o -newercm /run/before-check -print"
    return stack.run(command).splitlines()


def test_check_mode_changes_nothing(stack: Stack) -> None:
    assert changed_files(stack) == []


def test_a_change_would_be_seen(stack: Stack) -> None:
    stack.run("touch /etc/issue")

    assert "/etc/issue" in changed_files(stack)
