#!/usr/bin/python
"""Ansible module: one deployment at a time on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: deployment_lock
short_description: Let one run at a time change a host
description:
  - Takes the lock of a host, a file that says who holds it, since when and from where.
  - A lock that another run holds is refused. One whose run has ended without giving it back is told apart where it
    came from the same control node, and taken over; others are broken with O(break_lock).
  - The lock lies in C(/run), which a restart of the host empties. In check mode nothing is locked.
  - Taking it twice in a run changes nothing. It is given back by removing the file, under the guard that lies beside
    it, the same name with C(.guard).
  - Can look at all that a deployment wants to know, once nobody else can change it any more.
options:
  what:
    description: What the run does, for the message that others get.
    type: str
    default: a deployment
  deployment:
    description: Name of the deployment, for the log.
    type: str
    default: ""
  log:
    description:
      - File to which each run adds a line as JSON when it gives the lock back.
      - A lock that is broken is written down here, for the run that could not.
    type: path
  break_lock:
    description: Identity of the run, as the message shows it, whose lock is to be broken.
    type: str
    default: ""
  path:
    description: The file.
    type: path
    required: true
  look:
    description: What to look at; without it, at nothing.
    type: dict
    suboptions:
      config_root:
        description: Directory of the configurations.
        type: path
        required: true
      table:
        description: Name of the firewall's table, as M(nft_table) takes it.
        type: str
        required: true
      table_file:
        description: Its file.
        type: path
        required: true
  owner:
    description: Who asks; the action plugin of the same name fills it in.
    type: dict
    required: true
attributes:
  action:
    support: full
    description: An action plugin knows the run on the control node.
  check_mode:
    support: full
    description: Takes no lock.
  diff_mode:
    support: none
    description: A lock is no state of the host.
author: mlflow-stack contributors
"""

EXAMPLES = r"""
- name: Let no other deployment in
  deployment_lock:
    path: /run/mlflow-stack.lock
    what: site.yml
    log: /var/log/mlflow-stack.log
    look:
      config_root: /etc/mlflow-stack
      table: mlflow-stack_mlflow-stack
      table_file: /etc/docker/mlflow-stack/mlflow-stack.nft
  register: deployment_found
"""

RETURN = r"""
holder:
  description: >-
    Who holds the lock now; null when nobody does. This run where the module has failed, as it may have taken the lock.
  returned: unless another run holds the lock
  type: dict
logged:
  description: Whether the log can be written.
  returned: always
  type: bool
records:
  description: What deployments have written down on the host, by the names of the local facts.
  returned: with O(look)
  type: dict
files:
  description: >-
    Of each directory and file of the configurations the C(path), C(mode), C(uid), C(gid), C(ctime), whether it is a
    directory (C(isdir)), and of files the C(checksum) (SHA-256).
  returned: with O(look)
  type: list
  elements: dict
settings:
  description: The host's own certificate authorities and settings of pip, C(path) and C(checksum).
  returned: with O(look)
  type: list
  elements: dict
firewall:
  description: What the table's file says, if neither that nor the kernel's table was changed since; else empty.
  returned: with O(look)
  type: str
docker:
  description: >-
    Whether the engine is C(running), if not a C(message) why; its C(root) directory, and C(containers), C(images),
    C(networks) and C(volumes) as its API lists them.
  returned: with O(look)
  type: dict
lacking:
  description: Debian's packages that modules need, without which they cannot talk to the engine or the firewall.
  returned: with O(look)
  type: list
  elements: str
systemd:
  description: Whether systemd runs the host's services.
  returned: with O(look)
  type: bool
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    from host_look import look
else:
    from ansible.module_utils.host_look import look

Holder = dict[str, Any]


def read(path: Path) -> Holder | None:
    """Who holds the lock; None where there is none. One that cannot be read is held by somebody unknown."""
    try:
        holder = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except ValueError:
        holder = None
    return holder if isinstance(holder, dict) and "id" in holder else {"id": "unknown"}


@contextlib.contextmanager
def alone(path: Path) -> Iterator[None]:
    """Let one process at a time look at the lock and change it, as the end of a run does under the same guard."""
    guarded = path.with_name(f"{path.name}.guard")
    guarded.touch()
    guarded.chmod(0o600)  # who may open it can make others wait
    with guarded.open("w") as guard:
        fcntl.flock(guard, fcntl.LOCK_EX)
        yield


def is_writable(log: Path) -> bool:
    """Whether a line can be added, as it cannot to a pipe that nobody reads."""
    return os.access(log, os.W_OK) if log.is_file() else not log.exists() and os.access(log.parent, os.W_OK)


def write_down(log: Path, ended: Holder) -> None:
    """Add the line of a run that could not do it."""
    line = {
        "began": ended.get("since"),
        "deployment": ended.get("deployment"),
        "what": ended.get("what"),
        "by": ended.get("user"),
        "from": ended.get("from"),
        "outcome": "did not come to its end",
    }
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o640), "a") as file:
        file.write(f"{json.dumps(line)}\n")


def take(path: Path, owner: Holder, break_lock: str, log: Path | None = None) -> Holder:
    """Make the lock, unless somebody else has it; returns who holds it now."""
    with alone(path):
        holder = read(path)
        if holder and holder["id"] != break_lock:
            return holder
        if holder and log and is_writable(log):
            with contextlib.suppress(OSError):  # a full disk is no reason to stay out
                write_down(log, holder)
        draft = path.with_name(f"{path.name}.draft")
        draft.write_text(json.dumps(owner))
        draft.replace(path)  # whole or not at all
        return owner


def look_at(wanted: dict[str, str] | None) -> dict[str, Any]:
    """What there is of what is wanted. Raises OSError."""
    return look(Path(wanted["config_root"]), wanted["table"], Path(wanted["table_file"])) if wanted else {}


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "what": {"type": "str", "default": "a deployment"},
            "deployment": {"type": "str", "default": ""},
            "log": {"type": "path"},
            "break_lock": {"type": "str", "default": ""},
            "path": {"type": "path", "required": True},
            "look": {
                "type": "dict",
                "options": {
                    "config_root": {"type": "path", "required": True},
                    "table": {"type": "str", "required": True},
                    "table_file": {"type": "path", "required": True},
                },
            },
            "owner": {"type": "dict", "required": True},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    path, log = Path(parameters["path"]), Path(parameters["log"]) if parameters["log"] else None
    owner = parameters["owner"] | {key: parameters[key] for key in ("what", "deployment")}
    try:
        holder = read(path) if module.check_mode else take(path, owner, parameters["break_lock"], log)
    except OSError as error:
        module.fail_json(msg=f"The lock {path} cannot be kept: {error}.")
    try:
        found = look_at(parameters["look"]) if module.check_mode or (holder and holder["id"] == owner["id"]) else {}
    except OSError as error:
        module.fail_json(msg=f"The host cannot be looked at: {error}.")
    module.exit_json(changed=False, holder=holder, logged=log is not None and is_writable(log), **found)


if __name__ == "__main__":
    main()
