"""Issue line B5: the engine is asked first; its options are kept and taken back, also after a run that was killed."""

from __future__ import annotations

import json
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker_options
import pytest
from ansible.module_utils.testing import patch_module_args
from docker_options import merge, undo, wanted_options

Run = Callable[..., dict[str, Any]]
ROTATION = {"log-driver": "json-file", "log-opts": {"max-size": "10m", "max-file": "3"}}
# As engines before and since 23.0 answer: the older ones read the file, then end because they are not root.
NEW_ENGINE = """#!/bin/sh
case "$*" in *--validate*) ;; *) exit 9;; esac
grep -q typo "${2#*=}" || exit 0
echo "unable to configure the Docker daemon with file ${2#*=}: the following directives don't match: typo" >&2; exit 1
"""
OLD_ENGINE = """#!/bin/sh
case "$*" in *--validate*) echo "Status: unknown flag: --validate" >&2; echo "See 'dockerd --help'." >&2; exit 125;;
esac
if grep -q typo "${1#*=}"; then
    echo "unable to configure the Docker daemon with file ${1#*=}: the following directives don't match: typo" >&2
    exit 1
fi
[ "$(id -u)" != 0 ] || exit 9
echo "dockerd needs to be started with root. To see how to run it rootless, see the documentation" >&2; exit 1
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The host's files; no engine is installed."""
    monkeypatch.setattr(docker_options, "BINARIES", f"{tmp_path}/bin")
    return tmp_path


@pytest.fixture
def run(host: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module on the host and return its result; `failed` is in it when it failed."""

    def run(check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        arguments = {
            "deployment": "one",
            "file": f"{host}/daemon.json",
            "directory": f"{host}/ours",
            "fact": f"{host}/facts.d/engine.fact",
            "pidfile": f"{host}/docker.pid",
            "_ansible_check_mode": check_mode,
            **parameters,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            docker_options.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Put a dockerd there that answers like one; where everybody can start it, which pytest's own directory is not."""
    with tempfile.TemporaryDirectory() as directory:

        def install(engine: str) -> None:
            Path(directory).chmod(0o755)
            Path(directory, "dockerd").write_text(engine)
            Path(directory, "dockerd").chmod(0o755)
            monkeypatch.setattr(docker_options, "BINARIES", f"{directory}:/usr/bin:/bin")

        yield install


def daemon(host: Path) -> Any:  # noqa: ANN401 (JSON)
    return json.loads((host / "daemon.json").read_text())


def files(host: Path) -> dict[str, str]:
    """Every file, by its path."""
    return {str(path.relative_to(host)): path.read_text() for path in host.rglob("*") if path.is_file()}


def test_merge_replaces_values_and_lists_but_not_dictionaries() -> None:
    assert merge({"a": {"b": 1, "c": [1]}, "d": 1}, {"a": {"c": [2]}}) == {"a": {"b": 1, "c": [2]}, "d": 1}


@pytest.mark.parametrize(
    ("own", "options"),
    [
        ({}, {"debug": True}),
        ({"debug": False}, {"debug": True}),
        ({"debug": True}, {"debug": True}),
        ({"log-opts": {"tag": "x"}}, {"log-opts": {"max-size": "1m"}}),
        ({"log-opts": {"max-size": "9m"}}, {"log-opts": {"max-size": "1m"}, "dns": ["1.1.1.1"]}),
        ({"dns": ["9.9.9.9"]}, {"dns": ["1.1.1.1"], "proxies": {"http-proxy": "http://p"}}),
        ({"labels": {}}, {"labels": {"a": {"b": "c"}}}),
    ],
)
def test_what_was_written_can_be_taken_back(run: Run, host: Path, own: dict[str, Any], options: dict[str, Any]) -> None:
    (host / "daemon.json").write_text(json.dumps(own))
    run(options=options)
    run(state="settled")
    assert daemon(host) == merge(own, options)

    run(options={})

    assert {key: value for key, value in daemon(host).items() if value != {}} == {
        key: value for key, value in own.items() if value != {}
    }


def test_what_somebody_has_changed_since_is_theirs() -> None:
    written = docker_options.Written(("debug",), True, False)

    assert undo({"debug": "theirs"}, [written]) == {"debug": "theirs"}


def test_a_second_run_changes_nothing(run: Run, host: Path) -> None:
    parameters = {"options": {"debug": True}, "environment": {"HTTP_PROXY": "http://proxy:3128"}}
    assert run(**parameters)["restart"]
    run(state="settled")
    before = files(host)

    result = run(**parameters)

    assert (result["changed"], result["restart"]) == (False, False)
    assert files(host) == before


def test_the_files_formatting_is_left_alone_where_nothing_is_wanted(run: Run, host: Path) -> None:
    (host / "daemon.json").write_text('{ "debug":true }')

    assert not run()["changed"]

    assert files(host) == {"daemon.json": '{ "debug":true }'}


def test_a_closed_file_stays_closed(run: Run, host: Path) -> None:
    (host / "daemon.json").write_text("{}")
    (host / "daemon.json").chmod(0o600)

    run(options={"debug": True})

    assert stat.S_IMODE((host / "daemon.json").stat().st_mode) == 0o600


def test_check_mode_writes_nothing_and_predicts(run: Run, host: Path) -> None:
    (host / "daemon.json").write_text("{}")

    result = run(check_mode=True, options={"proxies": {"http-proxy": "http://me:hidden@proxy"}, "data-root": "/srv/d"})

    assert (result["changed"], result["restart"], result["data_root"], result["moves_data"]) == (
        True,
        True,
        "/srv/d",
        True,
    )
    assert "hidden" not in json.dumps(result["diff"])
    assert files(host) == {"daemon.json": "{}"}


@pytest.mark.parametrize("killed_after", ["the record", "daemon.json"])
def test_a_run_that_was_killed_is_healed(
    run: Run, host: Path, monkeypatch: pytest.MonkeyPatch, killed_after: str
) -> None:
    """Before the engine was restarted: the next run still says that it has to be; without the option, it goes."""
    (host / "daemon.json").write_text('{"debug": false}')
    write, last = docker_options.write, "engine.fact" if killed_after == "the record" else "daemon.json"

    def killed(path: Path, text: str | None, mode: int) -> None:
        write(path, text, mode)
        if path.name == last:
            raise KeyboardInterrupt

    monkeypatch.setattr(docker_options, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        docker_options.apply(
            docker_options.Engine(
                docker_options.Files(
                    host / "daemon.json",
                    host / "ours/one.env",
                    host / "ours/options.json",
                    host / "facts.d/engine.fact",
                    host / "docker.pid",
                )
            ),
            "one",
            {"debug": True, "dns": ["1.1.1.1"]},
            {},
            {},
            check_mode=False,
        )
    monkeypatch.setattr(docker_options, "write", write)
    assert json.loads((host / "facts.d/engine.fact").read_text()) == {"deployments": ["one"], "pending": True}

    assert run(check_mode=True, options={"debug": True, "dns": ["1.1.1.1"]})["restart"]
    assert run(options={"debug": True})["restart"]
    assert daemon(host) == {"debug": True}
    run(state="settled")
    assert json.loads((host / "facts.d/engine.fact").read_text()) == {"deployments": ["one"], "pending": False}
    run()
    run(state="settled")

    assert daemon(host) == {"debug": False}
    assert json.loads((host / "facts.d/engine.fact").read_text()) == {"deployments": [], "pending": False}


def test_an_engine_that_has_started_since_is_not_restarted(run: Run, host: Path) -> None:
    run(options={"debug": True})
    (host / "docker.pid").write_text("1")
    os.utime(host / "docker.pid", (2**31, 2**31))

    assert not run(options={"debug": True})["restart"]

    os.utime(host / "docker.pid", (0, 0))
    assert not run(options={"debug": True})["restart"]  # that is settled


def test_going_back_brings_the_files_of_before(run: Run, host: Path) -> None:
    (host / "daemon.json").write_text('{ "debug":true }')
    run(options={"dns": ["1.1.1.1"]}, environment={"HTTP_PROXY": "http://proxy"})

    assert run(state="reverted")["changed"]

    assert (host / "daemon.json").read_text() == '{ "debug":true }'
    assert not (host / "ours/one.env").exists()
    assert not run()["changed"]


def test_an_environment_is_closed_and_means_the_same_to_systemd_and_a_shell(run: Run, host: Path) -> None:
    run(environment={"HTTP_PROXY": "http://me:it's $5@proxy"})

    assert (host / "ours/one.env").read_text() == """HTTP_PROXY='http://me:it'"'"'s $5@proxy'\n"""
    assert stat.S_IMODE((host / "ours/one.env").stat().st_mode) == 0o600
    assert run(environment={"HTTP_PROXY": "a\nb"})["msg"].startswith("HTTP_PROXY of the Docker engine has characters")


@pytest.mark.parametrize(
    ("own", "options", "expected"),
    [
        ({}, {}, ROTATION),
        ({}, {"debug": True}, {**ROTATION, "debug": True}),
        ({}, {"log-opts": {"max-size": "1m"}}, merge(ROTATION, {"log-opts": {"max-size": "1m"}})),
        ({}, {"log-driver": "journald"}, {"log-driver": "journald"}),
        ({"log-driver": "local"}, {}, {}),
    ],
)
def test_rotation_gives_way(own: dict[str, Any], options: dict[str, Any], expected: dict[str, Any]) -> None:
    assert wanted_options(own, ROTATION, {"one": options}) == expected


def test_rotation_stays_when_an_option_is_taken_back(run: Run, host: Path) -> None:
    run(defaults=ROTATION)
    for options, expected in [({"log-driver": "journald"}, {"log-driver": "journald"}), ({}, ROTATION)]:
        run(options=options)
        run(state="settled")
        assert daemon(host) == expected


def test_two_deployments_leave_each_other_alone(run: Run, host: Path) -> None:
    for deployment, options in [("one", {"debug": True}), ("two", {"dns": ["1.1.1.1"]})]:
        run(deployment=deployment, options=options)
        run(deployment=deployment, state="settled")
    assert not run(deployment="one", options={"debug": True})["changed"]

    refused = run(deployment="two", options={"debug": False})
    run(deployment="one")

    assert "two wants debug to be false, and one, on the same host, true" in refused["msg"]
    assert daemon(host) == {"dns": ["1.1.1.1"]}


@pytest.mark.parametrize("text", ['{"debug": true,}', "[]", '"debug"'])
def test_a_file_that_is_no_object_is_refused(run: Run, host: Path, text: str) -> None:
    (host / "daemon.json").write_text(text)

    message = run(options={"debug": True})["msg"]

    assert message.startswith(f"{host}/daemon.json ")
    assert message.endswith("repair or remove that file.")


@pytest.mark.parametrize("root", ["srv/docker", "", 7])
def test_data_root_is_a_full_path(run: Run, root: object) -> None:
    assert "data-root" in run(options={"data-root": root})["msg"]


@pytest.mark.parametrize(
    "engine",
    [
        NEW_ENGINE,
        pytest.param(OLD_ENGINE, marks=pytest.mark.skipif(os.getuid() != 0, reason="root alone can start as another")),
    ],
    ids=["since 23.0", "before 23.0"],
)
def test_what_the_engine_refuses_is_not_written(
    run: Run, host: Path, install: Callable[[str], None], engine: str
) -> None:
    install(engine)
    (host / "daemon.json").write_text('{"debug": true}')

    refused = run(options={"typo": 1})

    assert refused["msg"] == (
        "The Docker engine refuses docker_daemon_options (or docker_registry_mirrors): "
        "the following directives don't match: typo. Correct the option, or remove it."
    )
    assert daemon(host) == {"debug": True}
    assert run(options={"dns": ["1.1.1.1"]})["restart"]


def test_the_hosts_own_mistake_is_called_so(run: Run, host: Path, install: Callable[[str], None]) -> None:
    install(NEW_ENGINE)
    (host / "daemon.json").write_text('{"typo": 1}')

    assert f"refuses {host}/daemon.json of this host" in run(options={"debug": True})["msg"]
