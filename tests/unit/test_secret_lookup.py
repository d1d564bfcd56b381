"""Secrets of a deployment: generated once, readable by their owner alone, never overwritten."""

from __future__ import annotations

import multiprocessing
import os
import re
import stat
import subprocess
import sys
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from cryptography.fernet import Fernet
from lookups import REPO, lookup

CONTEXT = multiprocessing.get_context("fork")


def secret(directory: Path, name: str = "password", *, check_mode: bool = False, **options: object) -> str:
    """The value of one secret."""
    (value,) = lookup("secret", name, check_mode=check_mode, directory=str(directory), **options)
    return str(value)


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where secrets will be kept; it does not exist yet."""
    return tmp_path / "production" / "secrets"


def test_generated_once_for_its_owner_alone(directory: Path) -> None:
    umask = os.umask(0)
    try:
        value = secret(directory)
    finally:
        os.umask(umask)
    assert re.fullmatch(r"[A-Za-z0-9]{32}", value)
    assert secret(directory) == value
    assert (directory / "password.txt").read_text() == f"{value}\n"
    assert permissions(directory) == 0o700
    assert permissions(directory / "password.txt") == 0o600
    assert [path.name for path in directory.iterdir()] == ["password.txt"]


def test_each_name_and_each_directory_has_its_own(directory: Path, tmp_path: Path) -> None:
    values = [*lookup("secret", "one", "two", directory=str(directory)), secret(tmp_path / "other", "one")]
    assert len(set(values)) == 3


def test_length_is_chosen(directory: Path) -> None:
    assert len(secret(directory, length=48)) == 48


def test_what_a_person_wrote_is_kept_as_it_is(directory: Path) -> None:
    directory.mkdir(parents=True)
    path = directory / "password.txt"
    path.write_bytes("pässword with spaces\r\n".encode())
    before = path.stat()
    assert secret(directory) == "pässword with spaces"
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (before.st_mtime_ns, before.st_ino)


def test_check_mode_writes_nothing(directory: Path) -> None:
    assert len(secret(directory, check_mode=True)) == 32
    assert not directory.parent.exists()


def test_check_mode_reads_what_there_is(directory: Path) -> None:
    value = secret(directory)
    assert secret(directory, check_mode=True) == value


def test_check_mode_makes_up_one_value_for_a_secret(directory: Path) -> None:
    """Two variables that hold the same secret agree."""
    assert secret(directory, check_mode=True) == secret(directory, check_mode=True)
    assert secret(directory, check_mode=True) != secret(directory, "other", check_mode=True)


def test_a_key_for_fernet(directory: Path) -> None:
    value = secret(directory, format="fernet")
    assert Fernet(value).decrypt(Fernet(value).encrypt(b"a secret")) == b"a secret"
    assert secret(directory, format="fernet") == value


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        ("", "is empty"),
        ("\n", "is empty"),
        (" \t\n", "is empty"),
        ("\ufeff", "is empty"),
        ("\ufeffpassword\n", "begins with a byte order mark, which some editors write"),
        ("one\ntwo\n", "has several lines"),
        ("one\r\ntwo", "has several lines"),
        ("password\n\n", "has several lines"),
        ("\npassword\n", "has several lines"),
        (" password\n", "begins or ends with a blank"),
        ("password \r\n", "begins or ends with a blank"),
        ("password\t", "begins or ends with a blank"),
        ("password\u00a0\n", "begins or ends with a blank"),
    ],
)
def test_a_file_that_holds_something_else(directory: Path, content: str, fault: str) -> None:
    """Issue lines A8 and C; and A2: to remove a file that data hangs on is no advice."""
    directory.mkdir(parents=True)
    path = directory / "password.txt"
    path.write_bytes(content.encode())
    with pytest.raises(AnsibleLookupError) as caught:
        secret(directory)
    assert caught.value.message == (
        f"The secret {path} {fault}: write the secret alone into it, on one line. Where a platform runs, that is "
        "the one that it was deployed with, as your copy of the directory has it."
    )
    assert path.read_bytes() == content.encode()


def test_secret_that_cannot_be_read(directory: Path) -> None:
    path = directory / "password.txt"
    path.mkdir(parents=True)
    with pytest.raises(AnsibleLookupError) as caught:
        secret(directory)
    assert caught.value.message == f"The secret {path} cannot be read: [Errno 21] Is a directory: '{path}'."


def test_secret_that_is_no_text(directory: Path) -> None:
    directory.mkdir(parents=True)
    (directory / "password.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(AnsibleLookupError, match=r"^The secret .*/password\.txt cannot be read: 'utf-8' codec"):
        secret(directory)


def test_secret_that_cannot_be_written(directory: Path) -> None:
    directory.parent.write_text("a file in the directory's place")
    with pytest.raises(AnsibleLookupError) as caught:
        secret(directory)
    reason = f"[Errno 20] Not a directory: '{directory}'"
    assert caught.value.message == f"The secret {directory}/password.txt cannot be written: {reason}."


def race(directory: Path, names: list[str], start: Barrier, values: SimpleQueue[list[str]]) -> None:
    """What each of two processes does: ask for each secret at the same moment as the other."""
    found = []
    for name in names:
        start.wait(timeout=10)
        found.append(secret(directory, name))
    values.put(found)


def test_two_processes_get_the_same_secrets(directory: Path) -> None:
    names = [f"password{number}" for number in range(100)]
    start, values = CONTEXT.Barrier(2), CONTEXT.SimpleQueue()
    processes = [CONTEXT.Process(target=race, args=(directory, names, start, values)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert values.get() == values.get() == [secret(directory, name) for name in names]
    assert sorted(path.stem for path in directory.iterdir()) == sorted(names)


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - ansible.builtin.assert:
        that: lookup('secret', 'password', directory=directory) | length == 32
"""


def play(tmp_path: Path, directory: Path, *options: str) -> None:
    """Run a playbook that uses a secret."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK)
    ansible_playbook = [sys.executable, "-m", "ansible.cli.playbook", "-i", "localhost,", "-c", "local", *options]
    subprocess.run([*ansible_playbook, "-e", f"directory={directory}", str(playbook)], cwd=REPO, check=True)


def test_in_a_playbook(directory: Path, tmp_path: Path) -> None:
    play(tmp_path, directory, "--check")
    assert not directory.exists()
    play(tmp_path, directory)
    assert (directory / "password.txt").is_file()
