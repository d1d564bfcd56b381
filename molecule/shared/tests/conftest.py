"""What the tests of all scenarios share."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack import Stack
from testinfra.host import Host


@pytest.fixture(scope="module")
def stack(host: Host, request: pytest.FixtureRequest) -> Stack:
    """The test host with the stack that the scenario deploys to it."""
    return Stack(host, inventory=Path(request.config.getoption("ansible_inventory")))
