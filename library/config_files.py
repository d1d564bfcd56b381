#!/usr/bin/python
"""Ansible module: the configuration directory of one service, as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Keep the configuration directory of one service
description:
  - Writes all the files of a directory in one step and removes those that are not listed, so that a service sees its
    configuration and its secrets and nothing else.
  - Each file is replaced as a whole; secrets are never shown, neither in a diff nor in a result.
  - Returns a digest over all of it, to be kept as a label of the container that mounts the directory.
options:
  path:
    description: The directory. It is created, its parents too.
    type: path
    required: true
  files:
    description: Configuration files; a diff shows their contents.
    type: list
    elements: dict
    default: []
    suboptions: &file
      name:
        description: Name of the file, without a directory.
        type: str
        required: true
      content:
        description: The whole text of the file.
        type: str
        required: true
      mode:
        description: Its permissions, octal.
        type: str
        default: "0444"
      uid:
        description: Numeric user that owns it.
        type: int
        default: 0
      gid:
        description: Numeric group that owns it.
        type: int
        default: 0
  secrets:
    description: Files whose contents are never shown.
    type: list
    elements: dict
    default: []
    suboptions:
      <<: *file
      mode:
        description: Its permissions, octal.
        type: str
        default: "0400"
attributes:
  check_mode:
    support: full
    description: Can run in check mode and says what would change.
  diff_mode:
    support: full
    description: Shows the files' contents before and after; of a secret only that it differs.
  idempotent:
    support: full
    description: A second run with the same parameters changes nothing.
author: mlflow-stack contributors
"""

EXAMPLES = r"""
- name: Write the configuration of the FTP server
  config_files:
    path: /etc/mlflow-stack/ftp
    files:
      - {name: server.json, content: "{{ ftp_settings | to_nice_json }}"}
    secrets:
      - {name: accounts.json, content: "{{ ftp_accounts | to_json }}", uid: 1000}
"""

RETURN = r"""
digest:
  description: SHA-256 over names, owners, permissions and contents of all the files.
  returned: always
  type: str
"""

import hashlib
import os
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule


class File(NamedTuple):
    """What one file shall be."""

    name: str
    content: str
    mode: int
    uid: int
    gid: int
    secret: bool

    def matches(self, path: Path) -> bool:
        """Whether the file at `path` is as described, contents, owner and permissions."""
        try:
            status = path.lstat()
        except FileNotFoundError:
            return False
        return (
            stat.S_ISREG(status.st_mode)
            and (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (self.mode, self.uid, self.gid)
            and path.read_bytes() == self.content.encode()
        )

    def write(self, path: Path) -> None:
        """Replace the file at `path` in one step: a reader sees the old or the new one, never a part."""
        descriptor, draft = tempfile.mkstemp(dir=path.parent)  # 0600, until owner and permissions are set
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.content.encode())
                os.fchown(file.fileno(), self.uid, self.gid)
                os.fchmod(file.fileno(), self.mode)
                os.fsync(file.fileno())
            Path(draft).replace(path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise


def parse(parameters: list[dict[str, Any]], secret: bool) -> list[File]:
    """Files from the module's parameters. Raises ValueError for a name or a mode that cannot be."""
    files = []
    for item in parameters:
        name = item["name"]
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"'{name}' is not the name of a file: give a name without a directory.")
        try:
            mode = int(item["mode"], 8)
        except ValueError:
            raise ValueError(f"The mode of {name} is '{item['mode']}': give it octal, as in \"0440\".") from None
        files.append(File(name, item["content"], mode, item["uid"], item["gid"], secret))
    return files


def digest(files: list[File]) -> str:
    """SHA-256 over everything that describes the files, whatever their order; hexadecimal."""
    return hashlib.sha256(repr(sorted(files)).encode()).hexdigest()


def difference(directory: Path, wanted: list[File], stray: list[str], changed: list[File]) -> list[dict[str, str]]:
    """What a diff shows: contents of files, of secrets only that they differ."""
    secrets = {file.name for file in wanted if file.secret}

    def shown(name: str) -> str:
        path = directory / name
        if not path.is_file():
            return ""
        return "(secret)\n" if name in secrets else path.read_text(errors="replace")

    rows = [
        {
            "before_header": str(directory / file.name),
            "after_header": f"{directory / file.name} ({file.mode:04o}, {file.uid}:{file.gid})",
            "before": shown(file.name),
            "after": "(secret, changed)\n" if file.secret else file.content,
        }
        for file in changed
    ]
    # What a stray file held is not known, it may have been a secret of an earlier version.
    return rows + [{"before_header": str(directory / name), "before": "(removed)\n", "after": ""} for name in stray]


def file_spec(mode: str, content: dict[str, Any]) -> dict[str, Any]:
    """The argument specification of one list of files."""
    return {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "content": content,
            "mode": {"type": "str", "default": mode},
            "uid": {"type": "int", "default": 0},
            "gid": {"type": "int", "default": 0},
        },
    }


def main() -> None:
    """Compare, and unless in check mode, write."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "files": file_spec("0444", {"type": "str", "required": True}),
            "secrets": {
                **file_spec("0400", {"type": "str", "required": True, "no_log": True}),
                "no_log": False,  # the contents are, each; names and owners are not
            },
        },
        supports_check_mode=True,
    )
    directory = Path(module.params["path"])
    try:
        wanted = parse(module.params["files"], secret=False) + parse(module.params["secrets"], secret=True)
    except ValueError as error:
        module.fail_json(msg=str(error))

    present = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    stray = sorted(present - {file.name for file in wanted})
    changed = [file for file in wanted if not file.matches(directory / file.name)]
    result: dict[str, Any] = {
        "changed": bool(stray or changed or not directory.is_dir()),
        "digest": digest(wanted),
        "diff": difference(directory, wanted, stray, changed),
    }
    if result["changed"] and not module.check_mode:
        try:
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            for file in changed:
                file.write(directory / file.name)
            for name in stray:
                (directory / name).unlink()
        except OSError as error:
            module.fail_json(msg=f"The configuration in {directory} cannot be written: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
