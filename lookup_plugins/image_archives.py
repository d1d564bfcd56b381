"""Lookup of the images in a directory of `docker save` archives."""

from __future__ import annotations

import json
import tarfile
import zlib
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: image_archives
short_description: The images that lie in a directory as archives
description:
  - Reads the manifest of each archive (*.tar, *.tar.gz, *.tgz) that docker save has written; their names do not count.
options:
  _terms:
    description: One directory on the control node; empty for none.
    required: true
    type: list
    elements: str
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('image_archives', '/srv/images')['portainer/portainer-ce:2.45.0'] }}"
"""

RETURN = """
_raw:
  description: A dictionary from image references, as docker images shows them, to paths of archives.
  type: list
  elements: dict
"""

SUFFIXES = (".tar", ".tar.gz", ".tgz")


def images_in(archive: Path) -> list[str]:
    """References of the images in one archive. Raises AnsibleLookupError where it is none of docker save's."""
    try:
        with tarfile.open(archive) as tar:
            manifest = tar.extractfile("manifest.json")
            entries = json.load(manifest) if manifest else []
        return [tag for entry in entries for tag in entry["RepoTags"] or []]
    except (OSError, EOFError, LookupError, TypeError, ValueError, tarfile.TarError, zlib.error) as error:
        reason = str(error).partition(":\n")[0]
        raise AnsibleLookupError(
            f"{archive} is broken or none of docker save's ({reason}): "
            "write it with docker save -o FILE IMAGE:TAG, or take it out of image_archives_dir."
        ) from None


class LookupModule(LookupBase):  # type: ignore[misc]
    """Map image references to archives."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        if not terms[0]:
            return [{}]
        directory = Path(terms[0])
        if not directory.is_dir():
            raise AnsibleLookupError(
                f"image_archives_dir is {directory}, which is no directory on the control node: "
                "make it and put archives written by docker save there, or unset it."
            )
        archives = sorted(path for path in directory.iterdir() if path.name.endswith(SUFFIXES))
        return [{tag: str(path) for path in archives for tag in images_in(path)}]
