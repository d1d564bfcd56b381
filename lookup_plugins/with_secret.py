"""Lookup that gives each mapping of a list the secret that it lacks."""

from __future__ import annotations

from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: with_secret
short_description: Give each mapping of a list the secret that it lacks
description:
  - Where a mapping has no O(key), the secret of the name that O(name) makes of it is read, or generated once, by the
    lookup C(secret); C(generated) is true then.
options:
  _terms:
    description: Mappings.
    required: true
    type: list
    elements: dict
  key:
    description: Key of the secret in a mapping.
    required: true
    type: str
  name:
    description: Name of the secret, with keys of the mapping in braces.
    required: true
    type: str
  directory:
    description: Directory on the control node that keeps secrets.
    required: true
    type: path
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('with_secret', *mlflow_users, key='password', name='mlflow_user_{name}', directory='secrets') }}"
"""

RETURN = """
_raw:
  description: The mappings, each with its secret.
  type: list
  elements: dict
"""


class LookupModule(LookupBase):  # type: ignore[misc]
    """Mappings with their secrets."""

    def run(
        self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **kwargs: object
    ) -> list[dict[str, Any]]:
        self.set_options(var_options=variables, direct=kwargs)
        key, name, directory = (self.get_option(option) for option in ("key", "name", "directory"))
        lookup = lookup_loader.get("secret")

        def secret(term: dict[str, Any]) -> str:
            found: list[str] = lookup.run([name.format(**term)], variables, directory=directory)
            return found[0]

        return [term if term.get(key) else {**term, key: secret(term), "generated": True} for term in terms]
