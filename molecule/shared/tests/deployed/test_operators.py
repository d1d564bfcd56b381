"""A second operator, a second deployment, an interruption: nothing of it breaks the platform."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from stack import Stack, changes, wait_until

pytestmark = pytest.mark.once(where="bare")  # what runs on the control node does not depend on the kind of host

SECOND = {
    "stack_name": "second",
    "mlflow_port": 6000,
    "jupyter_port": 6888,
    "portainer_port": 6443,
    "serving_models": [],
}
# Prints what a small artifact holds that is logged and read back.
ROUND_TRIP = """
import json, mlflow
mlflow.set_experiment("operators")
with mlflow.start_run() as run:
    mlflow.log_text("kept", "note.txt")
print(json.dumps(mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/note.txt")))
"""


def variables(values: dict[str, object]) -> str:
    """The option that sets variables."""
    return f"--extra-vars={json.dumps(values)}"


def words_of(deployment: subprocess.CompletedProcess[str]) -> str:
    """All that a run printed, on one line."""
    return " ".join((deployment.stdout + deployment.stderr).split())


def assert_changes_nothing(stack: Stack, *arguments: str) -> None:
    """A run ends well and has nothing to do."""
    deployment = stack.deploy(*arguments)
    assert deployment.returncode == 0, deployment.stdout[-3000:]
    assert changes(deployment.stdout) == 0, deployment.stdout


def assert_works(stack: Stack) -> None:
    """All services are healthy, an artifact comes back, and nothing of an earlier run lies about."""
    stack.wait_until_healthy()
    assert stack.python(ROUND_TRIP) == "kept"
    assert stack.run("docker ps --all --quiet --filter name=-previous") == ""
    assert stack.run("ls /run/mlflow-stack.lock 2>/dev/null || true") == ""
    directories = stack.run("find /etc/mlflow-stack -mindepth 2 -maxdepth 2 -type d").split()
    assert len({Path(directory).parent for directory in directories}) == len(directories)  # one of each service
    assert {stack.config(service) for service in stack.services()} <= set(directories)


@pytest.fixture(scope="class")
def second(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Options of a second deployment, by another operator; it is removed at the end."""
    options = variables(SECOND | {"stack_secrets_dir": str(tmp_path_factory.mktemp("second") / "secrets")})
    deployment = stack.deploy(options)
    assert deployment.returncode == 0, deployment.stdout[-3000:]
    yield options
    removal = stack.deploy(options, "--extra-vars=purge=second", playbook="playbooks/uninstall.yml")
    assert removal.returncode == 0, removal.stdout[-3000:]


class TestSecondDeployment:
    """Issue line A1: two deployments on one host live side by side."""

    def test_both_run(self, stack: Stack, second: str) -> None:
        started = stack.started_at()
        wait_until(lambda: "second-mlflow" in stack.run("docker ps --filter health=healthy"), seconds=30)

        stack.run("docker restart $(docker ps --quiet --filter label=com.docker.compose.project=mlflow-stack)")

        stack.wait_until_healthy(started_after=started)
        assert_works(stack)
        assert_changes_nothing(stack)
        assert_changes_nothing(stack, second)

    def test_one_goes_and_the_other_does_not_notice(self, stack: Stack, second: str) -> None:
        started = stack.started_at()

        kept = stack.deploy(second, playbook="playbooks/uninstall.yml")

        assert "second_postgres" in words_of(kept)
        assert "second_postgres" in stack.run("docker volume ls")
        assert stack.run("docker ps --all --quiet --filter label=com.docker.compose.project=second") == ""
        purge = stack.deploy(second, "--extra-vars=purge=second", playbook="playbooks/uninstall.yml")
        assert purge.returncode == 0, purge.stdout[-3000:]
        names = "docker ps --all --format '{{.Names}}'; docker volume ls; docker network ls"
        files = "ls -d /etc/second* /etc/ansible/facts.d/* /etc/docker/*/*"
        assert "second" not in stack.run(f"({names}; {files}) 2>/dev/null || true")
        assert stack.started_at() == started
        assert_changes_nothing(stack)

    def test_another_name_to_purge(self, stack: Stack) -> None:
        refused = stack.deploy("--extra-vars=purge=mlflow", playbook="playbooks/uninstall.yml")

        assert refused.returncode != 0
        assert "purge=mlflow-stack" in words_of(refused)
        assert_works(stack)


def assert_refused(stack: Stack, *arguments: str, words: tuple[str, ...]) -> None:
    """A run fails in the preflight, with a message that has all these words, and leaves the host untouched."""
    stack.run("touch /run/before-refusal")
    started = time.monotonic()

    deployment = stack.deploy(*arguments)

    output = words_of(deployment)
    assert deployment.returncode != 0
    assert [word for word in words if word not in output] == [], output
    ours = [path for path in stack.changed_files(since="/run/before-refusal") if "/var/lib/docker" not in path]
    assert ours == []
    assert stack.run("ls /run/mlflow-stack.lock 2>/dev/null || true") == ""
    assert time.monotonic() - started < 60


class TestForeign:
    """What belongs to somebody else is refused by name, before the first change."""

    def test_another_s_directory(self, stack: Stack) -> None:
        """Issue line A1."""
        options = variables(SECOND | {"stack_config_root": "/etc/mlflow-stack"})
        assert_refused(stack, options, words=("stack_config_root", "the deployment mlflow-stack", "/etc/second"))

    def test_a_directory_of_the_host_s_own(self, stack: Stack) -> None:
        """Issue line B4: a deployment removed what lay in its directories."""
        stack.run("mkdir -p /srv/data/ftp && echo precious > /srv/data/ftp/file")
        options = variables(SECOND | {"stack_config_root": "/srv/data"})

        assert_refused(stack, options, words=("stack_config_root", "/srv/data/ftp", "a directory of its own"))

        assert stack.run("cat /srv/data/ftp/file").strip() == "precious"
        stack.run("rm -r /srv/data")

    def test_a_volume_of_somebody_else(self, stack: Stack) -> None:
        """Issue line A1."""
        stack.run("docker volume create second_postgres")
        try:
            assert_refused(stack, variables(SECOND), words=("volume second_postgres", "not of mlflow-stack"))
        finally:
            stack.run("docker volume rm second_postgres")

    def test_ports_of_another_deployment(self, stack: Stack) -> None:
        """Issue line A7: a renamed stack_name took the platform's own containers for a foreign program."""
        words = ("Port 5000", "the container mlflow-stack-mlflow of mlflow-stack", "mlflow_port")
        assert_refused(stack, variables(SECOND | {"mlflow_port": 5000}), words=words)

    def test_a_port_that_changes_to_a_taken_one(self, stack: Stack) -> None:
        """Issue line A7: MLflow was taken down for it."""
        stack.run("setsid python3 -m http.server --bind 127.0.0.1 5998 > /dev/null 2>&1 & echo $! > /run/taken")
        wait_until(lambda: ":5998 " in stack.run("ss --listening --tcp --numeric"), seconds=10)
        try:
            assert_refused(stack, variables({"mlflow_port": 5998}), words=("Port 5998", "python3", "mlflow_port"))
        finally:
            stack.run("kill $(cat /run/taken)")


class TestSecrets:
    """Issue line A2: a host knows which deployment it carries."""

    def test_a_fresh_clone_with_no_secrets(self, stack: Stack, tmp_path: Path) -> None:
        secrets = tmp_path / "secrets"
        words = ("carries the deployment mlflow-stack", "no authority", str(secrets), "uninstall.yml", "stack_name")

        assert_refused(stack, variables({"stack_secrets_dir": str(secrets)}), words=words)

        assert not secrets.exists()  # nothing was generated

    def test_secrets_of_another_deployment(self, stack: Stack, tmp_path: Path) -> None:
        other = "openssl req -x509 -newkey rsa:2048 -nodes -keyout - -out - -subj /CN=other -days 9"
        issued = subprocess.run(other.split(), check=True, capture_output=True, text=True)
        (tmp_path / "authority.txt").write_text(issued.stdout)
        (tmp_path / "authority.txt").chmod(0o600)

        words = ("carries the deployment mlflow-stack", "authority of another one")
        assert_refused(stack, variables({"stack_secrets_dir": str(tmp_path)}), words=words)

    def test_data_on_an_engine_that_does_not_run_yet(self, stack: Stack, tmp_path: Path) -> None:
        """As after the system was installed anew beside Docker's old disk: new secrets would not fit its database."""
        before, secrets = stack.started_at(), tmp_path / "secrets"
        system = "/etc/mlflow-stack /etc/ansible/facts.d"
        stack.run(f"service docker stop && mkdir /etc/old && mv {system} /etc/old")  # a rename: no ctime changes
        try:
            refused = stack.deploy(variables({"stack_secrets_dir": str(secrets)}))

            assert refused.returncode != 0
            assert "carries the deployment mlflow-stack" in words_of(refused)
            assert str(secrets) in words_of(refused)
            assert not secrets.exists()  # nothing was generated
        finally:
            stack.run(f"service docker stop; rm -rf {system}; mv /etc/old/mlflow-stack /etc")
            stack.run("mv /etc/old/facts.d /etc/ansible; rmdir /etc/old; service docker start")
        stack.wait_until_healthy(started_after=before)
        assert_changes_nothing(stack)

    @pytest.mark.parametrize("name", ["authority", "postgres_password", "ftp_password"])
    def test_a_secret_that_is_lost(self, stack: Stack, tmp_path: Path, name: str) -> None:
        secrets = tmp_path / "secrets"
        shutil.copytree(stack.inventory / "secrets", secrets)
        (secrets / f"{name}.txt").unlink()

        words = ("carries the deployment mlflow-stack", name.partition("_")[0], str(secrets))
        assert_refused(stack, variables({"stack_secrets_dir": str(secrets)}), words=words)

        assert not (secrets / f"{name}.txt").exists()

    def test_another_password_of_postgresql(self, stack: Stack) -> None:
        words = ("another postgres_password", "a run cannot change")
        assert_refused(stack, variables({"postgres_password": "another-password"}), words=words)

    def test_a_second_control_node(self, stack: Stack, tmp_path: Path) -> None:
        """With the same secrets it has nothing to do."""
        shutil.copytree(stack.inventory / "secrets", tmp_path / "secrets")
        assert_changes_nothing(stack, variables({"stack_secrets_dir": str(tmp_path / "secrets")}))


class TestLock:
    """Issue line A6: one deployment at a time on a host."""

    LOCK = "/run/mlflow-stack.lock"

    def test_a_second_run_is_refused_and_the_first_goes_on(self, stack: Stack) -> None:
        first = stack.begin(variables({"ftp_max_connections": 255}), "--tags=ftp")
        wait_until(lambda: stack.run(f"ls {self.LOCK} 2>/dev/null || true") != "", seconds=60)

        second = stack.deploy("--tags=ftp")

        assert second.returncode != 0
        assert "is being deployed to by another run" in words_of(second)
        assert "site.yml from" in words_of(second)
        assert "Mend the cause" not in words_of(second)
        output, _ = first.communicate(timeout=300)
        assert first.returncode == 0, output[-3000:]
        assert stack.deploy("--tags=ftp").returncode == 0
        assert_works(stack)

    def test_who_only_looks_leaves_no_lock(self, stack: Stack) -> None:
        look = stack.deploy(playbook="playbooks/preflight.yml")

        assert look.returncode == 0, look.stdout[-3000:]
        assert stack.run(f"ls {self.LOCK} 2>/dev/null || true") == ""

    def test_the_lock_of_a_run_elsewhere_can_be_broken(self, stack: Stack) -> None:
        holder = {"id": "eve@laptop:1:2", "user": "eve", "from": "laptop", "machine": "another", "what": "site.yml"}
        stack.run(f"echo %s > {self.LOCK}", json.dumps(holder))

        refused = stack.deploy("--tags=ftp")
        assert refused.returncode != 0
        assert "eve runs site.yml from laptop" in words_of(refused)
        assert "stack_break_lock=eve@laptop:1:2" in words_of(refused)

        broken = stack.deploy("--tags=ftp", "--extra-vars=stack_break_lock=eve@laptop:1:2")
        assert broken.returncode == 0, broken.stdout[-3000:]
        assert stack.run(f"ls {self.LOCK} 2>/dev/null || true") == ""


class TestDrift:
    """A container is right when what it has mounted is what its definition says, whoever changed what, when."""

    def test_a_repaired_file_reaches_the_process_that_has_loaded_the_wrong_one(self, stack: Stack) -> None:
        """Issue line A3."""
        file = stack.config("ftp") + "/server.json"
        stack.run(f"cp -p {file} /run/right && sed -i s/30099/30001/ {file} && docker restart mlflow-stack-ftp")
        stack.run(f"cp -p /run/right {file}")
        started = stack.started_at()["ftp"]

        deployment = stack.deploy("--tags=ftp")

        assert deployment.returncode == 0, deployment.stdout[-3000:]
        assert stack.started_at()["ftp"] != started
        assert_works(stack)

    def test_a_directory_that_was_opened_is_closed_again(self, stack: Stack) -> None:
        """Issue line B7."""
        stack.run("chmod 0755 /etc/mlflow-stack/ftp")

        assert stack.deploy("--tags=ftp").returncode == 0

        assert stack.run("stat --format '%a %u:%g' /etc/mlflow-stack/ftp").strip() == "750 0:64720"

    def test_a_container_that_lost_its_network(self, stack: Stack) -> None:
        """Issue part C."""
        stack.run("docker network disconnect mlflow-stack_stores mlflow-stack-ftp")

        assert stack.deploy("--tags=ftp").returncode == 0

        assert_works(stack)


def test_what_fails_to_start_is_put_back(stack: Stack) -> None:
    """Issue line A7, and part C: no whole `docker inspect` in front of the message."""
    no_key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
    broken = {"ftp_certificate_key": no_key, "container_start_timeout": 15}

    deployment = stack.deploy(variables(broken), "--tags=ftp")

    assert deployment.returncode != 0
    assert "mlflow-stack-ftp" in deployment.stdout
    assert "The container that ran before is back in its place" in deployment.stdout
    assert "GraphDriver" not in deployment.stdout
    stack.wait_until_healthy()
    assert stack.python(ROUND_TRIP) == "kept"
    assert stack.deploy("--tags=ftp").returncode == 0
    assert_works(stack)


def test_a_build_that_fails_changes_nothing_that_runs(stack: Stack, tmp_path: Path) -> None:
    """Issue line A5: services changed one by one, each after its own build."""
    (tmp_path / "Dockerfile").write_text("FROM mlflow-stack/debian:trixie\nRUN false\n")
    started = stack.started_at()

    broken = {"mlflow_image_build": {"context": str(tmp_path)}, "ftp_max_connections": 240}
    deployment = stack.deploy(variables(broken))

    assert deployment.returncode != 0
    assert "site.yml has not come to its end" in words_of(deployment)
    assert stack.started_at() == started
    assert_works(stack)


# Signals and the tasks at whose beginning they are sent: the host goes on with what it was told last.
MOMENTS = [
    (signal.SIGKILL, "deployment : begin"),
    (signal.SIGKILL, "deployment : record | Write the local fact"),
    (signal.SIGKILL, "container : change | Write the configuration files"),
    (signal.SIGKILL, "container : run | Set the old container aside"),
    (signal.SIGKILL, "container : set_aside | Stop the old container"),
    (signal.SIGINT, "container : set_aside | Stop the old container"),
    (signal.SIGKILL, "container : set_aside | Keep it under another name"),
    (signal.SIGKILL, "container : run | Start"),
    (signal.SIGINT, "container : run | Await the health"),
    (signal.SIGKILL, "container : change | Remember its configuration"),
    (signal.SIGKILL, "container : tidy | Remove the predecessor"),
    (signal.SIGKILL, "container : tidy | Remove the configurations"),
    (signal.SIGKILL, "deployment : end"),
]


class TestKilled:
    """Issue line A4: any run, killed anywhere, is healed by the next one."""

    @pytest.mark.parametrize("moment", range(len(MOMENTS)), ids=[f"{how.name} at {task}" for how, task in MOMENTS])
    def test_it_is_healed(self, stack: Stack, moment: int) -> None:
        """The configuration of the FTP server changes, each time to another one."""
        how, task = MOMENTS[moment]
        wanted = 200 + moment
        # Another password changes the record of the deployment, and with these tags nothing else.
        changed = {"ftp_max_connections": wanted, "jupyter_password": f"jupyter-password-{wanted}"}
        options = ("--tags=ftp", variables(changed))
        stack.kill(how, task, *options)

        healing = stack.deploy(*options)

        assert healing.returncode == 0, healing.stdout[-3000:]
        settings = json.loads(stack.execute("ftp", "cat", "/etc/mlflow-stack/server.json"))
        assert settings["max_connections"] == wanted
        assert stack.run("docker ps --all --quiet --filter name=-previous") == ""

    def test_power_is_lost(self, stack: Stack) -> None:
        """In the middle of the switch: what runs is killed, and so is the engine; nothing of the run goes on."""
        options = ("--tags=ftp", variables({"ftp_max_connections": 199}))
        stack.kill(signal.SIGKILL, "container : set_aside | Keep it under another name", *options)
        stack.run("pkill --signal KILL 'dockerd|containerd'; while pgrep dockerd > /dev/null; do sleep 0.1; done")
        stack.run("rm /run/mlflow-stack.lock; service docker start")

        assert stack.deploy(*options).returncode == 0
        assert_works(stack)

    def test_afterwards_all_is_well(self, stack: Stack) -> None:
        assert stack.deploy().returncode == 0
        assert_works(stack)
        assert_changes_nothing(stack)
