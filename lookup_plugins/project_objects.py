"""Lookup of what the Docker engine has of one project."""

from __future__ import annotations

from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: project_objects
short_description: Names of the objects of the Docker engine that belong to a project
options:
  _terms:
    description: Objects, as the engine lists them, with their labels.
    required: true
    type: list
    elements: dict
  project:
    description: Name of the Compose project.
    required: true
    type: str
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('project_objects', *docker_objects.volumes, project='mlflow-stack') }}"
"""

RETURN = """
_raw:
  description: Their names.
  type: list
  elements: str
"""

LABEL = "com.docker.compose.project"


def name_of(thing: dict[str, Any]) -> str:
    """The name of an object, of which a container has a list, each with a slash."""
    return str(thing["Name"] if "Name" in thing else thing["Names"][0].removeprefix("/"))


class LookupModule(LookupBase):  # type: ignore[misc]
    """Names by project."""

    def run(self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        project = self.get_option("project")
        return [name_of(thing) for thing in terms if (thing.get("Labels") or {}).get(LABEL) == project]
