"""Callback that loads in ansible-playbook itself what each of its workers would load for itself."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from ansible import constants
from ansible.executor.module_common import modify_module
from ansible.parsing.dataloader import DataLoader
from ansible.playbook import Playbook
from ansible.plugins.callback import CallbackBase
from ansible.plugins.loader import filter_loader, lookup_loader, module_loader, test_loader
from ansible.template import Templar

DOCUMENTATION = """
name: preload
type: aggregate
short_description: Load plugins once, not once a task
description:
  - Ansible forks a worker for each task, which loads the plugins that it needs, and forgets them. What was loaded
    before, it shares. And it puts each module together with all that it imports when a task first sends it; those
    that every run sends are put together beside the first tasks. Without this callback all is the same, but slower.
author: mlflow-stack contributors
"""


LOOKUPS = Path(__file__).parents[1] / "lookup_plugins"
# What a run sends that changes nothing, in its order.
MODULES = ("deployment_lock", "mlflow_info", "mlflow_model")


def assemble(modules: Iterable[str]) -> None:
    """Have Ansible put modules together for the workers of this run; one that comes first does it itself, or waits."""
    with suppress(Exception, KeyboardInterrupt):
        for name in modules:
            modify_module(
                module_name=name,
                module_path=module_loader.find_plugin(name),
                module_args={},
                templar=Templar(DataLoader()),
                task_vars={"ansible_python_interpreter": sys.executable},  # which is not looked for then, and not kept
                module_compression=constants.DEFAULT_MODULE_COMPRESSION,
            )


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
        get_context("fork").Process(target=assemble, args=(MODULES,), daemon=True).start()
