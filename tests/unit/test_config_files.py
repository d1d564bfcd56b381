"""The configuration directory of a service: written as a whole, repaired as a whole, and no secret is ever shown."""

from __future__ import annotations

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
from ansible.module_utils.host_look import configurations
from ansible.module_utils.testing import patch_module_args
from lookups import lookup

REPO = Path(__file__).parents[2]
OWNER, GROUP = os.getuid(), os.getgid()  # who runs the tests, in the place of root and of the secrets' group
PASSWORD = "correct-horse-battery-staple"

Run = Callable[..., dict[str, Any]]


def file(name: str, content: str, **attributes: object) -> dict[str, object]:
    """One item of `files` or `secrets`."""
    return {"name": name, "content": content, **attributes}


SETTINGS = file("server.json", '{"port": 2121}\n')
NETRC = file("netrc", f"machine ftp\nlogin mlflow\npassword {PASSWORD}\n")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """The directory; it does not exist yet."""
    return tmp_path / "stack" / "ftp" / "0123456789abcdef"


@pytest.fixture
def run(directory: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the module on the directory and return its result; `failed` is in it when it failed."""
    monkeypatch.setattr(config_files, "OWNER", OWNER)

    def run(check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        arguments = {
            "path": str(directory),
            "secrets_gid": GROUP,
            "_ansible_check_mode": check_mode,
            **parameters,
        }
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
    assert permissions(directory / "netrc") == 0o440


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
    assert modes == [0o755, 0o444, 0o440]


def test_check_mode_says_what_it_would_do_and_does_nothing(run: Run, directory: Path) -> None:
    predicted = run(check_mode=True, files=[SETTINGS], secrets=[NETRC])
    assert not directory.parent.parent.exists()
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
    owner = f"{OWNER}:{OWNER}"
    assert result["changed"]
    assert contents(directory) == {"server.json": '{"port": 2122}\n'}
    assert row(result, "server.json") == (f'0444 {owner}\n{{"port": 2121}}\n', f'0444 {owner}\n{{"port": 2122}}\n')


def test_drifted_mode_is_repaired_and_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS], secrets=[NETRC])
    (directory / "server.json").chmod(0o646)
    (directory / "netrc").chmod(0o644)
    result = run(files=[SETTINGS], secrets=[NETRC])
    owner = f"{OWNER}:{OWNER}"
    assert (permissions(directory / "server.json"), permissions(directory / "netrc")) == (0o444, 0o440)
    assert [text.splitlines()[0] for text in row(result, "server.json")] == [f"0646 {owner}", f"0444 {owner}"]
    assert row(result, "netrc") == (f"0644 {owner}\n(secret)\n", f"0440 {owner}\n(secret)\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_drifted_owner_is_repaired_and_shown(run: Run, directory: Path) -> None:
    run(secrets=[NETRC], secrets_gid=64720)
    os.chown(directory / "netrc", 1000, 100)
    result = run(secrets=[NETRC], secrets_gid=64720)
    status = (directory / "netrc").stat()
    assert (status.st_uid, status.st_gid) == (0, 64720)
    assert row(result, "netrc") == ("0440 1000:100\n(secret)\n", "0440 0:64720\n(secret)\n")


def test_drifted_directory_is_repaired_and_shown(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    directory.chmod(0o700)
    result = run(files=[SETTINGS])
    assert result["changed"]
    assert permissions(directory) == 0o755
    assert row(result, f"{directory.name}/") == (f"0700 {OWNER}:{OWNER}\n", f"0755 {OWNER}:{OWNER}\n")


def test_the_service_s_directory_is_closed_again(run: Run, directory: Path) -> None:
    """Issue line B7."""
    run(secrets=[NETRC])
    assert permissions(directory.parent) == 0o750
    directory.parent.chmod(0o755)
    result = run(secrets=[NETRC])
    assert permissions(directory.parent) == 0o750
    assert row(result, "ftp/") == (f"0755 {OWNER}:{OWNER}\n", f"0750 {OWNER}:{OWNER}\n")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_the_service_s_directory_is_open_to_the_containers_group(run: Run, directory: Path) -> None:
    """One that follows its files has this directory mounted."""
    run(secrets=[NETRC], secrets_gid=64720)
    assert directory.parent.stat().st_gid == 64720
    assert directory.stat().st_gid == 0


def test_the_link_to_a_configuration_goes_with_it(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    link = directory.parent / "current"
    link.symlink_to(directory.name)
    assert run(state="absent")["changed"]
    assert not directory.parent.exists()


def test_a_directory_appears_whole_or_not_at_all(run: Run, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Issue line A4: a run that is killed in between leaves a draft, which the next one takes away."""
    directory.parent.mkdir(parents=True)
    monkeypatch.setattr(Path, "rename", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        config_files.write_whole(directory, [config_files.File("a", "b", 0o444, OWNER, False)])
    assert not directory.exists()
    monkeypatch.undo()
    monkeypatch.setattr(config_files, "OWNER", OWNER)
    assert run(files=[SETTINGS])["changed"]
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


def test_a_repair_keeps_the_directory_that_a_container_has_mounted(run: Run, directory: Path) -> None:
    run(files=[SETTINGS])
    mounted = directory.stat().st_ino
    (directory / "server.json").unlink()
    assert run(files=[SETTINGS])["changed"]
    assert directory.stat().st_ino == mounted


def test_the_time_of_what_stays_stays(run: Run, directory: Path) -> None:
    """By it the role sees whether a container has found its configuration as it is now."""
    run(files=[SETTINGS])
    before = directory.stat().st_ctime_ns
    other = directory.with_name("fedcba9876543210")
    other.mkdir()
    assert run(files=[SETTINGS], obsolete=[str(other)])["changed"]
    assert directory.stat().st_ctime_ns == before


def test_a_diff_compares_with_the_configuration_before(run: Run, directory: Path) -> None:
    run(files=[SETTINGS], secrets=[NETRC])
    following = directory.with_name("fedcba9876543210")
    result = run(path=str(following), files=[file("server.json", "{}\n")], previous=str(directory))
    assert row(result, "server.json") == (f'0444 {OWNER}:{OWNER}\n{{"port": 2121}}\n', f"0444 {OWNER}:{OWNER}\n{{}}\n")
    assert row(result, "netrc") == ("(removed)\n", "")
    assert contents(directory).keys() == {"server.json", "netrc"}  # until no container has it mounted


def test_only_what_is_ours_is_removed(run: Run, directory: Path, tmp_path: Path) -> None:
    """Issue line B4."""
    run(files=[SETTINGS])
    old = directory.with_name("fedcba9876543210")
    old.mkdir()
    (old / "netrc").touch()
    foreign = tmp_path / "foreign"
    (foreign / "file").parent.mkdir()
    (foreign / "file").touch()
    (directory.parent / "somebody-s").mkdir()
    assert run(files=[SETTINGS], obsolete=[str(old), str(foreign), "/"])["changed"]
    assert not old.exists()
    assert (foreign / "file").exists()
    assert run(state="absent")["changed"]
    assert [path.name for path in directory.parent.iterdir()] == ["somebody-s"]
    (directory.parent / "somebody-s").rmdir()
    run(state="absent")
    assert not directory.parent.exists()


def test_files_of_the_layout_before_digests_go(run: Run, directory: Path) -> None:
    directory.parent.mkdir(parents=True)
    (directory.parent / "pgpass").write_text(PASSWORD)
    run(files=[SETTINGS], obsolete=[str(directory.parent)])
    assert [path.name for path in directory.parent.iterdir()] == [directory.name]


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
    directory.parent.mkdir(parents=True)
    directory.touch()
    result = run(files=[SETTINGS])
    assert result["failed"]
    assert f"The configuration in {directory} cannot be kept: [Errno 20] Not a directory" in result["msg"]


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


def described(service: Path, files: list[dict[str, object]], *secrets: dict[str, object]) -> dict[str, Any]:
    """What the lookup config_listing gives."""
    found: dict[str, Any] = lookup("config_listing", service, files=files, secrets=[*secrets], secrets_gid=GROUP)[0]
    return found


@pytest.mark.skipif(os.geteuid() != 0, reason="the files are root's")
def test_the_listing_tells_how_it_will_be(run: Run, directory: Path) -> None:
    """In the words of the look at a host: nothing but that needs to run on the host to see that all is well."""
    wanted = described(directory.parent, [SETTINGS], NETRC)
    run(path=wanted["path"], files=[SETTINGS], secrets=[NETRC])
    found = list(configurations(directory.parent.parent))
    keys = ("path", "mode", "uid", "gid", "checksum")
    assert [{key: entry[key] for key in keys if key in entry} for entry in found] == wanted["listing"]
    assert len(found) == 4


def test_what_does_not_exist_has_no_files(tmp_path: Path) -> None:
    assert list(configurations(tmp_path / "none")) == []


@pytest.mark.parametrize(
    "change", [{"content": "{}\n"}, {"name": "other.json"}, {"mode": "0440"}], ids=lambda change: next(iter(change))
)
def test_the_name_of_a_directory_follows_every_change(directory: Path, change: dict[str, object]) -> None:
    changed = described(directory.parent, [{**SETTINGS, **change}])
    assert changed["path"] != described(directory.parent, [SETTINGS])["path"]


def test_changed_secret_is_not_shown(run: Run, directory: Path) -> None:
    owner = f"{OWNER}:{OWNER}"
    created = run(secrets=[NETRC])
    changed = run(secrets=[file("netrc", f"password new-{PASSWORD}\n")])
    assert row(created, "netrc") == ("", f"0440 {owner}\n(secret, changed)\n")
    assert row(changed, "netrc") == (f"0440 {owner}\n(secret)\n", f"0440 {owner}\n(secret, changed)\n")
    assert f"new-{PASSWORD}" in contents(directory)["netrc"]


def test_secret_that_becomes_a_plain_file_is_not_shown(run: Run) -> None:
    owner = f"{OWNER}:{OWNER}"
    run(secrets=[NETRC])
    result = run(files=[file("netrc", "# moved\n")])
    assert row(result, "netrc") == (f"0440 {owner}\n(secret)\n", f"0444 {owner}\n# moved\n")


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
