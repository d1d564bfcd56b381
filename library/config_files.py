#!/usr/bin/python
"""Ansible module: the configuration directory of one service, as a whole."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_files
short_description: Keep one configuration of a service
description:
  - Writes a directory with all the files of a configuration, so that a service sees its configuration and its secrets
    and nothing else. One that does not exist yet appears whole or not at all.
  - A directory that exists is repaired, file by file, each replaced as a whole, so that it stays the one that a
    container has mounted.
  - Secrets are never shown, neither in a diff nor in a result nor in the host's log. They belong to root and to a group
    of the containers' own, which no user of the host is in.
options:
  path:
    description:
      - The directory, named by the digest of what it holds, as the lookup C(config_listing) names it.
      - The directory that it lies in is of one service, mode 0750, for O(secrets_gid); it is created too.
    type: path
    required: true
  state:
    description: V(absent) removes all configurations beside O(path), and the directory of the service once it is empty.
    type: str
    choices: [present, absent]
    default: present
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
        default: "0440"
  secrets_gid:
    description: Numeric group that may read the secrets.
    type: int
    default: 0
  previous:
    description: The directory that a diff compares with where O(path) does not exist yet.
    type: path
  obsolete:
    description:
      - Directories that no container has mounted any more, to be removed. Only such that lie beside O(path) are, and
        the files of the layout that had no digests.
    type: list
    elements: path
    default: []
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
    path: /etc/mlflow-stack/ftp/0a1b2c3d4e5f6071
    files:
      - {name: server.json, content: "{{ ftp_settings | to_nice_json }}"}
    secrets:
      - {name: accounts.json, content: "{{ ftp_accounts | to_json }}"}
"""

RETURN = r"""
"""

import os
import re
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    import whole_file
else:
    from ansible.module_utils import whole_file

OWNER = 0  # root's files, of root's group unless they are secrets
SERVICE_MODE = 0o750  # on the host, secrets are for root alone, as nobody there is in their group
DIRECTORY_MODE = 0o755  # in a container, for whoever it runs as
DRAFT = ".draft-"


class Module(AnsibleModule):  # type: ignore[misc]
    """A module that leaves no trace of its parameters in the host's system log."""

    def _log_invocation(self) -> None:
        """Log nothing: AnsibleModule does not recognise a secret of several lines inside a list, and would log it."""


class File(NamedTuple):
    """What one file shall be."""

    name: str
    content: str
    mode: int
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
            and (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (self.mode, OWNER, self.gid)
            and self.has_content_of(path)
        )

    def has_content_of(self, path: Path) -> bool:
        """Whether the contents are those of the file at `path`."""
        return path.read_bytes() == self.content.encode()

    def write(self, path: Path) -> None:
        """Replace the file at `path` in one step: a reader sees the old or the new one, never a part."""
        remove_directory(path)
        whole_file.write(path, self.content, self.mode, uid=OWNER, gid=self.gid)


def parse(parameters: list[dict[str, Any]], gid: int, secret: bool) -> list[File]:
    """Files of a group from the module's parameters. Raises ValueError for a name or a mode that cannot be."""
    files = []
    for item in parameters:
        name = item["name"]
        if name != Path(name).name or name in ("", ".", ".."):
            raise ValueError(f"'{name}' is not the name of a file: give a name without a directory.")
        try:
            mode = int(item["mode"], 8)
        except ValueError:
            raise ValueError(f"The mode of {name} is '{item['mode']}': give it octal, as in \"0440\".") from None
        files.append(File(name, item["content"], mode, gid, secret))
    return files


def remove_directory(path: Path) -> None:
    """Remove what Docker makes where a file is missing that a container mounts. Raises OSError if it is not empty."""
    if path.is_dir() and not path.is_symlink():
        path.rmdir()


class Directory(NamedTuple):
    """What a directory shall be."""

    path: Path
    mode: int
    gid: int

    def is_right(self) -> bool:
        """Whether it is there as described, and owned by root."""
        if not self.path.is_dir():
            return False
        status = self.path.stat()
        return (stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid) == (self.mode, OWNER, self.gid)


def directories(path: Path, gid: int) -> tuple[Directory, Directory]:
    """That of the service, and that of one configuration at `path`."""
    return Directory(path.parent, SERVICE_MODE, gid), Directory(path, DIRECTORY_MODE, OWNER)


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
    return description(file.mode, OWNER, file.gid, content)


def before_of_directory(path: Path) -> str:
    """Permissions and owner of a directory; nothing where there is none."""
    if not path.is_dir():
        return ""
    status = path.stat()
    return f"{stat.S_IMODE(status.st_mode):04o} {status.st_uid}:{status.st_gid}\n"


def difference(
    both: tuple[Directory, Directory], compared: Path, stray: list[str], changed: list[File]
) -> list[dict[str, str]]:
    """What a diff shows: the directories that are not as they shall be, the files that change, those that go."""
    rows = []
    for directory in both:
        if not directory.is_right():
            found = before_of_directory(directory.path)
            wanted = f"{directory.mode:04o} {OWNER}:{directory.gid}\n"
            header = f"{directory.path}/"
            rows.append({"before_header": header, "after_header": header, "before": found, "after": wanted})
    for file in changed:
        shown = before(compared / file.name, file.secret), after(file, compared / file.name)
        if shown[0] != shown[1]:
            rows.append(
                {
                    "before_header": str(compared / file.name),
                    "after_header": str(both[1].path / file.name),
                    "before": shown[0],
                    "after": shown[1],
                }
            )
    # What a stray file held is not known, it may have been a secret of an earlier version.
    return rows + [{"before_header": str(compared / name), "before": "(removed)\n", "after": ""} for name in stray]


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
        },
    }


def make_directories(both: tuple[Directory, Directory]) -> None:
    """Make the directory of the service, and those above it."""
    service = both[0].path
    service.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    service.mkdir(mode=0o700, exist_ok=True)
    for directory in both:
        if directory.path.is_dir() and not directory.is_right():  # else its time would tell of a change
            os.chown(directory.path, OWNER, directory.gid)
            directory.path.chmod(directory.mode)  # whatever the umask of the host


def write_whole(directory: Path, wanted: list[File]) -> None:
    """Make a directory with all its files under another name first, so that it is never there in part."""
    for leftover in directory.parent.glob(f"{DRAFT}*"):  # of a run that was killed; one runs at a time
        shutil.rmtree(leftover)
    draft = Path(tempfile.mkdtemp(prefix=DRAFT, dir=directory.parent))
    for file in wanted:
        file.write(draft / file.name)
    draft.chmod(DIRECTORY_MODE)
    draft.rename(directory)
    flush(directory.parent)


def flush(directory: Path) -> None:
    """Let what was renamed in a directory outlive a loss of power."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def repair(directory: Path, stray: list[str], changed: list[File]) -> None:
    """Put the files of a directory right that exists."""
    for file in changed:
        file.write(directory / file.name)
    for name in stray:
        remove_directory(directory / name)
        (directory / name).unlink(missing_ok=True)


def remove(path: Path, directory: Path) -> None:
    """Remove a directory beside `directory`; of the service's own directory only the files. Nothing else is ours."""
    if path.parent == directory.parent and path.is_dir():
        shutil.rmtree(path)
    elif path == directory.parent:
        for file in path.iterdir():
            if not file.is_dir() or file.is_symlink():
                file.unlink()


def is_configuration(path: Path) -> bool:
    """Whether a directory is one that this module has made, or a link leads to one: by its name."""
    name = path.readlink().name if path.is_symlink() else path.name
    return (path.is_dir() and name.startswith(DRAFT)) or re.fullmatch(r"[0-9a-f]{16}", name) is not None


def apply_absent(directory: Path, check_mode: bool) -> dict[str, Any]:
    """Remove all configurations of a service unless in check mode; the module's result. Raises OSError."""
    service = directory.parent
    found = sorted(path for path in service.iterdir() if is_configuration(path)) if service.is_dir() else []
    if not check_mode:
        for path in found:
            path.unlink() if path.is_symlink() else shutil.rmtree(path)
        if service.is_dir() and not any(service.iterdir()):
            service.rmdir()
    return {"changed": bool(found), "diff": [{"before_header": f"{path}/", "before": "(removed)\n"} for path in found]}


def apply(
    directory: Path, gid: int, wanted: list[File], previous: Path | None, obsolete: list[Path], check_mode: bool
) -> dict[str, Any]:
    """Compare, and unless in check mode, write; the module's result. Raises OSError."""
    exists = directory.is_dir()
    compared = directory if exists or not previous else previous
    # The previous one may be of the layout that had no digests, and this one a directory in it.
    present = {path.name for path in compared.iterdir() if exists or path.is_file()} if compared.is_dir() else set()
    stray = sorted(present - {file.name for file in wanted})
    changed = [file for file in wanted if not file.matches(directory / file.name)]
    both = directories(directory, gid)
    wrong = not all(one.is_right() for one in both)
    result = {
        "changed": bool((stray and exists) or changed or wrong or obsolete),
        "diff": difference(both, compared, stray, changed),
    }
    if result["changed"] and not check_mode:
        make_directories(both)
        if exists:
            repair(directory, stray, changed)
        else:
            write_whole(directory, wanted)
        for path in obsolete:
            remove(path, directory)
    return result


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "path": {"type": "path", "required": True},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
            "files": file_spec("0444", {"type": "str", "required": True}),
            "secrets": {
                **file_spec("0440", {"type": "str", "required": True, "no_log": True}),
                "no_log": False,  # the contents are, each; names are not
            },
            "secrets_gid": {"type": "int", "default": 0},
            "previous": {"type": "path"},
            "obsolete": {"type": "list", "elements": "path", "default": []},
        },
        supports_check_mode=True,
    )
    parameters = module.params
    directory = Path(parameters["path"])
    previous = Path(parameters["previous"]) if parameters["previous"] else None
    obsolete = [Path(path) for path in parameters["obsolete"]]
    try:
        wanted = [
            *parse(parameters["files"], OWNER, secret=False),
            *parse(parameters["secrets"], parameters["secrets_gid"], secret=True),
        ]
        if parameters["state"] == "absent":
            result = apply_absent(directory, module.check_mode)
        else:
            result = apply(directory, parameters["secrets_gid"], wanted, previous, obsolete, module.check_mode)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"The configuration in {directory} cannot be kept: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
