"""What the tests of all scenarios share."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack import Stack
from testinfra.host import Host


@pytest.fixture(scope="module")
def host(host: Host) -> Host:
    """The test host, as root: through sudo for those who log in as somebody else."""
    host.backend.sudo = host.user().name != "root"
    return host


@pytest.fixture(scope="module")
def stack(host: Host, request: pytest.FixtureRequest) -> Stack:
    """The stack that the scenario has deployed to the host."""
    return Stack(host, inventory=Path(request.config.getoption("ansible_inventory")))
