"""Runs the project's lookup plugins as Ansible does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.plugins.loader import lookup_loader

REPO = Path(__file__).parents[2]
lookup_loader.add_directory(str(REPO / "lookup_plugins"))


def lookup(plugin: str, *terms: object, check_mode: bool = False, **options: object) -> list[Any]:
    """What `query(plugin, *terms, **options)` gives in a playbook."""
    result: list[Any] = lookup_loader.get(plugin).run(
        [term if isinstance(term, dict) else str(term) for term in terms],
        variables={"ansible_check_mode": check_mode},
        **options,
    )
    return result
