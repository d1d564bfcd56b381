"""Action that brings the files that an image is built from to the host, all at once."""

from __future__ import annotations

import tarfile
import tempfile
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible.plugins.loader import lookup_loader

DOCUMENTATION = """
name: image_context
short_description: Bring the files that an image is built from to the host
description:
  - Packs what the lookup P(source_files#lookup) lists and hands it to M(ansible.builtin.unarchive), so that dozens of
    files take as long as one.
options:
  contexts:
    description: Directories on the control node, by their names in O(dest).
    type: dict
    required: true
  dest:
    description: Directory on the host, which must be there.
    type: path
    required: true
author: mlflow-stack contributors
"""

EXAMPLES = """
- name: Copy the sources
  image_context:
    contexts: {.: "{{ stack_root }}/roles/mlflow/files/image", mlflow_ftps: "{{ stack_root }}/mlflow_ftps"}
    dest: /var/lib/mlflow-stack/images/mlflow
"""


def pack(archive: Path, contexts: dict[str, str]) -> None:
    """Write an archive of all sources, owned by root, executable or not, readable by everybody."""
    source_files = lookup_loader.get("source_files")
    with tarfile.open(archive, "w") as packed:
        for name, directory in contexts.items():
            files = source_files.run([directory])
            for path in sorted({parent for file in files for parent in Path(name, file["name"]).parents}):
                member = tarfile.TarInfo(str(path))
                member.type, member.mode = tarfile.DIRTYPE, 0o755
                packed.addfile(member)
            for file in files:
                source = Path(file["src"])
                member = tarfile.TarInfo(f"{name}/{file['name']}")
                member.size, member.mtime = source.stat().st_size, source.stat().st_mtime
                member.mode = 0o755 if file["id"].startswith("x") else 0o644
                with source.open("rb") as content:
                    packed.addfile(member, content)


class ActionModule(ActionBase):  # type: ignore[misc]
    """Pack, and unpack on the host."""

    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        with tempfile.TemporaryDirectory() as directory:
            archive = Path(directory, "context.tar")
            pack(archive, self._task.args["contexts"])
            task = self._task.copy()
            task.args = {"src": str(archive), "dest": self._task.args["dest"]}
            unarchive = self._shared_loader_obj.action_loader.get(
                "ansible.builtin.unarchive",
                task=task,
                connection=self._connection,
                play_context=self._play_context,
                loader=self._loader,
                templar=self._templar,
                shared_loader_obj=self._shared_loader_obj,
            )
            result: dict[str, Any] = unarchive.run(task_vars=task_vars)
        return result
