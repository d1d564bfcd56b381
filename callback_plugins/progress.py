"""Callback that shows an operator what a run does: a line for each thing that it changes, and signs of life."""

from __future__ import annotations

import threading
import time
from typing import Any

from ansible import constants as C  # noqa: N812 (as all of Ansible calls it)
from ansible import context
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback.default import CallbackModule as Default
from ansible.utils.color import stringc

DOCUMENTATION = """
name: progress
type: stdout
short_description: A line for each thing that a run changes
description:
  - Shows each play when it begins, each task that has changed something when it is through, with the time since the run
    began and how long the task took, and of a task that takes long, every now and then, that it still runs.
  - Failures, differences and the recap are those of P(ansible.builtin.default#callback), as is all with C(-v).
options:
  sign_of_life:
    description: Seconds after which a task that still runs is shown, for the first time; then after twice that time.
    type: float
    default: 20
    env: [{name: MLFLOW_STACK_SIGN_OF_LIFE}]
    ini: [{section: progress, key: sign_of_life}]
extends_documentation_fragment:
  - default_callback
  - result_format_callback
author: mlflow-stack contributors
"""

# What a failed result says beside its message, and tells an operator nothing.
FORMALITIES = {"assertion", "changed", "evaluated_to", "exception", "failed", "invocation"}
# Of mlflow_model, whose message has all that counts.
FORMALITIES |= {"alias", "created", "diff", "error_code", "name", "previous_version", "run_id", "smoke_test", "source"}
FORMALITIES |= {"status", "tags", "url", "version"}
ITEMS_SHOWN = 12


# What a terminal would obey: programs of the host, and people, have a say in messages.
CONTROL_CHARACTERS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if chr(code) not in "\n\t"}


def printable(text: object) -> str:
    """A message as a terminal can show it, without obeying it."""
    return str(text).replace("\r\n", "\n").translate(CONTROL_CHARACTERS)


def changed_items(result: dict[str, Any]) -> str:
    """What of a loop has changed, to stand after the task's name, where that can be told in words."""
    changed = [item for item in result.get("results", []) if item.get("changed")]
    labels = [item.get("_ansible_item_label", item.get(item.get("ansible_loop_var", "item"))) for item in changed]
    if not labels or not all(isinstance(label, str) for label in labels):
        return ""
    more = [f"{len(labels) - ITEMS_SHOWN} more"] if len(labels) > ITEMS_SHOWN else []
    return f": {', '.join(labels[:ITEMS_SHOWN] + more)}"


def clock(seconds: float) -> str:
    """Minutes and seconds, as in 4:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


class CallbackModule(Default):  # type: ignore[misc]
    """The default callback's output with -v, and the essence of it without."""

    CALLBACK_NAME = "progress"

    def __init__(self) -> None:
        super().__init__()
        self._began = self._task_began = time.monotonic()
        self._timer: threading.Timer | None = None

    @property
    def _brief(self) -> bool:
        return bool(self._display.verbosity == 0)

    def get_option(self, option: str, hostvars: dict[str, Any] | None = None) -> Any:  # noqa: ANN401 (as it is set)
        """An option; of what went well without a change, nothing is shown."""
        if self._brief and option == "display_ok_hosts":
            return False
        return super().get_option(option, hostvars)

    def _line(self, text: str, color: str | None = None) -> None:
        self._display.display(f"{clock(time.monotonic() - self._began):>6}  {stringc(text, color) if color else text}")

    def _watch(self) -> None:
        """Say after a while what the task is that still runs, and again after twice that time."""
        self._unwatch()
        elapsed = time.monotonic() - self._task_began
        patience = max(self.get_option("sign_of_life"), elapsed)
        self._timer = threading.Timer(patience, self._show_life, [self._last_task_name])
        self._timer.daemon = True
        self._timer.start()

    def _unwatch(self) -> None:
        if self._timer:
            self._timer.cancel()

    def _show_life(self, task_name: str) -> None:
        if task_name == self._last_task_name:  # else it has ended this very moment
            self._line(f"  … {task_name} ({clock(time.monotonic() - self._task_began)})")
            self._watch()

    def v2_playbook_on_play_start(self, play: Play) -> None:
        if not self._brief:
            super().v2_playbook_on_play_start(play)
            return
        self._play = play
        if play.get_variable_manager()._inventory.get_hosts(play.hosts):
            self._line(play.get_name().strip(), C.COLOR_HIGHLIGHT)

    def v2_playbook_on_no_hosts_matched(self) -> None:
        if not self._brief:
            super().v2_playbook_on_no_hosts_matched()

    def _task_start(self, task: Task, prefix: str | None = None) -> None:
        super()._task_start(task, prefix)
        if self._brief:
            self._task_began = time.monotonic()
            self._watch()

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        if not self._brief:
            super().v2_runner_on_ok(result)
            return
        said = result.result.get("msg") if result.task.action in C._ACTION_DEBUG else None
        if result.result.get("changed"):
            took = time.monotonic() - self._task_began
            duration = f" ({clock(took)})" if took >= 1 else ""
            what = printable(said or f"{self._last_task_name}{changed_items(result.result)}")
            self._line(f"  {self.host_label(result)}: {what}{duration}", C.COLOR_CHANGED)
        elif said is not None:
            self._display.display(f"\n{printable(said)}")
        self._handle_warnings_and_exception(result)

    def v2_runner_item_on_ok(self, result: CallbackTaskResult) -> None:
        if not self._brief:
            super().v2_runner_item_on_ok(result)

    def _handle_warnings_and_exception(self, result: CallbackTaskResult) -> None:
        if self._brief:
            self._handle_warnings(result.result)  # the message of what failed comes right after
        else:
            super()._handle_warnings_and_exception(result)

    def _dump_results(self, result: dict[str, Any], *arguments: Any, **options: Any) -> str:  # noqa: ANN401
        """What failed: its message alone, if there is nothing more to be said."""
        essence = {key for key in result if key not in FORMALITIES and not key.startswith("_ansible_")}
        if self._brief and essence == {"msg"}:
            return printable(result["msg"])
        dumped: str = super()._dump_results(result, *arguments, **options)
        return dumped

    def v2_playbook_on_include(self, included_file: Any) -> None:  # noqa: ANN401 (a type of the strategy's own)
        if not self._brief:
            super().v2_playbook_on_include(included_file)

    def v2_runner_retry(self, result: CallbackTaskResult) -> None:
        if not self._brief:
            super().v2_runner_retry(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:  # noqa: ANN401 (a type of the executor's own)
        self._unwatch()
        self._last_task_name = None
        super().v2_playbook_on_stats(stats)
        if self._brief and context.CLIARGS.get("check") and not stats.failures and not stats.dark:
            changes = sum(stats.changed.values())
            self._display.display(f"Check mode: nothing was changed, {changes or 'and nothing'} would be.")
        if self._brief:
            self._display.display(f"It took {clock(time.monotonic() - self._began)}.")
