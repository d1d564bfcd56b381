"""The deployed stack, as its operator sees it from its host."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

from testinfra.host import Host

ROOT = Path(__file__).parents[3]
PROJECT = "mlflow-stack"

# Sends one request from the host, which is where the services listen. The host has Python, but not always curl.
CLIENT = """
import base64, json, ssl, sys, urllib.error, urllib.request
method, url, headers, body = json.loads(base64.b64decode(sys.argv[1]))
request = urllib.request.Request(url, body and body.encode(), headers, method=method)
try:
    answer = urllib.request.urlopen(request, timeout=60, context=ssl._create_unverified_context())
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode(errors="replace")]))
"""
# Runs a program that comes with its arguments.
PROGRAM = """
import base64, json, sys
program, *sys.argv[1:] = json.loads(base64.b64decode(sys.argv[1]))
exec(program)
"""


class Answer(NamedTuple):
    """HTTP status and body."""

    status: int
    body: str


class Stack:
    """One host with the stack on it."""

    def __init__(self, host: Host, inventory: Path) -> None:
        self.host = host
        self.inventory = inventory
        self.logs_in_as_root = host.user().name == "root"

    def secrets(self) -> dict[str, str]:
        """Every generated secret by its name."""
        return {path.stem: path.read_text().rstrip("\n") for path in (self.inventory / "secrets").iterdir()}

    def run(self, command: str, *arguments: str) -> str:
        """Standard output of a command that root runs on the host; `%s` stands for an argument, quoted.

        AssertionError if the command fails.
        """
        with nullcontext() if self.logs_in_as_root else self.host.sudo():
            output: str = self.host.check_output(command, *arguments)
        return output

    def write(self, path: str, content: str) -> None:
        """Write a file of root's on the host; what it holds shows in no log of the host."""
        encoded = base64.b64encode(content.encode()).decode()
        name = f"/tmp/{path.rpartition('/')[2]}"  # noqa: S108 (the host's own, and moved at once)
        self.host.check_output(f"umask 077 && echo {encoded} | base64 --decode > {name}")
        self.run(f"mv {name} {path}")

    def changed_files(self, since: str) -> list[str]:
        """What was made or changed, in content or attributes, later than a file; what was deleted, by its directory.

        Left out is what is not the host's own state: file systems in memory, logs, Ansible's temporary directory.
        """
        ignored = ("/dev", "/proc", "/run", "/sys", "/tmp", "/var/log", "/root/.ansible", "/home/ops/.ansible")  # noqa: S108
        paths = " -o ".join(f"-path {path}" for path in ignored)
        command = rf"find / /var/lib/docker -xdev \( {paths} \) -prune -o -newercm {since} -print"
        return self.run(command).splitlines()

    def services(self) -> dict[str, dict[str, Any]]:
        """What `docker inspect` says of each service's container, by service; not of tasks that ran to their end."""
        listed = self.run("docker ps --all --quiet --filter label=com.docker.compose.project=" + PROJECT).split()
        containers = json.loads(self.run("docker inspect " + " ".join(listed)))
        return {
            container["Config"]["Labels"]["com.docker.compose.service"]: container
            for container in containers
            if container["HostConfig"]["RestartPolicy"]["Name"] != "no"
        }

    def execute(self, service: str, *arguments: str) -> str:
        """Standard output of a command in the container of a service."""
        placeholders = " %s" * len(arguments)
        return self.run(f"docker exec {PROJECT}-{service}{placeholders}", *arguments)

    def python(self, program: str, *arguments: str) -> Any:  # noqa: ANN401 (as the program decides)
        """What a Python program prints last, as JSON, when run in Jupyter's container like a notebook.

        Not in plain text, as in `request`.
        """
        encoded = base64.b64encode(json.dumps([program, *arguments]).encode()).decode()
        return json.loads(self.execute("jupyter", "python", "-c", PROGRAM, encoded).splitlines()[-1])

    def request(
        self, method: str, url: str, *, account: str = "", body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """Send a request from the host; `account` is USER:PASSWORD, `body` is sent as JSON.

        Neither as root nor in plain text: sudo and Ansible write what is run to the log of the host, with passwords.
        """
        sent = {"Content-Type": "application/json"} | (headers or {})
        if account:
            sent["Authorization"] = "Basic " + base64.b64encode(account.encode()).decode()
        question = base64.b64encode(json.dumps([method, url, sent, body and json.dumps(body)]).encode())
        return Answer(*json.loads(self.host.check_output("python3 -c %s %s", CLIENT, question.decode())))

    def wait_until_healthy(self, started_after: dict[str, str] | None = None, seconds: float = 180) -> None:
        """Return when all services are healthy, each started anew if `started_after` says when it last had."""
        before = started_after or {}

        def healthy() -> bool:
            if not self.run("docker version --format '{{.Server.Version}}' 2>/dev/null || true").strip():
                return False  # an engine that is on its way
            states = {service: container["State"] for service, container in self.services().items()}
            return all(
                state.get("Health", {}).get("Status", state["Status"]) in ("healthy", "running")
                and state["StartedAt"] != before.get(service)
                for service, state in states.items()
            )

        wait_until(healthy, seconds)

    def started_at(self) -> dict[str, str]:
        """When each service has started."""
        return {service: container["State"]["StartedAt"] for service, container in self.services().items()}

    def config(self, service: str) -> str:
        """The directory on the host that a service has its configuration mounted from."""
        mounts = self.services()[service]["Mounts"]
        return next(str(mount["Source"]) for mount in mounts if mount["Destination"] == "/etc/mlflow-stack")

    def begin(self, *arguments: str, playbook: str = "site.yml", **environment: str) -> subprocess.Popen[str]:
        """Start a playbook, the deployment itself if none is named, from this machine as its operator would."""
        return subprocess.Popen(
            ["ansible-playbook", f"--inventory={self.inventory}", *arguments, playbook],  # noqa: S607
            cwd=ROOT,
            env=os.environ
            | {"ANSIBLE_CONFIG": str(ROOT / "ansible.cfg"), "PYTHONUNBUFFERED": "1"}
            | {"ANSIBLE_FORCE_COLOR": "false"}  # which molecule sets, and which breaks sentences
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def deploy(self, *arguments: str, playbook: str = "site.yml") -> subprocess.CompletedProcess[str]:
        """Run a playbook to its end."""
        run = self.begin(*arguments, playbook=playbook)
        output, _ = run.communicate()
        return subprocess.CompletedProcess(run.args, run.returncode, output, "")

    def kill(self, how: signal.Signals, moment: str, *arguments: str) -> None:
        """Begin a deployment, and send a signal to it with all its processes when a task begins."""
        run = self.begin(*arguments, ANSIBLE_STDOUT_CALLBACK="default")  # which names a task when it begins
        assert run.stdout
        output = []
        for line in run.stdout:
            output.append(line)
            if line.startswith(f"TASK [{moment}"):
                break
        else:
            raise AssertionError(f"The run has no task {moment}:\n" + "".join(output[-60:]))
        os.killpg(run.pid, how)
        try:
            run.communicate(timeout=15)
        except subprocess.TimeoutExpired:  # Ansible may hang when it is interrupted; who sees that closes the terminal
            os.killpg(run.pid, signal.SIGKILL)
            run.communicate()


def changes(output: str) -> int:
    """How many changes a run has counted, on all hosts."""
    return sum(int(count) for count in re.findall(r" changed=(\d+) ", output))


def wait_until(condition: Callable[[], bool], seconds: float) -> None:
    """Return as soon as the condition holds; TimeoutError if that takes too long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{condition.__qualname__} did not come true in {seconds} s")
        time.sleep(1)
