"""Lookup of the reference under which Docker lists an image."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: image_reference
short_description: The reference under which Docker lists an image
description:
  - An image that is built is tagged with a digest of what it is built from, so that the same inputs need no build and
    changed inputs get a new tag. The old tag stays for going back.
  - An image that is pulled has the short form of Docker Hub's names, or its name in a registry that stands in.
options:
  _terms:
    description: Name and version of the image, as in C(docker.io/library/postgres:17.6).
    required: true
    type: list
    elements: str
  build:
    description: >-
      How it is built, in the words of the Compose specification (context, additional_contexts, args); empty if it is
      not built.
    type: dict
    default: {}
  registry:
    description: Registry that stands in for docker.io and quay.io, as host[:port][/path].
    type: str
    default: ""
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('image_reference', 'docker.io/library/postgres:17.6') }}"  # postgres:17.6
"""

RETURN = """
_raw:
  description: The references.
  type: list
  elements: str
"""

DIGEST_LENGTH = 12  # hexadecimal digits


def pulled(image: str, registry: str) -> str:
    """The reference of an image that is pulled."""
    if registry:
        return re.sub(r"^(docker\.io|quay\.io)/", f"{registry}/", image)
    return re.sub(r"^docker\.io/(library/)?", "", image)


def built(image: str, build: dict[str, Any]) -> str:
    """The reference of an image that is built: its name, and a digest of sources and arguments."""
    contexts = {".": build["context"], **build.get("additional_contexts", {})}
    source_files = lookup_loader.get("source_files")
    sources = {name: [file["id"] for file in source_files.run([directory])] for name, directory in contexts.items()}
    inputs = json.dumps([sources, build.get("args", {})], sort_keys=True)
    return f"{image}-{hashlib.sha256(inputs.encode()).hexdigest()[:DIGEST_LENGTH]}"


class LookupModule(LookupBase):  # type: ignore[misc]
    """References of images."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        build, registry = self.get_option("build"), self.get_option("registry")
        return [built(term, build) if build else pulled(term, registry) for term in terms]
