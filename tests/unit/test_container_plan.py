"""What is to be done about a container: nothing, if all that it was made of is as it shall be."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from lookups import lookup

Json = dict[str, Any]

DEFINITION: Json = {
    "image": "docker.io/library/ftp:1",
    "networks": ["stores"],
    "volumes": ["stack_ftp:/srv", "/dev/log:/dev/log"],
    "configs": [{"source": "server.json", "target": "/etc/server.json"}],
    "healthcheck": {"test": ["CMD", "true"], "interval": "10s"},
}
FILES = [{"name": "server.json", "content": "{}"}]


def plan(**options: object) -> Json:
    """The plan of the service ftp."""
    defaults: Json = {
        "project": "stack",
        "definition": DEFINITION,
        "files": FILES,
        "secrets_gid": 64720,
        "config_root": "/etc/stack",
        "networks": {"default": "stack", "stores": "stack_stores"},
        "containers": {},
        "found": [],
    }
    (result,) = lookup("container_plan", "ftp", **(defaults | options))
    planned: Json = result
    return planned


@pytest.fixture
def host() -> Json:
    """A host where all is as it shall be: the engine's containers, and the configurations that were found."""
    wanted = plan()
    container = {
        "Created": 100,
        "Image": "ftp:1",
        "Labels": wanted["labels"],
        "Mounts": [{"Source": wanted["config"]["path"], "Destination": "/etc/mlflow-stack"}],
        "NetworkSettings": {"Networks": {"stack_stores": {}}},
        "Status": "Up 3 minutes (healthy)",
    }
    found = [entry | {"ctime": 99.5, "isdir": "checksum" not in entry} for entry in wanted["config"]["listing"]]
    return {"containers": {"stack-ftp": container}, "found": found}


def test_a_definition_is_completed() -> None:
    result = plan()

    assert result["definition"]["container_name"] == "stack-ftp"
    assert result["definition"]["image"] == "ftp:1"
    assert result["definition"]["restart"] == "always"
    assert result["definition"]["group_add"] == ["64720"]
    assert "configs" not in result["definition"]
    assert result["networks"] == ["stack_stores"]
    assert result["volumes"] == ["stack_ftp"]
    directory = result["config"]["path"]
    assert result["mounts"][-2:] == [
        f"{directory}:/etc/mlflow-stack:ro",
        f"{directory}/server.json:/etc/server.json:ro",
    ]


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (["CMD", "pg_isready", "--quiet"], ["pg_isready", "--quiet"]),
        (["CMD-SHELL", "curl localhost || exit 1"], ["/bin/sh", "-c", "curl localhost || exit 1"]),
        ("curl localhost", ["/bin/sh", "-c", "curl localhost"]),
        (["NONE"], []),
    ],
)
def test_what_is_asked_while_it_starts(test: list[str] | str, command: list[str]) -> None:
    assert plan(definition=DEFINITION | {"healthcheck": {"test": test}})["health_command"] == command


def test_no_health_check() -> None:
    assert plan(definition={"image": "ftp:1"})["health_command"] == []


def test_nothing_is_there_yet() -> None:
    result = plan()

    assert (result["done"], result["awaited"], result["written"]) == (False, False, False)


def test_all_is_as_it_shall_be(host: Json) -> None:
    result = plan(**host)

    assert result["done"]
    assert result["settled"]
    assert result["obsolete"] == []
    assert result["mounted"] == [result["config"]["path"]]


CHANGES: dict[str, Callable[[Json, list[Json]], object]] = {
    "another image": lambda container, _: container.update(Image="ftp:0"),
    "another definition": lambda container, _: container["Labels"].update({"com.docker.compose.config-hash": "0"}),
    "a network lost": lambda container, _: container["NetworkSettings"].update(Networks={}),
    "unhealthy": lambda container, _: container.update(Status="Up 3 minutes (unhealthy)"),
    "stopped": lambda container, _: container.update(Status="Exited (0) 3 minutes ago"),
    "a file changed after it was made": lambda _, found: found[-1].update(ctime=101.0),
    "a file with other contents": lambda _, found: found[-1].update(checksum="0"),
    "a file that is readable by all": lambda _, found: found[-1].update(mode="0666"),
    "a file lost": lambda _, found: found.pop(),
    "the directory open": lambda _, found: found[0].update(mode="0755"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_different_is_not_done(host: Json, change: str) -> None:
    CHANGES[change](host["containers"]["stack-ftp"], host["found"])

    result = plan(**host)

    assert not result["done"]
    assert not result["awaited"]


LIVE = DEFINITION | {"x-live-configuration": True, "configs": []}


@pytest.fixture
def live() -> Json:
    """The same host with a service that follows its files."""
    wanted = plan(definition=LIVE)
    container = {
        "Created": 100,
        "Image": "ftp:1",
        "Labels": wanted["labels"],
        "Mounts": [{"Source": "/etc/stack/ftp", "Destination": "/etc/mlflow-stack"}],
        "NetworkSettings": {"Networks": {"stack_stores": {}}},
        "Status": "Up 3 minutes (healthy)",
    }
    directory = wanted["config"]["path"].rpartition("/")[2]
    links = [
        {"path": f"/etc/stack/ftp/{name}", "link": directory, "ctime": 99.5, "isdir": False}
        for name in ("current", "worked")
    ]
    found = [entry | {"ctime": 300, "isdir": "checksum" not in entry} for entry in wanted["config"]["listing"]]
    return {"definition": LIVE, "containers": {"stack-ftp": container}, "found": [*found, *links]}


def test_one_that_follows_its_files_has_all_of_them_mounted(live: Json) -> None:
    result = plan(**live)
    assert "/etc/stack/ftp:/etc/mlflow-stack:ro" in result["mounts"]
    assert (result["settled"], result["obsolete"], result["linked"]) == (True, [], result["config"]["path"])


def test_one_that_follows_its_files_is_not_made_anew_for_others(live: Json) -> None:
    before = plan(**live)
    after = plan(**live, files=[{"name": "server.json", "content": "[]"}])
    assert after["labels"] == before["labels"]
    assert (after["done"], after["follows"], after["linked"]) == (False, True, before["config"]["path"])
    assert after["obsolete"] == [before["config"]["path"]]


@pytest.mark.parametrize("position", [-1, -2])
def test_a_link_that_leads_elsewhere_is_not_done(live: Json, position: int) -> None:
    live["found"][position]["link"] = "0123456789abcdef"
    result = plan(**live)
    assert (result["done"], result["follows"]) == (False, True)


def test_one_that_is_not_well_although_it_has_read_all_is_made_anew(live: Json) -> None:
    live["containers"]["stack-ftp"]["Status"] = "Up 3 minutes (unhealthy)"
    assert plan(**live)["follows"] is False
    live["found"][-2]["link"] = "0123456789abcdef"
    assert plan(**live)["follows"] is True


def test_another_definition_is_not_followed(live: Json) -> None:
    result = plan(**live | {"definition": LIVE | {"mem_limit": "1g"}})
    assert (result["done"], result["follows"]) == (False, False)


def test_one_that_has_only_just_started_is_awaited(host: Json) -> None:
    host["containers"]["stack-ftp"]["Status"] = "Up 2 seconds (health: starting)"

    result = plan(**host)

    assert (result["done"], result["awaited"]) == (False, True)


@pytest.mark.parametrize(
    ("status", "done"), [("Exited (0) 2 days ago", True), ("Exited (1) 2 days ago", False), ("Up 1 second", False)]
)
def test_a_task_is_done_once_it_has_ended_well(host: Json, status: str, done: bool) -> None:
    task = DEFINITION | {"restart": "no"}
    host["containers"]["stack-ftp"].update(Status=status, Labels=plan(definition=task)["labels"])

    assert plan(**host, definition=task)["done"] == done


def test_an_older_configuration_is_obsolete(host: Json) -> None:
    old = "/etc/stack/ftp/0123456789abcdef"
    host["found"].append({"path": old, "mode": "0755", "uid": 0, "gid": 0, "ctime": 1.0, "isdir": True})

    result = plan(**host)

    assert result["done"]
    assert result["obsolete"] == [old]
    assert not result["settled"]


def test_the_configuration_of_a_namesake_is_not_touched(host: Json) -> None:
    namesake = {"path": "/etc/stack/ftp-2/0123456789abcdef", "mode": "0755", "uid": 0, "gid": 0, "ctime": 999.0}
    host["found"].append(namesake)

    assert plan(**host)["done"]
    assert plan(**host)["obsolete"] == []


def test_who_worked_last_goes_on(host: Json) -> None:
    broken, before = copy.deepcopy(host["containers"]["stack-ftp"]), host["containers"]["stack-ftp"]
    broken["Status"] = "Up 3 minutes (unhealthy)"
    host["containers"] = {"stack-ftp": broken, "stack-ftp-previous": before}

    assert plan(**host)["succeeded"] == before


def test_a_predecessor_is_to_be_tidied_up(host: Json) -> None:
    host["containers"]["stack-ftp-previous"] = copy.deepcopy(host["containers"]["stack-ftp"])

    result = plan(**host)

    assert (result["done"], result["settled"]) == (True, False)


@pytest.fixture
def replaceable() -> Json:
    """A host with a service whose changes are made beside it."""
    definition = DEFINITION | {"x-beside": True}
    wanted = plan(definition=definition)
    container = {
        "Created": 100,
        "Image": "ftp:1",
        "Labels": wanted["labels"],
        "Mounts": [],
        "NetworkSettings": {"Networks": {"stack_stores": {}}},
        "Status": "Up 3 minutes (healthy)",
    }
    found = [entry | {"ctime": 99.5, "isdir": "checksum" not in entry} for entry in wanted["config"]["listing"]]
    return {"definition": definition, "containers": {"stack-ftp": container}, "found": found}


def test_a_candidate_is_what_it_will_be_but_for_its_name(replaceable: Json) -> None:
    candidate, wanted = plan(**replaceable, candidate=True), plan(**replaceable)

    assert candidate["definition"]["container_name"] == "stack-ftp-candidate"
    assert candidate["labels"] == wanted["labels"]
    assert (candidate["restart"], wanted["restart"]) == ("no", "always")
    assert not candidate["is_task"]
    assert not candidate["done"]
    assert candidate["aliases"] == []
    assert "hostname" not in candidate["definition"]  # by which engines from 25 on would find it too

    renamed = {"stack-ftp": replaceable["containers"]["stack-ftp"] | {"Labels": candidate["labels"]}}
    assert plan(**replaceable | {"containers": renamed})["settled"]
    patient = replaceable["definition"] | {"x-drain": ["sleep", "9"]}
    assert plan(**replaceable | {"containers": renamed, "definition": patient})["settled"]


def test_a_candidate_leaves_the_files_of_the_other_one(replaceable: Json) -> None:
    older = {"path": "/etc/stack/ftp/0123456789abcdef", "mode": "0755", "uid": 0, "gid": 0, "isdir": True, "ctime": 1}
    replaceable["found"] = [*replaceable["found"], older]

    assert plan(**replaceable, candidate=True)["obsolete"] == []
    assert plan(**replaceable)["obsolete"] == [older["path"]]


def test_a_change_is_made_beside_it_where_no_port_is_in_the_way(replaceable: Json) -> None:
    assert plan(**replaceable)["beside"]
    assert not plan(**replaceable, candidate=True)["beside"]
    assert not plan(**replaceable | {"containers": {}})["beside"]
    published = replaceable["definition"] | {"ports": ["127.0.0.1:2121:2121"]}
    assert not plan(**replaceable | {"definition": published})["beside"]
    assert not plan(**replaceable | {"definition": DEFINITION})["beside"]
    assert plan()["aliases"] == ["ftp"]
