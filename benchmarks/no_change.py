"""The time of a deployment that changes nothing, and that of a playbook written by hand for the same containers.

    python benchmarks/no_change.py -i inventory/local --rounds 5

The second playbook gathers facts once and has one docker_container task for each container of the stack that runs on
the inventory's hosts, made from what Docker says of them. Both use the project's ansible.cfg and take turns, so that a
busy moment of the machine meets both alike. Fails if a run changes anything, or if the ratio of medians is above 1.2.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]
LIMIT = 1.2

Json = dict[str, Any]


def main() -> None:
    arguments = _arguments()
    inventory = arguments.inventory.resolve()
    with tempfile.TemporaryDirectory() as directory:
        plays = _plays(_containers(inventory, arguments.project, Path(directory)))
        hand_written = _write(Path(directory) / "hand_written.yml", plays)
        site = REPO / "site.yml"
        # Docker's words must come back as they are: a difference would make the containers anew.
        _seconds(inventory, hand_written, "--check")
        _seconds(inventory, site)
        rounds = [(_seconds(inventory, site), _seconds(inventory, hand_written)) for _ in range(arguments.rounds)]
    ours, theirs = zip(*rounds, strict=True)
    ratio = statistics.median(ours) / statistics.median(theirs)
    print("| playbook | median, s | fastest | slowest |\n| --- | --- | --- | --- |")
    print(_row("site.yml", ours))
    print(_row(f"gather_facts and {sum(len(play['tasks']) for play in plays)} times docker_container", theirs))
    print(f"Ratio of the medians: {ratio:.2f}, the limit is {LIMIT}.")
    sys.exit(ratio > LIMIT)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("-i", "--inventory", type=Path, default=REPO / "inventory/local")
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each playbook")
    parser.add_argument("--project", default="mlflow-stack", help="stack_name of the deployment")
    return parser.parse_args()


def _play(inventory: Path, playbook: Path, *options: str) -> str:
    """Run a playbook with the project's configuration; returns what it prints."""
    environment = {**os.environ, "ANSIBLE_CONFIG": str(REPO / "ansible.cfg"), "ANSIBLE_NOCOLOR": "1"}
    command = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(inventory), *options, str(playbook)]
    done = subprocess.run(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        sys.exit(f"{done.stdout}\nThis failed: {' '.join(command)}")
    return done.stdout


def _seconds(inventory: Path, playbook: Path, *options: str) -> float:
    """The time that one run of a playbook takes, which must change nothing."""
    start = time.perf_counter()
    output = _play(inventory, playbook, *options)
    seconds = time.perf_counter() - start
    if any(int(count) for count in re.findall(r" changed=(\d+) ", output)):
        sys.exit(f"{output}\nThis run changed something, so its time says nothing: deploy first.")
    return seconds


def _row(name: str, seconds: tuple[float, ...]) -> str:
    return f"| {name} | {statistics.median(seconds):.1f} | {min(seconds):.1f} | {max(seconds):.1f} |"


def _write(playbook: Path, plays: list[Json]) -> Path:
    playbook.write_text(json.dumps(plays))  # which is YAML too
    return playbook


def _containers(inventory: Path, project: str, directory: Path) -> dict[str, list[Json]]:
    """The stack's running containers by host, as `docker inspect` describes them."""
    label = f"label=com.docker.compose.project={project}"
    ask = f"docker ps --quiet --filter {label} | xargs --no-run-if-empty docker inspect"
    answers = directory / "answers"
    answers.mkdir()
    tasks: list[Json] = [
        {"ansible.builtin.shell": ask, "register": "answer"},
        {
            "ansible.builtin.copy": {
                "content": "{{ answer.stdout }}",
                "dest": f"{answers}/{{{{ inventory_hostname }}}}",
            },
            "delegate_to": "localhost",
            "become": False,
        },
    ]
    plays = [{"hosts": "all", "become": True, "gather_facts": False, "tasks": tasks}]
    _play(inventory, _write(directory / "ask.yml", plays))
    containers = {path.name: json.loads(path.read_text() or "[]") for path in answers.iterdir()}
    if not any(containers.values()):
        sys.exit(f"No container of {project} runs on the hosts of {inventory}: deploy it, or name it by --project.")
    return containers


def _plays(containers: dict[str, list[Json]]) -> list[Json]:
    """The playbook: a play for each host."""
    return [
        {"hosts": host, "become": True, "gather_facts": True, "tasks": [_task(container) for container in found]}
        for host, found in containers.items()
        if found
    ]


def _task(container: Json) -> Json:
    """The task that describes one container, in the words that a person would write it with."""
    config, host = container["Config"], container["HostConfig"]
    ports = [
        ":".join(filter(None, [binding["HostIp"], binding["HostPort"], port]))
        for port, bindings in (host["PortBindings"] or {}).items()
        for binding in bindings
    ]
    options = {
        "name": container["Name"].removeprefix("/"),
        "image": config["Image"],
        "pull": "never",
        "hostname": config["Hostname"],
        "user": config["User"],
        "command": config["Cmd"],
        "command_handling": "correct",
        "env": dict(variable.split("=", 1) for variable in config["Env"]),
        "volumes": host["Binds"],
        "tmpfs": [f"{path}:{settings}" for path, settings in (host.get("Tmpfs") or {}).items()],
        "read_only": host["ReadonlyRootfs"],
        "published_ports": ports,
        "default_host_ip": "",
        "networks": [{"name": name} for name in container["NetworkSettings"]["Networks"]],
        "cap_drop": host["CapDrop"],
        "security_opts": host["SecurityOpt"],
        "memory": str(host["Memory"]),
        "labels": config["Labels"],
        "restart_policy": host["RestartPolicy"]["Name"],
        "state": "started",
    }
    set_options = {option: value for option, value in options.items() if value not in (None, [])}
    return {"name": f"Run {options['name']}", "community.docker.docker_container": set_options}


if __name__ == "__main__":
    main()
