"""A host knows which deployments it carries, who has its ports, and lets one run at a time change it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import deployment_lock
import pytest
from ansible.module_utils.testing import patch_module_args
from lookups import REPO, lookup

Json = dict[str, Any]

OURS = {"com.docker.compose.project": "mlflow-stack"}
AUTHORITY = {"fingerprint": "aa", "checksum": "cc", "secrets": {"postgres_password": "1", "ftp_password": "2"}}
RECORD = {
    "name": "mlflow-stack",
    "config_root": "/etc/mlflow-stack",
    "authority": "aa",
    "secrets": AUTHORITY["secrets"],
    "by": "eve",
    "from": "laptop",
    "at": "2026-11-01 12:00",
}
KNOWN = "h1 carries the deployment mlflow-stack, last changed by eve from laptop on 2026-11-01 12:00"
POSTGRES = {"Names": ["/mlflow-stack-postgres"], "Labels": OURS, "Mounts": [{"Source": "/etc/mlflow-stack/postgres/0"}]}
VOLUME = {"Name": "mlflow-stack_postgres", "Labels": OURS}


def conflicts(wanted: Json | None = None, **host: Any) -> list[str]:  # noqa: ANN401 (options of the lookup)
    """What stands against a deployment with these differences, on a host that has this."""
    deployment: Json = {
        "name": "mlflow-stack",
        "config_root": "/etc/mlflow-stack",
        "secrets_dir": "/secrets",
        "inventory": "inventory/prod",
        "identity": [AUTHORITY],
        "missing": [],
        "fixed": ["postgres_password"],
        "objects": {
            "container": ["mlflow-stack-postgres"],
            "network": ["mlflow-stack"],
            "volume": ["mlflow-stack_postgres"],
        },
        "adopt": "",
    }
    return lookup("deployment_conflicts", deployment | (wanted or {}), host="h1", **host)


def recorded(**differences: object) -> dict[str, Json]:
    """What a host keeps that carries the deployment."""
    return {"mlflow-stack": RECORD | differences}


def test_an_empty_host() -> None:
    assert conflicts({"identity": [], "missing": ["postgres_password"]}) == []


def test_the_same_deployment() -> None:
    assert conflicts(records=recorded(), containers=[POSTGRES], volumes=[VOLUME]) == []


def test_a_secret_that_a_run_can_change() -> None:
    here = AUTHORITY | {"secrets": {"postgres_password": "1", "ftp_password": "other"}}
    assert conflicts({"identity": [here]}, records=recorded()) == []


def test_a_secret_that_is_new_with_this_version() -> None:
    assert conflicts({"missing": ["mlflow_webhook_key"]}, records=recorded()) == []


def test_a_next_authority_beside_the_old_one() -> None:
    following = {"fingerprint": "bb", "checksum": "dd", "secrets": {"postgres_password": "9"}}
    assert conflicts({"identity": [following, AUTHORITY]}, records=recorded()) == []


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"identity": []}, "/secrets has no authority."),
        ({"identity": [AUTHORITY | {"fingerprint": "bb"}]}, "/secrets has the authority of another one."),
        ({"missing": ["ftp_password", "new"]}, "/secrets lacks ftp_password."),
        (
            {"identity": [AUTHORITY | {"secrets": {"postgres_password": "9"}}]},
            "with another postgres_password than is set here, which a run cannot change.",
        ),
    ],
)
def test_secrets_that_do_not_fit(wanted: Json, found: str) -> None:
    """Issue line A2."""
    (reason,) = conflicts(wanted, records=recorded())

    assert reason.startswith(KNOWN)
    assert found in reason
    assert "Bring the secrets that it was deployed with to /secrets, from your copy or a colleague's" in reason
    assert "ansible-playbook -i inventory/prod playbooks/uninstall.yml --extra-vars purge=mlflow-stack." in reason
    assert conflicts(wanted | {"adopt": "mlflow-stack"}, records=recorded()) == []
    assert conflicts(wanted | {"adopt": "other"}, records=recorded()) == [reason]


class TestBeforeRecords:
    """A platform that was deployed by a version that kept no record."""

    def test_by_these_secrets(self) -> None:
        pem = {"path": "/etc/mlflow-stack/mlflow/authority.pem", "checksum": "cc"}
        assert conflicts(containers=[POSTGRES], files=[pem]) == []

    def test_by_others(self) -> None:
        pem = {"path": "/etc/mlflow-stack/mlflow/authority.pem", "checksum": "ee"}
        (reason,) = conflicts(containers=[POSTGRES], files=[pem])
        assert "it has the container mlflow-stack-postgres" in reason
        assert "--extra-vars stack_adopt=mlflow-stack" in reason

    def test_nothing_but_data(self) -> None:
        (reason,) = conflicts(volumes=[VOLUME])
        assert "it has the volume mlflow-stack_postgres" in reason

    def test_without_the_database_s_password(self) -> None:
        pem = {"path": "/etc/mlflow-stack/mlflow/authority.pem", "checksum": "cc"}
        (reason,) = conflicts({"missing": ["postgres_password"]}, containers=[POSTGRES], files=[pem])
        assert "/secrets lacks postgres_password" in reason


@pytest.mark.parametrize("root", ["/etc/other", "/etc/other/below", "/etc"])
def test_the_directory_of_another_deployment(root: str) -> None:
    """Issue line A1."""
    (reason,) = conflicts(
        {"config_root": root}, records={"other": RECORD | {"name": "other", "config_root": "/etc/other"}}
    )
    assert (
        f"stack_config_root is {root}, and the deployment other on h1 keeps its configuration in /etc/other" in reason
    )


def test_a_directory_that_has_moved() -> None:
    (reason,) = conflicts(records=recorded(config_root="/srv/old"))
    assert reason.endswith("keeps its configuration in /srv/old: set it to that.")


def test_a_directory_of_the_host_s_own() -> None:
    """Issue line B4."""
    (reason,) = conflicts(files=[{"path": "/etc/mlflow-stack/b"}, {"path": "/etc/mlflow-stack/a"}])
    assert "h1 has something in it that this deployment has not written (/etc/mlflow-stack/a)" in reason


@pytest.mark.parametrize(
    ("kind", "thing"),
    [
        ("container", {"Names": ["/mlflow-stack-postgres"], "Labels": {}}),
        ("network", {"Name": "mlflow-stack", "Labels": None}),
        ("volume", {"Name": "mlflow-stack_postgres", "Labels": {"com.docker.compose.project": "other"}}),
    ],
)
def test_an_object_of_somebody_else(kind: str, thing: Json) -> None:
    """Issue line A1."""
    (reason,) = conflicts(None, **{f"{kind}s": [thing]})
    name = thing.get("Name", "mlflow-stack-postgres")
    whose = "of other" if thing["Labels"] else "not of mlflow-stack"
    assert reason.startswith(f"The {kind} {name} on h1 is {whose}, and stack_name is mlflow-stack")


def test_a_name_that_only_begins_like_ours() -> None:
    other = {"Names": ["/mlflow-stack-two-postgres"], "Labels": {"com.docker.compose.project": "mlflow-stack-two"}}
    assert conflicts(containers=[other, {"Names": ["/mlflow-stack-tool"], "Labels": None}]) == []


def test_an_identity_shows_no_secret_and_generates_none(tmp_path: Path) -> None:
    assert lookup("deployment_identity", {"a": "password-of-a"}, directory=str(tmp_path)) == [[]]
    assert list(tmp_path.iterdir()) == []
    lookup("certificate", "ftp", directory=str(tmp_path), names=["ftp"])

    ((authority,),) = lookup("deployment_identity", {"a": "password-of-a", "b": ""}, directory=str(tmp_path))

    assert authority["secrets"].keys() == {"a"}
    assert "password-of-a" not in json.dumps(authority)
    ((same,),) = lookup("deployment_identity", {"a": "password-of-a"}, directory=str(tmp_path))
    assert same == authority
    ((other,),) = lookup("deployment_identity", {"a": "password-of-b"}, directory=str(tmp_path))
    assert other["secrets"] != authority["secrets"]


MLFLOW_PORT = {"variable": "mlflow_port", "address": "127.0.0.1", "port": 5000, "container": "mlflow-stack-mlflow"}


def published(port: int, address: str = "127.0.0.1", **labels: str) -> Json:
    """A container that has a port published."""
    return {"Ports": [{"IP": address, "PrivatePort": 1, "PublicPort": port}], "Labels": labels}


@pytest.mark.parametrize(
    ("containers", "listeners", "who"),
    [
        ({}, [], None),
        (
            {"mlflow-stack-mlflow": published(5000)},
            [{"address": "127.0.0.1", "port": 5000, "name": "docker-proxy"}],
            None,
        ),
        ({"mlflow-stack-mlflow": published(5001)}, [], None),
        ({"other": published(5000, "192.0.2.1")}, [{"address": "192.0.2.1", "port": 5000}], None),
        ({"web": published(5000, "0.0.0.0")}, [], "the container web"),
        (
            {"a-mlflow": published(5000, **{"com.docker.compose.project": "a"})},
            [],
            "the container a-mlflow of a",
        ),
        ({}, [{"address": "0.0.0.0", "port": 5000, "name": "nginx", "pid": 7}], "nginx (process 7)"),
        ({}, [{"address": "127.0.0.1", "port": 5000}], "another program"),
    ],
)
def test_who_has_a_port(containers: Json, listeners: list[Json], who: str | None) -> None:
    """Issue line A7."""
    found = lookup("port_conflicts", MLFLOW_PORT, host="h1", containers=containers, listeners=listeners)

    cure = "set mlflow_port to a free port, or stop what listens there (ss -ltnp 'sport = :5000')."
    assert found == ([f"Port 5000 on h1 (mlflow_port) is taken by {who}: {cure}"] if who else [])


def test_the_last_image_that_was_in_use_stays() -> None:
    """Issue line A8."""
    ages = {"mlflow-stack/ftp:1": 1, "mlflow-stack/ftp:2": 2, "mlflow-stack/ftp:3": 3, "postgres:17": 1}
    images = [{"RepoTags": [tag], "Created": created} for tag, created in ages.items()] + [
        {"RepoTags": None, "Created": 9}
    ]
    new = "mlflow-stack/ftp:4"

    def leftovers(tags: list[str], used: list[str]) -> list[str]:
        return lookup("image_leftovers", *images, tags=tags, used=used)

    assert leftovers([*ages], ["mlflow-stack/ftp:3"]) == ["mlflow-stack/ftp:1"]
    assert sorted(leftovers([*ages, new], [new])) == ["mlflow-stack/ftp:1", "mlflow-stack/ftp:2"]
    assert leftovers([*ages], ["mlflow-stack/ftp:1"]) == []


def action_plugin() -> ModuleType:
    """The action plugin of the same name as the module."""
    spec = importlib.util.spec_from_file_location("deployment_lock_action", REPO / "action_plugins/deployment_lock.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


ANSIBLE = Path(sys.executable).with_name("ansible")


HOUR = 3600  # seconds


class TestLock:
    """Issue line A6."""

    BEGAN = (datetime.now().astimezone() - timedelta(seconds=2 * HOUR)).isoformat(sep=" ", timespec="seconds")

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "lock"

    def run(self, path: Path, capsys: pytest.CaptureFixture[str], who: str, **options: object) -> Json | None:
        """Run the module; who holds the lock now."""
        arguments = {"path": str(path), "owner": {"id": who}, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            deployment_lock.main()
        holder: Json | None = json.loads(capsys.readouterr().out)["holder"]
        return holder

    def test_one_at_a_time(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(path, capsys, "a", what="site.yml") == {"id": "a", "what": "site.yml", "deployment": ""}
        assert self.run(path, capsys, "b") == {"id": "a", "what": "site.yml", "deployment": ""}
        assert self.run(path, capsys, "a") == {"id": "a", "what": "site.yml", "deployment": ""}  # again in the same run
        assert {file.name for file in path.parent.iterdir()} == {"lock", "lock.guard"}

    @pytest.mark.parametrize("who", ["a@b:1:2", "é 'a' \"b\" $(c)\\"])
    def test_given_back_by_its_run_alone(self, path: Path, capsys: pytest.CaptureFixture[str], who: str) -> None:
        self.run(path, capsys, who)
        self.give_back(path, who + "3")
        assert path.exists()
        self.give_back(path, who)
        assert {file.name for file in path.parent.iterdir()} == {"lock.guard", "log"}
        self.give_back(path, who)  # nothing to do
        (line,) = (path.parent / "log").read_text().splitlines()  # of the one that had it
        written = json.loads(line)
        assert 2 * HOUR <= written.pop("seconds") < 3 * HOUR
        assert written == {
            "began": self.BEGAN,
            "deployment": "mlflow-stack",
            "what": "site.yml",
            "version": "1.0",
            "by": who,
            "from": "laptop",
            "outcome": 'failed: It\'s "this" task',
        }

    def test_check_mode_ends_where_nobody_holds_it(self, path: Path) -> None:
        self.give_back(path, None, "--check")

    def give_back(self, path: Path, who: str | None, *options: str) -> None:
        """Run the tasks that end a run."""
        variables = {
            "ansible_connection": "local",
            "deployment_found": {
                "holder": {"id": who, "user": who, "from": "laptop", "since": self.BEGAN} if who else None
            },
            "deployment_version": "1.0",
            "deployment_outcome": 'failed: It\'s "this" task',
            "__deployment_lock": str(path),
            "__deployment_log": str(path.parent / "log"),
        }
        role = "name=deployment tasks_from=end rolespec_validate=false"
        command = [str(ANSIBLE), "localhost", "--module-name", "include_role", "--args", role, *options]
        subprocess.run([*command, "--extra-vars", json.dumps(variables)], cwd=REPO, check=True)

    def test_the_lock_that_is_named_is_broken(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.run(path, capsys, "a")
        holder = self.run(path, capsys, "b", break_lock="c")
        assert holder
        assert holder["id"] == "a"
        holder = self.run(path, capsys, "b", break_lock="a")
        assert holder
        assert holder["id"] == "b"

    def test_a_run_that_was_killed_is_written_down_by_the_next(
        self, path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        log = path.parent / "log"
        dead = {"id": "a", "user": "eve", "from": "laptop", "since": self.BEGAN}
        self.run(path, capsys, "a", owner=dead, what="site.yml", deployment="mlflow-stack", log=str(log))
        assert not log.exists()
        self.run(path, capsys, "b", break_lock="a", log=str(log))
        (line,) = log.read_text().splitlines()
        assert json.loads(line) == {
            "began": self.BEGAN,
            "deployment": "mlflow-stack",
            "what": "site.yml",
            "by": "eve",
            "from": "laptop",
            "outcome": "did not come to its end",
        }
        assert log.stat().st_mode & 0o777 == 0o640

    def test_a_log_that_nobody_could_read_holds_no_run_up(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        os.mkfifo(path.parent / "log")
        self.run(path, capsys, "a", log=str(path.parent / "log"))
        holder = self.run(path, capsys, "b", break_lock="a", log=str(path.parent / "log"))
        assert holder
        assert holder["id"] == "b"
        self.give_back(path, "b")
        assert not path.exists()

    def test_check_mode_takes_none(self, path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(path, capsys, "a", _ansible_check_mode=True) is None
        assert not path.exists()

    @pytest.mark.parametrize("text", ["", "{", "{}", "[1]"])
    def test_a_file_that_is_no_lock(self, path: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
        path.write_text(text)
        assert self.run(path, capsys, "a") == {"id": "unknown"}

    def test_a_run_that_has_ended_is_told_apart(self) -> None:
        plugin = action_plugin()
        child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
        holder = plugin.this_run(child.pid)
        assert not plugin.has_ended(holder)
        child.communicate(b"\n")
        assert plugin.has_ended(holder)
        assert not plugin.has_ended(holder | {"machine": "another"})
        assert not plugin.has_ended({"id": "unknown"})
        assert not plugin.has_ended({"id": "unknown", "machine": plugin.machine()})
        assert not plugin.has_ended(plugin.this_run(os.getpid()))

    def test_what_the_other_one_reads(self) -> None:
        holder = {
            "id": "eve@laptop:1:2",
            "user": "eve",
            "from": "laptop",
            "since": "2026-11-01 12:00:00+00:00",
            "what": "site.yml",
        }
        assert action_plugin().refusal("h1", holder) == (
            "h1 is being deployed to by another run: eve runs site.yml from laptop since 2026-11-01 12:00:00+00:00. "
            "Wait until that has ended and run this again. If you know that it has ended without giving the lock back: "
            "--extra-vars 'stack_break_lock=eve@laptop:1:2'."
        )
