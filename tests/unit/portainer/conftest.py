"""Fixtures: Portainer's stand-in, Docker engines, and the module to run against them."""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import portainer_environment
import pytest
from ansible.module_utils.testing import patch_module_args
from portainer_harness import PASSWORD, REPO, Run, Standin, docker_engine

sys.path[:0] = [str(REPO / "tests/portainer_standin"), str(REPO / "tests/unit")]


@pytest.fixture
def engine() -> Iterator[str]:
    with docker_engine() as url:
        yield url


@pytest.fixture
def another_engine() -> Iterator[str]:
    with docker_engine() as url:
        yield url


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Standin]:
    """A Portainer that does not run yet."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    standin = Standin(tmp_path, port)
    yield standin
    standin.stop()


@pytest.fixture
def standin(stopped: Standin) -> Standin:
    """A Portainer that has just been started."""
    stopped.start()
    return stopped


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], stopped: Standin) -> Run:
    """Run the module against the stand-in and return its result; `failed` is in it when it failed."""

    def run(check_mode: bool = False, **parameters: Any) -> dict[str, Any]:  # noqa: ANN401 as the module's own
        arguments = {
            "portainer_url": stopped.url,
            "password": PASSWORD,
            "validate_certs": False,
            "name": "local",
            "start_timeout": 20,
            "_ansible_check_mode": check_mode,
            **parameters,
        }
        with patch_module_args(arguments), pytest.raises(SystemExit):
            portainer_environment.main()
        output = capsys.readouterr().out
        assert arguments["password"] not in output
        result: dict[str, Any] = json.loads(output)
        return result

    return run
