#!/usr/bin/python
"""Ansible module: one table of nftables, in a file and in the kernel."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nft_table
short_description: Keep one table of nftables, in a file and in the kernel
description:
  - Writes the table to a file that whoever starts first at boot can load, and loads it.
  - What the kernel has is compared with what the file would make of an empty network namespace, so that a table that
    was flushed or edited by hand is seen and replaced, in one transaction. Other tables are never touched.
requirements:
  - nft
options:
  name:
    description: Name of the table, of the family inet.
    type: str
    required: true
  path:
    description: The file. Its directory is created.
    type: path
    required: true
  rules:
    description: What stands between the braces of the table, in the language of nft. Required with O(state=present).
    type: str
  state:
    description: Whether the table is to be there; V(absent) removes the file too.
    type: str
    choices: [present, absent]
    default: present
attributes:
  check_mode:
    support: full
    description: Can run in check mode and says what would change, on a host without nft too.
  diff_mode:
    support: full
    description: Shows the kernel's table before and after, or the file where the kernel has the table already.
  idempotent:
    support: full
    description: A second run with the same parameters changes nothing.
author: mlflow-stack contributors
"""

EXAMPLES = r"""
- name: Drop what comes from port 9
  nft_table:
    name: discard
    path: /etc/nftables.d/discard.nft
    rules: |
      chain input {
        type filter hook input priority filter; policy accept;
        tcp sport 9 drop
      }
"""

RETURN = r"""
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    import whole_file
    from nftables import NftError, document_of, listing, run, sealed
else:
    from ansible.module_utils import whole_file
    from ansible.module_utils.nftables import NftError, document_of, listing, run, sealed


def document(name: str, rules: str) -> str:
    """What the file says: the table is made anew, in one transaction, whatever was there."""
    return f"table inet {name}\ndelete table inet {name}\ntable inet {name} {{\n{rules.rstrip()}\n}}\n"


def listing_of(text: str, name: str) -> str:
    """What `listing` would say once the document is loaded: asked of a network namespace that ends afterwards."""
    return run("unshare", "--net", "sh", "-euc", 'nft -f - && nft list table inet "$1"', "sh", name, text=text)


def difference(name: str, path: Path, table: tuple[str, str], file: tuple[str, str]) -> list[dict[str, str]]:
    """What a diff shows of the kernel's table, and of the file if only that is different."""
    header, (before, after) = (f"table inet {name}", table) if table[0] != table[1] else (str(path), file)
    return [{"before_header": header, "after_header": header, "before": before, "after": after}]


def keep(name: str, path: Path, rules: str, check_mode: bool) -> tuple[bool, list[dict[str, str]]]:
    """Have the table in the file and in the kernel; whether that changed anything, and the diff.

    Raises NftError and OSError.
    """
    text = document(name, rules)
    found = path.read_text() if path.is_file() else ""
    try:
        expected, loaded = listing_of(text, name), listing(name)
    except NftError:
        if not check_mode:
            raise
        expected, loaded = text, ""  # a first deployment installs nft
    wanted = sealed(text, expected)
    # Another version of nft may print the same table in other words: that changes nothing but the file's first line.
    changed = (document_of(found), loaded) != (text, expected)
    if found != wanted and not check_mode:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Before the kernel has it: a run that ends in between is healed at boot too.
        whole_file.write(path, wanted, 0o644)
    if changed and not check_mode:
        run("nft", "-f", str(path))
    return changed, difference(name, path, (loaded, expected), (document_of(found), text))


def remove(name: str, path: Path, check_mode: bool) -> tuple[bool, list[dict[str, str]]]:
    """Have the table nowhere; whether that changed anything, and the diff. Raises NftError and OSError."""
    found = path.read_text() if path.is_file() else ""
    try:
        loaded = listing(name)
    except NftError:
        loaded = ""  # without nft there is no table
    if not check_mode:
        path.unlink(missing_ok=True)
        if loaded:
            run("nft", "delete", "table", "inet", name)
    return bool(found or loaded), difference(name, path, (loaded, ""), (found, ""))


def main() -> None:
    """Run the module."""
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "path": {"type": "path", "required": True},
            "rules": {"type": "str"},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        required_if=[("state", "present", ["rules"])],
        supports_check_mode=True,
    )
    name, path = module.params["name"], Path(module.params["path"])
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_.-]*", name):
        module.fail_json(
            msg=f"'{name}' is no name of a table: give a letter, then letters, digits, dots, dashes and underscores."
        )
    try:
        if module.params["state"] == "present":
            changed, diff = keep(name, path, module.params["rules"], module.check_mode)
        else:
            changed, diff = remove(name, path, module.check_mode)
    except (NftError, OSError) as error:
        module.fail_json(msg=f"The table {name} of the firewall cannot be kept: {error}.")
    module.exit_json(changed=changed, diff=diff)


if __name__ == "__main__":
    main()
