"""Lookup of images that nothing uses any more."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: image_leftovers
short_description: Images of ours that neither a container uses nor a way back needs
description:
  - Of each repository below C(mlflow-stack/), what containers are made from stays, and so do the two newest images.
options:
  _terms:
    description: Images, as the engine has listed them.
    required: true
    type: list
    elements: dict
  tags:
    description: Tags of all images that there are now; those that are not among the terms are the newest.
    type: list
    elements: str
    required: true
  used:
    description: Tags of the images that containers are made from.
    type: list
    elements: str
    required: true
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('image_leftovers', *images, tags=docker_images, used=['mlflow-stack/ftp:2.2.0-0a1b2c3d4e5f']) }}"
"""

RETURN = """
_raw:
  description: Tags of images to be removed.
  type: list
  elements: str
"""

OURS = "mlflow-stack/"
KEPT = 2  # the one in use, and the one before


def leftovers(images: list[dict[str, Any]], tags: list[str], used: list[str]) -> list[str]:
    """Tags that may go."""
    created = {tag: int(image["Created"]) for image in images for tag in image.get("RepoTags") or []}
    newest = max(created.values(), default=0) + 1
    repositories = defaultdict(list)
    for tag in tags:
        if tag.startswith(OURS):
            repositories[tag.rpartition(":")[0]].append(tag)
    return [
        tag
        for ours in repositories.values()
        for tag in sorted(ours, key=lambda tag: created.get(tag, newest), reverse=True)[KEPT:]
        if tag not in used
    ]


class LookupModule(LookupBase):  # type: ignore[misc]
    """Tags of images to be removed."""

    def run(self, terms: list[dict[str, Any]], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        return leftovers(terms, self.get_option("tags"), self.get_option("used"))
