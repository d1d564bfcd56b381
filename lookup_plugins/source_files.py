"""Lookup of the files that an image is built from."""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypedDict

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: source_files
short_description: List the files that an image is built from, with digests
description:
  - Lists the files below directories. Tests, hidden files and what Python writes beside its sources do not count.
  - The identities of all the files say together whether what an image is built from has changed.
options:
  _terms:
    description: Directories on the control node.
    required: true
    type: list
    elements: path
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('source_files', stack_root ~ '/mlflow_ftps') | map(attribute='id') | join(' ') | hash('sha256') }}"
"""

RETURN = """
_raw:
  description: >-
    For each file its src (a path on the control node), its name (the path below its directory), and its id (executable
    bit, SHA-256 of the content, name).
  type: list
  elements: dict
"""


class SourceFile(TypedDict):
    """One file of an image's sources."""

    id: str
    name: str
    src: str


def is_source(relative: Path) -> bool:
    """Whether a file goes into an image."""
    return not any(
        part.startswith(".") or part in ("__pycache__", "tests") or part.endswith(".egg-info")
        for part in relative.parts
    )


def source_files(directory: Path) -> Iterator[SourceFile]:
    """The files below a directory, in a fixed order. Raises AnsibleLookupError where there is no such directory."""
    if not directory.is_dir():
        raise AnsibleLookupError(f"The directory {directory} does not exist.")
    for path in sorted(directory.rglob("*")):
        relative = path.relative_to(directory)
        if path.is_file() and is_source(relative):
            executable = "x" if path.stat().st_mode & stat.S_IXUSR else "-"
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            yield {"id": f"{executable} {digest} {relative}", "name": str(relative), "src": str(path)}


class LookupModule(LookupBase):  # type: ignore[misc]
    """The files of all the directories given."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[SourceFile]:
        self.set_options(var_options=variables, direct=kwargs)
        return [file for term in terms for file in source_files(Path(term))]
