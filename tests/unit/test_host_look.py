"""Issue line B5 of the first hour: one look at a host says all that a deployment asks before it decides what to do."""

from __future__ import annotations

import json
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import deployment_lock
import pytest
from ansible.module_utils import host_look
from ansible.module_utils.testing import patch_module_args
from lookups import REPO

ENGINE: dict[str, Any] = {
    "/info": {"DockerRootDir": "/srv/docker"},
    "/containers/json?all=1": [{"Names": ["/mlflow-stack-ftp"]}],
    "/images/json": [{"RepoTags": ["mlflow-stack/ftp:1"]}],
    "/networks": [{"Name": "bridge"}],
    "/volumes": {"Volumes": None},
}


@pytest.fixture
def answers() -> dict[str, Any]:
    """What the engine answers, by URL; a test may change it."""
    return dict(ENGINE)


@pytest.fixture
def engine(answers: dict[str, Any], tmp_path: Path) -> Iterator[str]:
    """The socket of an engine."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            found = answers.get(self.path)
            content = json.dumps({"message": "no such page"} if found is None else found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            """Say nothing."""

        def address_string(self) -> str:
            return "unix"

    path = str(tmp_path / "docker.sock")
    with socketserver.ThreadingUnixStreamServer(path, Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield path
        server.shutdown()
        thread.join()


def test_an_engine_tells_what_it_has(engine: str) -> None:
    assert host_look.engine(engine) == {
        "running": True,
        "root": "/srv/docker",
        "containers": ENGINE["/containers/json?all=1"],
        "images": ENGINE["/images/json"],
        "networks": ENGINE["/networks"],
        "volumes": [],
    }


def test_an_engine_that_refuses(engine: str, answers: dict[str, Any]) -> None:
    """In part, too: half of what there is would be taken for all."""
    del answers["/networks"]
    found = host_look.engine(engine)
    assert (found["running"], found["containers"]) == (False, [])
    assert found["message"] == f"{engine}: no such page"


@pytest.mark.parametrize(
    ("docker_host", "socket"),
    [
        ("", "/var/run/docker.sock"),
        ("unix:///srv/docker.sock", "/srv/docker.sock"),
        ("tcp://host:2375", "/var/run/docker.sock"),
    ],
)
def test_the_engine_that_modules_talk_to(monkeypatch: pytest.MonkeyPatch, docker_host: str, socket: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_host)
    assert host_look.engine_socket() == socket


def test_no_engine(tmp_path: Path) -> None:
    found = host_look.engine(f"{tmp_path}/docker.sock")
    assert (found["running"], found["root"]) == (False, "/var/lib/docker")
    assert found["message"] == f"{tmp_path}/docker.sock: No such file or directory"


def test_records(tmp_path: Path) -> None:
    """What a run that was killed has left half-written is no record."""
    (tmp_path / "mlflow_stack_image.fact").write_text('{"origin": "distro"}')
    (tmp_path / "mlflow_stack_options.fact").write_text('{"depl')
    (tmp_path / "foreign.fact").write_text("{}")
    assert host_look.records(tmp_path) == {"mlflow_stack_image": {"origin": "distro"}}
    assert host_look.records(tmp_path / "none") == {}


def test_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authorities = tmp_path / "ca"
    (authorities / "directory.crt").mkdir(parents=True)
    (authorities / "b.crt").write_text("b")
    (authorities / "a.crt").write_text("a")
    (authorities / "README").write_text("c")
    (authorities / "link.crt").symlink_to("a.crt")
    monkeypatch.setattr(host_look, "SETTINGS", ((authorities, "*.crt"), (tmp_path / "none", "pip.conf")))
    found = host_look.settings()
    assert [Path(entry["path"]).name for entry in found] == ["a.crt", "b.crt"]
    assert found[0]["checksum"] == "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"


def test_who_has_not_got_the_lock_does_not_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What is seen must stay so until this run changes it."""

    def run(who: str, **options: object) -> dict[str, Any]:
        look = {"config_root": f"{tmp_path}/etc", "table": "ours", "table_file": f"{tmp_path}/ours.nft"}
        arguments = {"path": f"{tmp_path}/lock", "owner": {"id": who}, "look": look, **options}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            deployment_lock.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    looked_at = {"records", "files", "settings", "firewall", "docker", "lacking", "systemd"}
    assert looked_at <= run("a").keys()
    assert not looked_at & run("b").keys()
    assert looked_at <= run("b", _ansible_check_mode=True).keys()  # which changes nothing


def part(tasks: str) -> dict[str, Any]:
    """A task that runs a part of the role deployment."""
    return {"ansible.builtin.include_role": {"name": "deployment", "tasks_from": tasks, "rolespec_validate": False}}


def test_the_lock_is_given_back_though_the_look_has_failed(
    engine: str, answers: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it fails with: here an engine that is none answers."""
    answers["/info"] = {}
    monkeypatch.setenv("DOCKER_HOST", f"unix://{engine}")
    play = {
        "hosts": "localhost",
        "connection": "local",
        "gather_facts": False,
        "tasks": [{"block": [part("begin")], "rescue": [part("end")]}],
    }
    (playbook := tmp_path / "play.yml").write_text(json.dumps([play]))
    variables = ["--extra-vars", f"__deployment_lock={tmp_path}/lock"]
    command = [str(Path(sys.executable).with_name("ansible-playbook")), *variables, str(playbook)]
    done = subprocess.run(command, cwd=REPO, stdout=subprocess.PIPE, text=True, check=True)
    assert "DockerRootDir" in done.stdout
    assert (tmp_path / "lock.guard").exists()
    assert not (tmp_path / "lock").exists()
