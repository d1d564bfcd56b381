"""Callback that loads in ansible-playbook itself what each of its workers would load for itself."""

from __future__ import annotations

from pathlib import Path

from ansible.playbook import Playbook
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, test_loader

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load plugins once, not once a task
description:
  - Ansible forks a worker for each task, which loads the plugins that it needs, and forgets them. What was loaded
    before, it shares. Without this callback all is the same, but slower.
author: mlflow-stack contributors
"""


LOOKUPS = Path(__file__).parents[1] / "lookup_plugins"


class CallbackModule(CallbackBase):  # type: ignore[misc]
    """Reports nothing."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "aggregate"
    CALLBACK_NAME = "preload"

    def v2_playbook_on_start(self, playbook: Playbook) -> None:  # noqa: ARG002 (as it is called)
        """Load the filters and tests of Ansible, and the lookups of this project."""
        for loader in (filter_loader, test_loader):
            list(loader.all())
        for path in LOOKUPS.glob("*.py"):
            lookup_loader.get(path.stem)
