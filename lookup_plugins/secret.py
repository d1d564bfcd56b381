"""Lookup of one secret of a deployment, generated on its first use."""

from __future__ import annotations

import base64
import contextlib
import functools
import os
import re
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
  - The file's name ends in .txt, which keeps Ansible from reading it as an inventory where the directory lies in one.
  - A secret that does not exist yet is generated and kept; one that exists is never overwritten.
  - A file that a person wrote has the secret on one line, without blanks at its ends. Anything else is refused, as
    programs differ in what they would make of it.
  - In check mode nothing is written, the value of a missing secret is then a throw-away one, the same within a task.
  - Where the variable C(stack_secrets_read_only) is true, a missing secret is empty and none is generated.
options:
  _terms:
    description: Names of secrets; their files have the same names and .txt.
    required: true
    type: list
    elements: str
  directory:
    description: Directory on the control node.
    required: true
    type: path
  length:
    description: Characters of a text that is generated.
    default: 32
    type: int
  format:
    description: What is generated, V(text) of letters and digits or V(fernet), 32 random bytes in URL-safe base64.
    default: text
    choices: [text, fernet]
    type: str
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

    Raises AnsibleLookupError where it cannot be read, or is not one line without blanks at its ends.
    """
    try:
        value = re.sub(r"\r?\n\Z", "", path.read_bytes().decode())
    except (OSError, UnicodeDecodeError) as error:
        raise AnsibleLookupError(f"The secret {path} cannot be read: {error}.") from None
    if fault := fault_of(value):
        raise AnsibleLookupError(
            f"The secret {path} {fault}: write the secret alone into it, on one line. Where a platform runs, that is "
            "the one that it was deployed with, as your copy of the directory has it."
        )
    return value


def fault_of(value: str) -> str | None:
    """What is wrong with a secret, in words that follow its name; None where nothing is."""
    if not value.strip("\ufeff \t\r\n"):
        return "is empty"
    if value.startswith("\ufeff"):
        return "begins with a byte order mark, which some editors write"
    if len(f"{value}.".splitlines()) > 1:
        return "has several lines"
    if value != value.strip():
        return "begins or ends with a blank"
    return None


@functools.cache
def generate(path: Path, form: str, length: int) -> str:
    """A new value for a file; asked again for the same file, the process gets the same."""
    del path
    if form == "fernet":
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def create(path: Path, value: str) -> None:
    """Write a secret that does not exist yet, whole or not at all; of two writers, the first wins.

    Raises AnsibleLookupError where the directory does not allow it.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(value + "\n")
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    except OSError as error:
        raise AnsibleLookupError(f"The secret {path} cannot be written: {error}.") from None
    finally:
        with contextlib.suppress(OSError):
            draft.unlink()


class LookupModule(LookupBase):  # type: ignore[misc]
    """Read secrets by name; generate those that are missing."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        directory = Path(self.get_option("directory"))
        if (variables or {}).get("stack_secrets_read_only"):
            return [read(path) if (path := directory / f"{name}.txt").exists() else "" for name in terms]
        check_mode = bool((variables or {}).get("ansible_check_mode"))
        return [self._secret(directory / f"{name}.txt", check_mode) for name in terms]

    def _secret(self, path: Path, check_mode: bool) -> str:
        if not path.exists():
            value = generate(path, self.get_option("format"), self.get_option("length"))
            if check_mode:
                return value
            create(path, value)
        return read(path)
