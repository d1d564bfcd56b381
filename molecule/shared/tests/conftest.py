"""What the tests of all scenarios share."""

from __future__ import annotations

from pathlib import Path

import pytest
from stack import Stack
from testinfra.host import Host


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests that are marked `once` take their time and depend on nothing that is special to a kind of host.

    They run in one scenario, `default` unless the marker names another, so that both take about as long.
    """
    scenario = Path(config.getoption("ansible_inventory")).parent.name
    for item in items:
        marker = item.get_closest_marker("once")
        where = marker.kwargs.get("where", "default") if marker else scenario
        if where != scenario:
            item.add_marker(pytest.mark.skip(reason=f"once is enough, in the scenario {where}"))


@pytest.fixture(scope="module")
def stack(host: Host, request: pytest.FixtureRequest) -> Stack:
    """The test host with the stack that the scenario deploys to it."""
    return Stack(host, inventory=Path(request.config.getoption("ansible_inventory")))
