"""Action plugin of the module deployment_lock: says who the run is, and tells a lock apart whose run has ended."""

from __future__ import annotations

import getpass
import os
import socket
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.utils.display import Display

display = Display()
Holder = dict[str, Any]


def started(pid: int) -> str:
    """When a process of this machine has started, in ticks since its boot; empty where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def machine() -> str:
    """This machine since its last start, and the numbers of its processes; empty where it does not say."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def this_run(pid: int) -> Holder:
    """Who runs ansible-playbook, which is the process `pid`."""
    user = getpass.getuser()
    since = started(pid)
    return {
        "id": f"{user}@{socket.gethostname()}:{pid}:{since}",
        "user": os.environ.get("SUDO_USER", user),
        "from": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "machine": machine(),
        "pid": pid,
        "started": since,
    }


def has_ended(holder: Holder) -> bool:
    """Whether the run that holds a lock has surely ended: it was of this machine, and its process is gone."""
    if not holder.get("machine") or not {"pid", "started"} <= holder.keys():
        return False
    return bool(holder["machine"] == machine() and started(holder["pid"]) != holder["started"])


def refusal(host: str, holder: Holder) -> str:
    """What the run says that finds the host locked by another."""
    who = f"{holder.get('user', 'somebody')} runs {holder.get('what', 'a deployment')}"
    since = f"from {holder.get('from', 'somewhere')} since {holder.get('since', 'some time')}"
    return (
        f"{host} is being deployed to by another run: {who} {since}. Wait until that has ended and run this again. "
        f"If you know that it has ended without giving the lock back: --extra-vars 'stack_break_lock={holder['id']}'."
    )


class ActionModule(ActionBase):  # type: ignore[misc]
    """Take the lock, or say who has it."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        owner = this_run(os.getppid())
        result = self._lock(owner, {}, task_vars)
        other = self._other(result, owner)
        if other and has_ended(other):
            result = self._lock(owner, {"break_lock": other["id"]}, task_vars)
            other = self._other(result, owner)
        host = (task_vars or {}).get("inventory_hostname", "The host")
        log = self._task.args.get("log")
        if log and not self._task.check_mode and result.get("logged") is False:
            display.warning(
                f"{log} on {host} is no file that can be written, and will not say that this run was there."
            )
        if other:
            return {"failed": True, "msg": refusal(host, other)}
        if result.get("failed"):
            # Whatever has failed, the lock may be this run's, which gives it back.
            return result | {"holder": owner}
        return result | {"_ansible_no_log": True}  # checksums of secrets are among what was found

    def _lock(self, owner: Holder, options: dict[str, str], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        arguments = {**self._task.args, "owner": owner, **options}
        result: dict[str, Any] = self._execute_module(
            module_name="deployment_lock", module_args=arguments, task_vars=task_vars
        )
        return result

    def _other(self, result: dict[str, Any], owner: Holder) -> Holder | None:
        """The other run that has what this one wants."""
        holder: Holder | None = result.get("holder")
        return holder if not self._task.check_mode and holder and holder["id"] != owner["id"] else None
