"""The configuration directory of a service: written as a whole, repaired as a whole, and no secret is ever shown."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import config_files
import pytest
from ansible.module_utils import basic
from ansible.module_utils.testing import patch_module_args
from lookups import lookup

REPO = Path(__file__).parents[2]
OWNER = {"uid": os.getuid(), "gid": os.getgid()}
PASSWORD = "correct-horse-battery-staple"

Run = Callable[..., dict[str, Any]]


def file(name: str, content: str, **attributes: object) -> dict[str, object]:
    """One item of `files` or `secrets`, owned by whoever runs the tests."""
    return {"name": name, "content": content, **OWNER, **attributes}


SETTINGS = file("server.json", '{"port": 2121}\n')
NETRC = file("netrc", f"machine ftp\nlogin mlflow\npassword {PASSWORD}\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory; it does not exist yet."""
    return tmp_path / "stack" / "ftp"


@pytest.fixture
def run(directory: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module on the directory and return its result; `failed` is in it when it failed."""

    def run(check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        arguments = {"path": str(directory), "_ansible_check_mode": check_mode, **parameters}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            config_files.main()
        output = capsys.readouterr().out
        assert PASSWORD not in output
        result: dict[str, Any] = json.loads(output)
        return result

    return run


def permissions(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def contents(directory: Path) -> dict[str, str]:
    """All files of the directory."""
    return {path.name: path.read_text() for path in directory.iterdir()}


def row(result: dict[str, Any], name: str) -> tuple[str, str]:
    """What the diff of a result shows of one file, before and after."""
    (found,) = (row for row in result["diff"] if row["before_header"].endswith(f"/{name}"))
    return found["before"], found["after"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def test_writes_files_and_secrets(run: Run, directory: Path) -> None:
    script = file("init.sh", "#!/bin/sh\n", mode="0555")
    result = run(files=[SETTINGS, script], secrets=[NETRC])
    assert result["changed"]
    assert contents(directory) == {
        "server.json": SETTINGS["content"],
        "init.sh": script["content"],
        "netrc": NETRC["content"],
    }
    assert permissions(directory / "server.json") == 0o444
    assert permissions(directory / "init.sh") == 0o555
    assert permissions(directory / "netrc") == 0o400


def test_second_run_changes_nothing(run: Run, directory: Path) -> None:
    run(files=[SETTINGS], secrets=[NETRC])
    before = (directory / "server.json").stat()
    second = run(files=[SETTINGS], secrets=[NETRC])
    assert not second["changed"]
    assert second["diff"] == []
    assert (directory / "server.json").stat().st_ino == before.st_ino


@pytest.mark.parametrize("mask", [0o000, 0o077])
def test_permissions_do_not_depend_on_the_umask(run: Run, directory: Path, mask: int) -> None:
    """A service that runs as a user of its own enters the directory on a hardened host too."""
    with umask(mask):
        run(files=[SETTINGS], secrets=[NETRC])
    modes = [permissions(path) for path in (directory, directory / "server.json", directory / "netrc")]
    assert modes == [0o755, 0o444, 0o400]


def test_check_mode_says_what_it_would_do_and_does_nothing(run: Run, directory: Path) -> None:
    predicted = run(check_mode=True, files=[SETTINGS], secrets=[NETRC])
    assert not directory.parent.exists()
    done = run(files=[SETTINGS], secrets=[NETRC])
    assert {key: predicted[key] for key in ("changed", "diff")} == {key: done[key] for key in ("changed", "diff")}


def test_check_mode_leaves_changes_and_stray_files(run: Run, directory: Path) -> None:
    run(files=[SETTINGS, file("old.conf", "old\n")])
    before = contents(directory)
    assert run(check_mode=True, files=[file("server.json", "{}\n")])["changed"]
    assert contents(directory) == before


def test_changed_content_is_written_and_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    result = run(files=[file("server.json", '{"port": 2122}\n')])
    owner = f"{OWNER['uid']}:{OWNER['gid']}"
    assert result["changed"]
    assert contents(directory) == {"server.json": '{"port": 2122}\n'}
    assert row(result, "server.json") == (f'0444 {owner}\n{{"port": 2121}}\n', f'0444 {owner}\n{{"port": 2122}}\n')


def test_drifted_mode_is_repaired_and_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS], secrets=[NETRC])
    (directory / "server.json").chmod(0o646)
    (directory / "netrc").chmod(0o644)
    result = run(files=[SETTINGS], secrets=[NETRC])
    owner = f"{OWNER['uid']}:{OWNER['gid']}"
    assert (permissions(directory / "server.json"), permissions(directory / "netrc")) == (0o444, 0o400)
    assert [text.splitlines()[0] for text in row(result, "server.json")] == [f"0646 {owner}", f"0444 {owner}"]
    assert row(result, "netrc") == (f"0644 {owner}\n(secret)\n", f"0400 {owner}\n(secret)\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_drifted_owner_is_repaired_and_shown(run: Run, directory: Path) -> None:
    accounts = {**NETRC, "uid": 1000, "gid": 100}
    run(secrets=[accounts])
    os.chown(directory / "netrc", 0, 0)
    result = run(secrets=[accounts])
    status = (directory / "netrc").stat()
    assert (status.st_uid, status.st_gid) == (1000, 100)
    assert row(result, "netrc") == ("0400 0:0\n(secret)\n", "0400 1000:100\n(secret)\n")


def test_drifted_directory_is_repaired_and_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    directory.chmod(0o700)
    result = run(files=[SETTINGS])
    assert result["changed"]
    assert permissions(directory) == 0o755
    assert row(result, "ftp/") == ("0700\n", "0755\n")


def test_stray_file_is_removed_and_not_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS], secrets=[NETRC])
    result = run(files=[SETTINGS])
    assert result["changed"]
    assert contents(directory) == {"server.json": SETTINGS["content"]}
    assert row(result, "netrc") == ("(removed)\n", "")


def test_link_is_replaced_by_the_file(run: Run, directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "elsewhere"
    target.write_text(str(SETTINGS["content"]))
    directory.mkdir(parents=True)
    (directory / "server.json").symlink_to(target)
    assert run(files=[SETTINGS])["changed"]
    assert not (directory / "server.json").is_symlink()
    assert permissions(target) != 0o444


def test_reader_of_the_old_file_reads_on(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    with (directory / "server.json").open() as reader:
        run(files=[file("server.json", "{}\n")])
        assert reader.read() == SETTINGS["content"]
    assert contents(directory) == {"server.json": "{}\n"}


def test_write_that_fails_leaves_the_old_file_whole(run: Run, directory: Path) -> None:
    run(secrets=[NETRC])
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, hard))
    try:
        result = run(secrets=[file("netrc", PASSWORD * 10000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert result["failed"]
    assert result["msg"] == f"The configuration in {directory} cannot be kept: [Errno 27] File too large."
    assert contents(directory) == {"netrc": NETRC["content"]}


def test_file_in_the_place_of_the_directory(run: Run, directory: Path) -> None:
    directory.parent.mkdir()
    directory.touch()
    result = run(files=[SETTINGS])
    assert result["failed"]
    assert result["msg"] == (
        f"The configuration in {directory} cannot be kept: [Errno 20] Not a directory: '{directory}/server.json'."
    )


@pytest.mark.parametrize("name", ["../passwd", "/etc/passwd", "conf.d/a", "..", "."])
def test_name_with_a_directory(run: Run, directory: Path, name: str) -> None:
    result = run(files=[file(name, "x")])
    assert result["msg"] == f"'{name}' is not the name of a file: give a name without a directory."
    assert not directory.exists()


def test_a_directory_in_the_place_of_a_file(run: Run, directory: Path) -> None:
    """Docker makes an empty one when a container starts and the file that it mounts has been deleted."""
    (directory / "server.json").mkdir(parents=True)
    (directory / "stray").mkdir()
    assert run(files=[SETTINGS])["changed"]
    assert (directory / "server.json").read_text() == SETTINGS["content"]
    assert [path.name for path in directory.iterdir()] == ["server.json"]


def test_a_directory_that_is_not_empty_stays(run: Run, directory: Path) -> None:
    (directory / "server.json").mkdir(parents=True)
    (directory / "server.json" / "kept").write_text("somebody's")
    assert "Directory not empty" in run(files=[SETTINGS])["msg"]
    assert (directory / "server.json" / "kept").read_text() == "somebody's"


def test_mode_that_is_none(run: Run, directory: Path) -> None:
    result = run(secrets=[{**NETRC, "mode": "u=r"}])
    assert result["msg"] == "The mode of netrc is 'u=r': give it octal, as in \"0440\"."
    assert not directory.exists()


def listing(directory: Path, files: list[dict[str, object]], *secrets: dict[str, object]) -> list[dict[str, object]]:
    """What the lookup config_listing gives."""
    return list(lookup("config_listing", directory, files=files, secrets=[*secrets]))


def test_the_listing_tells_how_it_will_be(run: Run, directory: Path) -> None:
    """In the words of ansible.builtin.find; nobody but the writer needs to run on the host to see that all is well."""
    run(files=[SETTINGS], secrets=[NETRC])
    found = [
        {
            "path": str(path),
            "mode": f"{permissions(path):04o}",
            "uid": path.stat().st_uid,
            "gid": path.stat().st_gid,
            "checksum": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in sorted(directory.iterdir())
    ]
    assert len(found) == 2
    assert listing(directory, [SETTINGS], NETRC) == found


@pytest.mark.parametrize(
    "change",
    [
        {"content": "{}\n"},
        {"name": "other.json"},
        {"mode": "0440"},
        {"uid": 12345},
        {"gid": 12345},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_listing_follows_every_change(directory: Path, change: dict[str, object]) -> None:
    assert listing(directory, [{**SETTINGS, **change}]) != listing(directory, [SETTINGS])


def test_changed_secret_is_not_shown(run: Run, directory: Path) -> None:
    owner = f"{OWNER['uid']}:{OWNER['gid']}"
    created = run(secrets=[NETRC])
    changed = run(secrets=[file("netrc", f"password new-{PASSWORD}\n")])
    assert row(created, "netrc") == ("", f"0400 {owner}\n(secret, changed)\n")
    assert row(changed, "netrc") == (f"0400 {owner}\n(secret)\n", f"0400 {owner}\n(secret, changed)\n")
    assert f"new-{PASSWORD}" in contents(directory)["netrc"]


def test_secret_that_becomes_a_plain_file_is_not_shown(run: Run) -> None:
    owner = f"{OWNER['uid']}:{OWNER['gid']}"
    run(secrets=[NETRC])
    result = run(files=[file("netrc", "# moved\n")])
    assert row(result, "netrc") == (f"0400 {owner}\n(secret)\n", f"0444 {owner}\n# moved\n")


def test_nothing_goes_to_the_system_log(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """AnsibleModule masks a secret of one line there, not one of several."""
    logged: list[object] = []
    monkeypatch.setattr(basic, "has_journal", False)
    monkeypatch.setattr(basic.syslog, "syslog", lambda *message: logged.append(message))
    run(files=[SETTINGS], secrets=[NETRC])
    assert logged == []


PLAYBOOK = """
- hosts: localhost
  gather_facts: false
  tasks:
    - name: Predict
      config_files: &config
        path: "{{ directory }}"
        files: [{name: server.json, content: "port 2121\\n"}]
        secrets:
          - {name: netrc, content: "machine ftp\\nlogin mlflow\\npassword {{ password }}\\n"}
          - {name: key, content: "{{ password }}"}
      check_mode: true
    - name: Write
      config_files: *config
      register: result
    - name: Show the result
      ansible.builtin.debug:
        var: result
    - name: Change one secret and remove the other
      config_files:
        <<: *config
        secrets: [{name: netrc, content: "changed\\npassword {{ password }}\\n"}]
    - name: Fail
      config_files:
        <<: *config
        path: "{{ directory }}/netrc"
      ignore_errors: true
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")
def test_real_run_shows_no_secret(directory: Path, tmp_path: Path) -> None:
    """The whole output of ansible-playbook -vvv --diff, whatever happens to a secret."""
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK)
    variables = tmp_path / "variables.json"
    values = {"directory": str(directory), "password": PASSWORD, "ansible_python_interpreter": sys.executable}
    variables.write_text(json.dumps(values))
    options = ["-i", "localhost,", "-c", "local", "-e", f"@{variables}", "-vvv", "--diff"]
    done = subprocess.run(
        [sys.executable, "-m", "ansible.cli.playbook", *options, str(playbook)],
        cwd=REPO,
        env={**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg")},
        text=True,
        capture_output=True,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    assert PASSWORD not in output
    assert output.count("+(secret, changed)") == 5
    assert output.count("+port 2121") == 2
    assert "cannot be kept" in output
    assert PASSWORD in (directory / "netrc").read_text()
