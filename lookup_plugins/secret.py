"""Lookup of one secret of a deployment, generated on its first use."""

from __future__ import annotations

import os
import secrets
import string
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: secret
short_description: Read a secret of the deployment, generating it once
description:
  - Each secret is a file of its own in O(directory), readable by its owner alone.
  - A secret that does not exist yet is generated (letters and digits) and kept; one that exists is never overwritten.
  - In check mode nothing is written, the value of a missing secret is then a throw-away one.
options:
  _terms:
    description: Names of secrets, which are the names of their files.
    required: true
    type: list
    elements: str
  directory:
    description: Directory on the control node.
    required: true
    type: path
  length:
    description: Characters of a secret that is generated.
    default: 32
    type: int
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.set_fact:
    postgres_password: "{{ lookup('secret', 'postgres_password', directory=inventory_dir ~ '/secrets') }}"
"""

RETURN = """
_raw:
  description: The secrets.
  type: list
  elements: str
"""

ALPHABET = string.ascii_letters + string.digits


def read(path: Path) -> str:
    """The secret in a file, without the line's end that an editor may have added.

    Raises AnsibleLookupError where it is empty or cannot be read.
    """
    try:
        value = path.read_text().rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleLookupError(f"The secret {path} cannot be read: {error}.") from error
    if not value:
        raise AnsibleLookupError(f"The secret {path} is empty: write the password into it, or remove the file.")
    return value


def create(path: Path, value: str) -> None:
    """Write a secret that does not exist yet, whole or not at all; of two writers, the first wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
        os.link(draft, path)
    except FileExistsError:
        pass
    finally:
        draft.unlink()


class LookupModule(LookupBase):  # type: ignore[misc]
    """Read secrets by name; generate those that are missing."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: Any) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        directory = Path(self.get_option("directory"))
        check_mode = bool((variables or {}).get("ansible_check_mode"))
        return [self._secret(directory / name, check_mode) for name in terms]

    def _secret(self, path: Path, check_mode: bool) -> str:
        if not path.exists():
            value = "".join(secrets.choice(ALPHABET) for _ in range(self.get_option("length")))
            if check_mode:
                return value
            create(path, value)
        return read(path)
