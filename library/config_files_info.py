#!/usr/bin/python
"""Ansible module: what lies in the directory of the configurations."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files_info
short_description: List all configurations of a host
description:
  - One look at what M(config_files) keeps, so that a run that changes nothing asks little more. A directory that does
    not exist has no files.
options:
  path:
    description: The directory that holds the directories of all services.
    type: path
    required: true
attributes:
  check_mode:
    support: full
    description: Reads only.
  diff_mode:
    support: none
    description: Reads only.
author: mlflow-stack contributors
"""

EXAMPLES = r"""
- name: Look at the configuration
  config_files_info:
    path: /etc/mlflow-stack
  register: container_config_found
  no_log: true
"""

RETURN = r"""
files:
  description: >-
    Of each directory and file below it the C(path), C(mode), C(uid), C(gid), C(ctime), whether it is a directory
    (C(isdir)), and of files the C(checksum) (SHA-256).
  returned: success
  type: list
  elements: dict
at:
  description: When that was, in seconds since 1970.
  returned: success
  type: float
"""

import hashlib
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule


def entries(directory: Path) -> Iterator[dict[str, Any]]:
    """What lies below a directory, links as they are. Raises OSError."""
    for path in sorted(directory.rglob("*")) if directory.is_dir() else ():
        status = path.lstat()
        entry = {
            "path": str(path),
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "uid": status.st_uid,
            "gid": status.st_gid,
            "ctime": status.st_ctime,
            "isdir": stat.S_ISDIR(status.st_mode),
        }
        if stat.S_ISREG(status.st_mode):
            entry["checksum"] = hashlib.sha256(path.read_bytes()).hexdigest()
        yield entry


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec={"path": {"type": "path", "required": True}}, supports_check_mode=True)
    now = time.time()
    try:
        files = list(entries(Path(module.params["path"])))
    except OSError as error:
        module.fail_json(msg=f"The configuration in {module.params['path']} cannot be read: {error}.")
    module.exit_json(changed=False, files=files, at=now)


if __name__ == "__main__":
    main()
