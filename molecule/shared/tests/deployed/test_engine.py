"""The Docker engine of the host: who reaches its containers from beside the host, and what its options can break."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from stack import PROJECT, ROOT, Stack, changes, wait_until

RECORD = "/etc/docker/mlflow-stack/options.json"
TABLE = f"mlflow-stack_{PROJECT}"
# Ports that are open inside the containers, published or not.
PORTS = {
    "postgres": 5432,
    "ftp": 2121,
    "mlflow": 5000,
    "jupyter": 8888,
    "serving-wine-quality": 8080,
    "portainer": 9443,
}
# Prints the doors that open, of [[address, port], ...].
KNOCK = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def opens(door):
    try:
        socket.create_connection(tuple(door), timeout=3).close()
    except OSError:
        return False
    return True
doors = json.loads(sys.argv[1])
with ThreadPoolExecutor(len(doors)) as pool:
    print(json.dumps([door for door, open in zip(doors, pool.map(opens, doors)) if open]))
"""


class Door(NamedTuple):
    """An address and a port."""

    address: str
    port: int


def docker(*arguments: str) -> str:
    """What Docker on this machine says; the test hosts are its containers."""
    return subprocess.run(["docker", *arguments], check=True, capture_output=True, text=True).stdout.strip()  # noqa: S607


class Neighbour:
    """A machine on the segment of the host that may set its routes as it likes."""

    def __init__(self, host: str) -> None:
        details = json.loads(docker("inspect", host))[0]
        self.host = details["NetworkSettings"]["IPAddress"]
        self.name = f"{host}-neighbour"
        docker(
            "run",
            "--detach",
            "--rm",
            f"--name={self.name}",
            "--cap-add=NET_ADMIN",
            "--sysctl=net.ipv4.conf.all.route_localnet=1",
            "--entrypoint=sleep",
            details["Config"]["Image"],
            "infinity",
        )
        # Its own 127.0.0.1 gives way: what is sent there goes to the host.
        self.run("ip", "rule", "add", "pref", "10", "lookup", "local")
        self.run("ip", "rule", "add", "pref", "1", "lookup", "100")
        self.run("ip", "rule", "del", "pref", "0")

    def run(self, *command: str) -> str:
        """Standard output of a command."""
        return docker("exec", self.name, *command)

    def reaches(self, doors: list[Door]) -> set[Door]:
        """Those of the doors that open to it, with a route to each address by way of the host."""
        for address in {door.address for door in doors} - {self.host}:
            self.run("ip", "route", "replace", address, "via", self.host, "table", "100")
        return {Door(*door) for door in json.loads(self.run("python3", "-c", KNOCK, json.dumps(doors)))}


@pytest.fixture(scope="module")
def neighbour(stack: Stack) -> Iterator[Neighbour]:
    """A second container beside the one that is the host."""
    neighbour = Neighbour(stack.run("hostname").strip())
    yield neighbour
    docker("rm", "--force", neighbour.name)


def containers(stack: Stack) -> list[Door]:
    """The containers' own addresses, on every network that they are on."""
    return [
        Door(network["IPAddress"], PORTS[service])
        for service, container in stack.services().items()
        for network in container["NetworkSettings"]["Networks"].values()
    ]


def publications(stack: Stack) -> list[Door]:
    """What is published on loopback."""
    return [
        Door(binding["HostIp"], int(binding["HostPort"]))
        for container in stack.services().values()
        for bindings in container["NetworkSettings"]["Ports"].values()
        for binding in bindings or []
    ]


def test_a_neighbour_reaches_nothing(stack: Stack, neighbour: Neighbour) -> None:
    """Issue line B3: by a route to the containers' addresses, or to 127.0.0.1, by way of the host."""
    doors = containers(stack) + publications(stack)
    assert {door.port for door in doors} >= {5000, 8888, 5432}

    assert neighbour.reaches(doors) == set()


def test_neither_after_a_restart_of_the_engine(stack: Stack, neighbour: Neighbour) -> None:
    """Issue line B3; the table is taken away first, as a reboot does."""
    before = stack.started_at()
    stack.run("nft delete table inet %s", TABLE)
    stack.run("service docker restart")
    stack.wait_until_healthy(started_after=before)

    assert neighbour.reaches(containers(stack) + publications(stack)) == set()


def test_a_firewall_that_is_loaded_anew_does_not_open_it(stack: Stack, neighbour: Neighbour) -> None:
    """Issue line B3: Debian's nftables.service begins with `flush ruleset`, which takes Docker's rules too."""
    if not stack.run("test ! -d /run/systemd/system || echo systemd"):
        pytest.skip("no systemd, no service that does this")
    try:
        for action in ("start", "reload", "restart", "stop"):
            stack.run("systemctl %s nftables", action)
            assert f"table inet {TABLE}" in stack.run("nft list tables").splitlines(), action
        assert neighbour.reaches(containers(stack)) == set()
    finally:
        before = stack.started_at()
        stack.run("service docker restart")
        stack.wait_until_healthy(started_after=before)


@pytest.mark.once
def test_what_is_published_to_all_stays_so(stack: Stack, neighbour: Neighbour) -> None:
    """Issue line B3: without another deployment; and containers reach each other and what is outside."""
    jupyter = stack.services()["jupyter"]
    network = next(iter(jupyter["NetworkSettings"]["Networks"]))
    serve = "docker run --detach --rm --name neighbourly --network %s --publish 18080:8000 --entrypoint python3 %s"
    stack.run(f"{serve} -m http.server 8000", network, jupyter["Image"])
    try:
        door = Door(neighbour.host, 18080)
        wait_until(lambda: neighbour.reaches([door]) == {door}, seconds=20)

        neighbour_address = docker("inspect", "--format={{.NetworkSettings.IPAddress}}", neighbour.name)
        docker("exec", "--detach", neighbour.name, "python3", "-m", "http.server", "8000")
        for address in ("neighbourly", neighbour_address):
            knock = ["python3", "-c", KNOCK, json.dumps([[address, 8000]])]
            wait_until(lambda k=knock: "8000" in stack.execute("jupyter", *k), seconds=20)  # type: ignore[misc]
    finally:
        stack.run("docker rm --force neighbourly")


def test_a_table_that_was_flushed_is_healed_by_the_next_run(stack: Stack, neighbour: Neighbour) -> None:
    """Issue line B3; also shows that an open door would be seen."""
    doors = containers(stack) + publications(stack)
    stack.run("nft delete table inet %s", TABLE)
    assert {door.port for door in neighbour.reaches(doors)} >= {5000, 8888}

    deployment = stack.deploy("--tags=always")

    assert deployment.returncode == 0, deployment.stdout[-2000:]
    assert neighbour.reaches(doors) == set()
    assert changes(stack.deploy("--tags=always").stdout) == 0


def with_options(stack: Stack, options: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """Deploy with options of the engine."""
    return stack.deploy("--tags=always", f"--extra-vars={json.dumps({'docker_daemon_options': options})}")


@pytest.mark.parametrize(
    "options",
    [
        {"no-such-option": True},
        pytest.param({"dns": "1.1.1.1"}, marks=pytest.mark.once),
        pytest.param({"data-root": "srv"}, marks=pytest.mark.once),
    ],
    ids=json.dumps,
)
def test_an_option_that_the_engine_refuses_changes_nothing(stack: Stack, options: dict[str, Any]) -> None:
    """Issue line B5."""
    before = (stack.started_at(), stack.run("cat /etc/docker/daemon.json"))

    refused = with_options(stack, options)

    assert refused.returncode != 0
    assert next(iter(options)) in refused.stdout
    assert changes(refused.stdout) == 0
    assert (stack.started_at(), stack.run("cat /etc/docker/daemon.json")) == before


@pytest.mark.once
def test_a_file_of_the_hosts_own_that_is_not_json_is_refused(stack: Stack) -> None:
    """Issue line B5."""
    kept = stack.run("cat /etc/docker/daemon.json")
    try:
        stack.run("echo '{' > /etc/docker/daemon.json")
        refused = with_options(stack, {"debug": True})
    finally:
        stack.run("printf %s > /etc/docker/daemon.json", kept)

    assert refused.returncode != 0
    assert "/etc/docker/daemon.json is not JSON" in refused.stdout
    assert changes(refused.stdout) == 0


def test_an_engine_that_does_not_start_with_its_options_gets_the_old_ones_back(stack: Stack) -> None:
    """Issue line B5: what the engine itself takes for valid, and then does not start with."""
    before = stack.started_at()
    kept = stack.run("cat /etc/docker/daemon.json")

    # With options for it: without any, the engine finds out only when it makes a container.
    failed = with_options(stack, {"log-driver": "no-such-driver", "log-opts": {"max-size": "1m"}})

    assert failed.returncode != 0
    assert "no-such-driver" in failed.stdout
    assert "The options of before are back" in " ".join(failed.stdout.split())
    assert stack.run("cat /etc/docker/daemon.json") == kept
    stack.wait_until_healthy(started_after=before)


@pytest.mark.once
def test_an_option_holds_and_is_taken_back(stack: Stack) -> None:
    """Issue line B5, and "no decision may hang on a fact that dies with the run"."""

    def debug() -> str:
        return stack.run("docker info --format '{{.Debug}}'").strip()

    kept = stack.run("cat /etc/docker/daemon.json")
    # As a run leaves it that is killed between writing the file and restarting the engine.
    written = json.dumps({"deployment": PROJECT, "options": {"debug": True}})
    command = ["ansible", f"--inventory={stack.inventory}", "--become", "mlflow", "--module-name=docker_options"]
    subprocess.run([*command, f"--args={written}"], cwd=ROOT, check=True, capture_output=True)
    assert debug() == "false"

    for options, expected in [({"debug": True}, "true"), ({}, "false")]:
        before = stack.started_at()
        deployment = with_options(stack, options)
        assert deployment.returncode == 0, deployment.stdout[-2000:]
        stack.wait_until_healthy(started_after=before)
        assert debug() == expected
        started = stack.started_at()
        assert changes(with_options(stack, options).stdout) == 0
        assert stack.started_at() == started  # nothing was restarted for nothing

    assert stack.run("cat /etc/docker/daemon.json") == kept


@pytest.mark.once
def test_an_engine_that_modules_cannot_talk_to_gets_what_they_need(stack: Stack) -> None:
    """As one that somebody has installed from elsewhere: it is left as it is, but for the library."""
    before, kept = stack.started_at(), stack.run("cat /etc/docker/daemon.json")
    stack.run("dpkg --remove --force-depends python3-requests")

    deployment = stack.deploy("--tags=always")

    assert deployment.returncode == 0, deployment.stdout[-2000:]
    assert stack.started_at() == before
    assert stack.run("cat /etc/docker/daemon.json") == kept
    assert changes(stack.deploy("--tags=always").stdout) == 0


@pytest.mark.once
def test_an_engine_that_was_stopped_is_started_as_it_is(stack: Stack) -> None:
    """Issue line B1 of the first hour: it counted as missing, and got options that are for new engines."""
    before, kept = stack.started_at(), stack.run("cat /etc/docker/daemon.json")
    own = '{"log-driver": "json-file"}'
    stack.run("mv %s /run/record", RECORD)  # as if it was not made by a deployment
    stack.run("systemctl stop docker.socket docker; printf %s > /etc/docker/daemon.json", own)
    try:
        deployment = stack.deploy("--tags=always")

        assert deployment.returncode == 0, deployment.stdout[-2000:]
        assert stack.run("cat /etc/docker/daemon.json") == own
        stack.wait_until_healthy(started_after=before)
    finally:
        stack.run("printf %s > /etc/docker/daemon.json", kept)
        stack.run("mv /run/record %s", RECORD)
