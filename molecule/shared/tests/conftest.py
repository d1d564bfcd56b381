"""What the tests of all scenarios share."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack import Stack
from testinfra.host import Host


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are marked `once` take their time and depend on nothing that is special to a kind of host."""
    if Path(config.getoption("ansible_inventory")).parent.name != "default":
        for item in items:
            if item.get_closest_marker("once"):
                item.add_marker(pytest.mark.skip(reason="once is enough, in the scenario default"))


@pytest.fixture(scope="module")
def stack(host: Host, request: pytest.FixtureRequest) -> Stack:
    """The test host with the stack that the scenario deploys to it."""
    return Stack(host, inventory=Path(request.config.getoption("ansible_inventory")))
