"""Who logs while the platform is changed under him loses nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from stack import Stack, wait_until

pytestmark = pytest.mark.once  # the client is the image's own, which fits a host of the image's Debian

CLIENT = Path(__file__).parents[1] / "steady_client.py"
DIRECTORY = "/run/steady"
Report = dict[str, object]


@pytest.fixture(scope="module")
def python(stack: Stack) -> str:
    """The image's Python with MLflow on the host itself, where a restart of the engine does not end it."""
    image = stack.services()["mlflow"]["Config"]["Image"]
    stack.run(f"docker cp $(docker create --name steady {image}):/opt/mlflow /opt/mlflow && docker rm steady")
    return "/opt/mlflow/bin/python"


@pytest.fixture
def stop(stack: Stack, python: str) -> Iterator[Callable[[], Report]]:
    """A client that logs without pause; the call stops it and gives its report."""
    credentials = (
        "[mlflow]\nmlflow_tracking_username = jupyter\n"
        f"mlflow_tracking_password = {stack.secrets()['jupyter_mlflow_password']}\n"
    )
    stack.run(f"mkdir -p {DIRECTORY}/home/.mlflow && chmod 0700 {DIRECTORY}")
    stack.write(f"{DIRECTORY}/home/.mlflow/credentials", credentials)
    stack.write(f"{DIRECTORY}/client.py", CLIENT.read_text())
    settings = f"HOME={DIRECTORY}/home MLFLOW_TRACKING_URI=http://127.0.0.1:5000 MLFLOW_DISABLE_TELEMETRY=true"
    arguments = f"{DIRECTORY}/client.py {DIRECTORY}/stop {DIRECTORY}/report"
    stack.run(f"cd {DIRECTORY} && {settings} setsid {python} {arguments} > {DIRECTORY}/log 2>&1 & sleep 15")

    def stop() -> Report:
        stack.run(f"touch {DIRECTORY}/stop")
        wait_until(lambda: stack.run(f"cat {DIRECTORY}/report 2>/dev/null || true") != "", seconds=400)
        report: Report = json.loads(stack.run(f"cat {DIRECTORY}/report"))
        print(report)
        return report

    yield stop
    stack.run(f"touch {DIRECTORY}/stop; sleep 2; rm -r {DIRECTORY}")


def test_changes_lose_nothing(stack: Stack, stop: Callable[[], Report], tmp_path: Path) -> None:
    """Issue line A5, and "it must hold": passwords, certificates and settings change, the engine restarts."""
    secrets = tmp_path / "secrets"
    shutil.copytree(stack.inventory / "secrets", secrets)
    (secrets / "ftp_certificate.txt").unlink()
    (secrets / "ftp_password.txt").write_text("another-password-of-ftp\n")
    changed = {"stack_secrets_dir": str(secrets), "postgres_settings": {"work_mem": "8MB"}, "mlflow_workers": 1}

    for options in ((f"--extra-vars={json.dumps(changed)}",), ()):
        deployment = stack.deploy(*options)
        assert deployment.returncode == 0, deployment.stdout[-3000:]
    before = stack.started_at()
    stack.run("service docker restart")
    stack.wait_until_healthy(started_after=before)

    report = stop()
    assert report["failed"] == []
    assert report["lost"] == []
    assert isinstance(report["runs"], int)
    assert report["runs"] > 20
