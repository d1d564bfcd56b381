#!/usr/bin/python
"""Ansible module: the configuration directory of one service, as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Keep the configuration directory of one service
description:
  - Writes all the files of a directory in one step and removes those that are not listed, so that a service sees its
    configuration and its secrets and nothing else.
  - Each file is replaced as a whole; secrets are never shown, neither in a diff nor in a result nor in the host's log.
options:
  path:
    description: The directory. It is created with mode 0755, its parents too.
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
    description: Shows permissions, owners and contents before and after; of a secret's contents only that they differ.
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
created:
  description: Whether the directory was missing; a container that mounts the old one has to be made anew.
  returned: always
  type: bool
"""

import os
import stat
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

DIRECTORY_MODE = 0o755


class Module(AnsibleModule):  # type: ignore[misc]
    """A module that leaves no trace of its parameters in the host's system log."""

    def _log_invocation(self) -> None:
        """Log nothing: AnsibleModule does not recognise a secret of several lines inside a list, and would log it."""


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
            and self.has_content_of(path)
        )

    def has_content_of(self, path: Path) -> bool:
        """Whether the contents are those of the file at `path`."""
        return path.read_bytes() == self.content.encode()

    def write(self, path: Path) -> None:
        """Replace the file at `path` in one step: a reader sees the old or the new one, never a part."""
        descriptor, draft = tempfile.mkstemp(dir=path.parent)  # 0600, until owner and permissions are set
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(self.content.encode())
                os.fchown(file.fileno(), self.uid, self.gid)
                os.fchmod(file.fileno(), self.mode)
                os.fsync(file.fileno())
            remove_directory(path)
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


def remove_directory(path: Path) -> None:
    """Remove what Docker makes where a file is missing that a container mounts. Raises OSError if it is not empty."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()


def has_directory_mode(directory: Path) -> bool:
    """Whether the directory is there and every service can enter it, whoever it runs as."""
    return directory.is_dir() and stat.S_IMODE(directory.stat().st_mode) == DIRECTORY_MODE


def description(mode: int, uid: int, gid: int, content: str) -> str:
    """A file as a diff shows it: permissions and owner, then the contents."""
    return f"{mode:04o} {uid}:{gid}\n{content}"


def before(path: Path, secret: bool) -> str:
    """What a diff shows of the file that is there: nothing if it is none, of a secret not its contents."""
    if not path.is_file():
        return ""
    status = path.stat()
    mode = stat.S_IMODE(status.st_mode)
    hidden = secret or not mode & stat.S_IROTH  # what only its owner may read may have been a secret until now
    content = "(secret)\n" if hidden else path.read_text(errors="replace")
    return description(mode, status.st_uid, status.st_gid, content)


def after(file: File, path: Path) -> str:
    """What a diff shows of the file that shall be there, of a secret only whether its contents change."""
    if not file.secret:
        content = file.content
    elif path.is_file() and file.has_content_of(path):
        content = "(secret)\n"
    else:
        content = "(secret, changed)\n"
    return description(file.mode, file.uid, file.gid, content)


def difference(directory: Path, stray: list[str], changed: list[File]) -> list[dict[str, str]]:
    """What a diff shows: the directory if it is not as it shall be, the files that change, those that go."""
    rows = [
        {
            "before_header": str(directory / file.name),
            "after_header": str(directory / file.name),
            "before": before(directory / file.name, file.secret),
            "after": after(file, directory / file.name),
        }
        for file in changed
    ]
    if not has_directory_mode(directory):
        found = f"{stat.S_IMODE(directory.stat().st_mode):04o}\n" if directory.is_dir() else ""
        header = f"{directory}/"
        wanted = f"{DIRECTORY_MODE:04o}\n"
        rows.insert(0, {"before_header": header, "after_header": header, "before": found, "after": wanted})
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


def apply(directory: Path, wanted: list[File], check_mode: bool) -> dict[str, Any]:
    """Compare, and unless in check mode, write; the module's result. Raises OSError."""
    present = {path.name for path in directory.iterdir()} if directory.is_dir() else set()
    stray = sorted(present - {file.name for file in wanted})
    changed = [file for file in wanted if not file.matches(directory / file.name)]
    result = {
        "changed": bool(stray or changed or not has_directory_mode(directory)),
        "created": not directory.is_dir(),
        "diff": difference(directory, stray, changed),
    }
    if result["changed"] and not check_mode:
        directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # on the host, secrets are for root alone
        directory.mkdir(exist_ok=True)
        directory.chmod(DIRECTORY_MODE)  # whatever the umask of the host
        for file in changed:
            file.write(directory / file.name)
        for name in stray:
            remove_directory(directory / name)
            (directory / name).unlink(missing_ok=True)
    return result


def main() -> None:
    """Run the module."""
    module = Module(
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
        result = apply(directory, wanted, module.check_mode)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The configuration in {directory} cannot be kept: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
