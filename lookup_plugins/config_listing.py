"""Lookup of where a service's configuration lies, and what it looks like when it is as it shall be."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: config_listing
short_description: Where a configuration lies, and what M(deployment_lock) reports of it when all is well
description:
  - A configuration lies in a directory that is named by the digest of its files, so that a container that has mounted
    it by that name has mounted these contents.
  - With the listing, one look at all directories of a host tells which of them M(config_files) has to write.
options:
  _terms:
    description: The directory of the service on the host.
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
  secrets_gid:
    description: Numeric group that may read the secrets.
    type: int
    default: 0
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('config_listing', '/etc/mlflow-stack/ftp', files=ftp_files, secrets=ftp_secrets).path }}"
"""

RETURN = """
_raw:
  description: >-
    The C(path) of the directory, and its C(listing): of the directory of the service, of this one and of each file the
    C(path), C(mode), C(uid), C(gid) and, of files, C(checksum) (SHA-256), sorted by path.
  type: list
  elements: dict
"""

DIGEST_LENGTH = 16  # hexadecimal digits


def entry(file: dict[str, Any], mode: str, gid: int) -> dict[str, Any]:
    """One file, its path without the directory, with the module's defaults for what it leaves out."""
    return {
        "path": str(file["name"]),
        "mode": file.get("mode", mode),
        "uid": 0,
        "gid": gid,
        "checksum": hashlib.sha256(str(file["content"]).encode()).hexdigest(),
    }


def describe(service: str, entries: list[dict[str, Any]], gid: int) -> dict[str, Any]:
    """The directory that holds these files, and the listing of it."""
    entries = sorted(entries, key=lambda found: str(found["path"]))
    path = f"{service}/{hashlib.sha256(json.dumps(entries).encode()).hexdigest()[:DIGEST_LENGTH]}"
    directories = [
        {"path": service, "mode": "0750", "uid": 0, "gid": gid},
        {"path": path, "mode": "0755", "uid": 0, "gid": 0},
    ]
    return {"path": path, "listing": directories + [file | {"path": f"{path}/{file['path']}"} for file in entries]}


class LookupModule(LookupBase):  # type: ignore[misc]
    """Directories and their listings."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        gid = self.get_option("secrets_gid")
        entries = [entry(file, "0444", 0) for file in self.get_option("files")]
        entries += [entry(file, "0440", gid) for file in self.get_option("secrets")]
        return [describe(service, entries, gid) for service in terms]
