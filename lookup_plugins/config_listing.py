"""Lookup of what a service's configuration directory looks like when it is as it shall be."""

from __future__ import annotations

import hashlib
from pathlib import PurePosixPath
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: config_listing
short_description: What M(ansible.builtin.find) reports of a configuration directory that is as it shall be
description:
  - With it, one look at all directories of a host tells which of them M(config_files) has to write.
options:
  _terms:
    description: The directory on the host.
    required: true
    type: list
    elements: str
  files:
    description: The files, as M(config_files) takes them.
    type: list
    elements: dict
    default: []
  secrets:
    description: The secrets, as M(config_files) takes them.
    type: list
    elements: dict
    default: []
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('config_listing', '/etc/mlflow-stack/ftp', files=ftp_files, secrets=ftp_secrets) }}"
"""

RETURN = """
_raw:
  description: Of each file C(path), C(mode), C(uid), C(gid) and C(checksum) (SHA-256), sorted by path.
  type: list
  elements: dict
"""


def entry(directory: str, file: dict[str, Any], mode: str) -> dict[str, Any]:
    """One file, with the module's defaults for what it leaves out."""
    return {
        "path": str(PurePosixPath(directory, file["name"])),
        "mode": file.get("mode", mode),
        "uid": int(file.get("uid", 0)),
        "gid": int(file.get("gid", 0)),
        "checksum": hashlib.sha256(str(file["content"]).encode()).hexdigest(),
    }


class LookupModule(LookupBase):  # type: ignore[misc]
    """Listings of directories."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        entries = [
            entry(directory, file, mode)
            for directory in terms
            for option, mode in (("files", "0444"), ("secrets", "0400"))
            for file in self.get_option(option)
        ]
        return sorted(entries, key=lambda found: str(found["path"]))
