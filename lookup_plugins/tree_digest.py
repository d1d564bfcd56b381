"""Lookup of a digest over directories: the same files, the same digest."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: tree_digest
short_description: SHA-256 over the names, contents and executable bits of the files below directories
description:
  - Says whether what an image is built from has changed.
  - Tests, hidden files and what Python writes beside its sources do not count.
options:
  _terms:
    description: Directories on the control node; their order counts.
    required: true
    type: list
    elements: path
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('tree_digest', role_path ~ '/files/image') }}"
"""

RETURN = """
_raw:
  description: One hexadecimal digest over all the directories.
  type: list
  elements: str
"""


def source_files(directory: Path) -> Iterator[Path]:
    """The files below a directory that count, relative to it, in a fixed order."""
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        ignored = any(
            part.startswith(".") or part in ("__pycache__", "tests") or part.endswith(".egg-info")
            for part in relative.parts
        )
        if path.is_file() and not ignored:
            yield relative


def digest(directories: list[Path]) -> str:
    """SHA-256 over names, contents and executable bits, hexadecimal.

    Raises AnsibleLookupError where a directory is missing.
    """
    total = hashlib.sha256()
    for directory in directories:
        if not directory.is_dir():
            raise AnsibleLookupError(f"The directory {directory} does not exist.")
        for relative in source_files(directory):
            path = directory / relative
            content = path.read_bytes()
            executable = "x" if path.stat().st_mode & stat.S_IXUSR else "-"
            total.update(f"{executable} {relative} {len(content)}\n".encode())
            total.update(content)
        total.update(b"\n")  # the end of a directory: a file that moves to the next one is a change
    return total.hexdigest()


class LookupModule(LookupBase):  # type: ignore[misc]
    """One digest over all the directories given."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return [digest([Path(term) for term in terms])]
