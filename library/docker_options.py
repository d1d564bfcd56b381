#!/usr/bin/python
"""Ansible module: what deployments want of the Docker engine of their host, over what its own daemon.json says."""

from __future__ import annotations

DOCUMENTATION = r"""
module: docker_options
short_description: Keep the options and the environment of the Docker engine of a host
description:
  - Merges the options of each deployment over the host's own file (daemon.json) and remembers what it wrote over what,
    so that an option that nobody wants any more goes, and the host's own value comes back.
  - The engine itself is asked whether it takes the file before the file is written.
  - The engine is not restarted. RV(restart) says that it has to be, and goes on saying so, in later runs too, until
    O(state=settled) tells that it came up, or O(state=reverted) brought the files of before back.
options:
  deployment:
    description: Whose options these are.
    type: str
    required: true
  options:
    description: What the deployment wants in daemon.json. Deployments of one host must not want different things.
    type: dict
    default: {}
  defaults:
    description:
      - Options for an engine that is about to be installed. They hold as long as neither the host's file nor a
        deployment says something else.
    type: dict
    default: {}
  environment:
    description: Environment variables of the engine; never shown.
    type: dict
    default: {}
  state:
    description: See above.
    type: str
    choices: [present, settled, reverted]
    default: present
  file:
    description: The engine's file.
    type: path
    default: /etc/docker/daemon.json
  directory:
    description: Where the module keeps C(DEPLOYMENT.env), which the engine's service reads, and its own record.
    type: path
    default: /etc/docker/mlflow-stack
  fact:
    description:
      - Local fact of Ansible, with C(deployments), those that have options or an environment here, and C(pending),
        whether something was written that no start of the engine was seen to take.
    type: path
    default: /etc/ansible/facts.d/mlflow_stack_options.fact
  pidfile:
    description: Written by the engine when it starts.
    type: path
    default: /run/docker.pid
attributes:
  check_mode:
    support: full
    description: Can run in check mode, which asks the engine too.
  diff_mode:
    support: full
    description: Shows daemon.json before and after, without passwords in URLs; of the environment only that it changes.
  idempotent:
    support: full
    description: A second run with the same parameters changes nothing.
author: mlflow-stack contributors
"""

EXAMPLES = r"""
- name: Keep the data on the large disk
  docker_options:
    deployment: mlflow-stack
    options: {data-root: /srv/docker}
    environment: {HTTPS_PROXY: "http://proxy.example:3128"}
"""

RETURN = r"""
restart:
  description: Whether the engine has not yet loaded what is wanted.
  returned: with state=present
  type: bool
data_root:
  description: The option data-root that will hold; empty if there is none.
  returned: with state=present
  type: str
moves_data:
  description: Whether that option changes.
  returned: with state=present
  type: bool
"""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ansible.module_utils.basic import AnsibleModule

if TYPE_CHECKING:
    import whole_file
else:
    from ansible.module_utils import whole_file

Options = dict[str, Any]
NOBODY = 65534
BINARIES = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/snap/bin"
ABSENT = object()


class OptionsError(Exception):
    """What is wanted cannot be; the message says why, and what to do."""


class Written(NamedTuple):
    """One value that was written, and what the host's own file said in its place."""

    path: tuple[str, ...]
    value: Any
    own: Any = ABSENT

    @classmethod
    def load(cls, entry: dict[str, Any]) -> Written:
        """From the record."""
        return cls(tuple(entry["path"]), entry["value"], entry.get("own", ABSENT))

    def dump(self) -> dict[str, Any]:
        """For the record."""
        entry = {"path": list(self.path), "value": self.value}
        return entry if self.own is ABSENT else entry | {"own": self.own}


class Files(NamedTuple):
    """Where everything is."""

    daemon: Path
    environment: Path
    record: Path
    fact: Path
    pid: Path


def leaves(options: Options, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each value with the keys that lead to it; lists and empty dictionaries are values."""
    for key, value in options.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, (*path, key))
        else:
            yield (*path, key), value


def find(options: Options, path: tuple[str, ...]) -> Any:  # noqa: ANN401 (whatever JSON holds)
    """The value at a path, or ABSENT."""
    found: Any = options
    for key in path:
        if not isinstance(found, dict) or key not in found:
            return ABSENT
        found = found[key]
    return found


def merge(under: Options, over: Options) -> Options:
    """Dictionaries are merged, everything else is replaced."""
    merged = dict(under)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def put(options: Options, path: tuple[str, ...], value: Any) -> Options:  # noqa: ANN401
    """The options with one value set, or with ABSENT removed, as are the dictionaries that this empties."""
    key, *rest = path
    inner = put(options[key], tuple(rest), value) if rest else value
    kept = {name: other for name, other in options.items() if name != key}
    return kept if inner is ABSENT or (rest and inner == {}) else {**options, key: inner}


def undo(options: Options, layer: list[Written]) -> Options:
    """The options without what was written; what somebody has changed since is theirs."""
    for written in layer:
        if find(options, written.path) == written.value:
            options = put(options, written.path, written.own)
    return options


def wanted_options(own: Options, defaults: Options, deployments: dict[str, Options]) -> Options:
    """What is written over the host's own options.

    Raises OptionsError if two deployments want different values of the same option.
    """
    said: dict[tuple[str, ...], tuple[str, Any]] = {}
    merged: Options = {}
    for deployment, options in sorted(deployments.items()):
        for path, value in leaves(options):
            other, theirs = said.setdefault(path, (deployment, value))
            if theirs != value:
                raise OptionsError(
                    f"docker_daemon_options: {deployment} wants {'.'.join(path)} to be {json.dumps(value)},"
                    f" and {other}, on the same host, {json.dumps(theirs)}. They share one engine:"
                    " let them say the same, or only one of them speak."
                )
        merged = merge(merged, options)
    overruled = any(merged.get(key, value) != value for key, value in defaults.items() if not isinstance(value, dict))
    return merged if overruled or defaults.keys() & own.keys() else merge(defaults, merged)


def read_options(path: Path) -> Options:
    """The options of a file; none if there is no file. Raises OptionsError if it holds no JSON object."""
    if not path.exists():
        return {}
    text = path.read_text()
    try:
        options = json.loads(text) if text.strip() else {}
    except ValueError as error:
        raise OptionsError(
            f"{path} is not JSON ({error}), so the Docker engine does not start with it: repair or remove that file."
        ) from None
    if not isinstance(options, dict):
        raise OptionsError(
            f"{path} holds {json.dumps(options)}, and must hold a JSON object: repair or remove that file."
        )
    return options


def complaint(options: Options, name: Path) -> str:
    """What the engine says against the options, where it is installed; nothing if it takes them.

    Engines before 23.0 cannot be asked; started by an ordinary user they read the file, then end for want of rights.
    """
    dockerd = shutil.which("dockerd", path=BINARIES)
    if dockerd is None:
        return ""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        draft = Path(directory, name.name)
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(options))
        answer = ask(dockerd, "--validate", f"--config-file={draft}")
        if "unknown flag" in answer.stderr:
            os.chown(draft, NOBODY, NOBODY)
            answer = ask(dockerd, f"--config-file={draft}", user=NOBODY)
        said: str = (answer.stderr.strip().splitlines() or [""])[-1].replace(str(draft), str(name))
        said = said.removeprefix(f"unable to configure the Docker daemon with file {name}: ")
    return "" if answer.returncode == 0 or "needs to be started with root" in said else said


def ask(*command: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    """Run a command that ends by itself, without rights if a user is given."""
    return subprocess.run(
        command,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
        env={"PATH": BINARIES, "HOME": "/nonexistent"},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def check(options: Options, own: Options, file: Path) -> None:
    """Raise OptionsError if the engine would not take the options; it says whether the host's own are at fault."""
    root = options.get("data-root", "/")
    if not isinstance(root, str) or not root.startswith("/"):
        raise OptionsError(f"The Docker engine's data-root is {json.dumps(root)}, and must be a directory's full path.")
    said = complaint(options, file)
    if not said:
        return
    if complaint(own, file):
        raise OptionsError(f"The Docker engine refuses {file} of this host: {said}. Repair that file.")
    raise OptionsError(
        f"The Docker engine refuses docker_daemon_options (or docker_registry_mirrors): {said}."
        " Correct the option, or remove it."
    )


def environment_text(environment: dict[str, str]) -> str:
    """The environment as both systemd and a shell read it. Raises OptionsError for what has more than one line."""
    for name, value in environment.items():
        if not str(value).isprintable():
            raise OptionsError(
                f"{name} of the Docker engine has characters that cannot be printed: give an URL on one line."
            )
    return "".join(f"{name}={shlex.quote(str(value))}\n" for name, value in environment.items())


def write(path: Path, text: str | None, mode: int) -> None:
    """Replace the file in one step, or remove it. Raises OSError."""
    if text is None:
        path.unlink(missing_ok=True)
        return
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        mode = stat.S_IMODE(path.stat().st_mode)  # the host's own file may be closed
    whole_file.write(path, text, mode)


def text_of(path: Path) -> str | None:
    """The text of a file, if there is one."""
    return path.read_text() if path.is_file() else None


def as_json(value: object) -> str:
    """JSON as a file has it."""
    return json.dumps(value, indent=4, sort_keys=True) + "\n"


class Engine:
    """The files of one host's engine, and the record of what was written into them.

    The record: `defaults`; `options` by deployment; `layers`, each what was written over the host's own file: the last
    that the engine came up with, then those that were written since; and while there are such, `before`, to go back to.
    """

    def __init__(self, files: Files) -> None:
        self.files = files
        self.record: dict[str, Any] = {"defaults": {}, "options": {}, "layers": [[]]}
        self.record |= json.loads(text_of(files.record) or "{}")

    @property
    def pending(self) -> bool:
        """Whether files were written that no start of the engine was seen to take."""
        return "before" in self.record

    def own(self) -> Options:
        """What the host's own file says, without us. Raises OptionsError."""
        options = read_options(self.files.daemon)
        for layer in reversed(self.record["layers"]):
            options = undo(options, [Written.load(entry) for entry in layer])
        return options

    def loaded(self) -> bool:
        """Whether the engine has started after the files were written, as after a reboot."""
        times = [path.stat().st_mtime for path in (self.files.daemon, self.files.environment) if path.exists()]
        return self.files.pid.exists() and self.files.pid.stat().st_mtime > max(times, default=0)

    def save(self) -> None:
        """Write the record, and the fact that says for whom there is one. Raises OSError."""
        write(self.files.record, as_json(self.record), 0o600)
        names = set(self.record["options"]) | {path.stem for path in self.files.record.parent.glob("*.env")}
        write(self.files.fact, as_json({"deployments": sorted(names), "pending": self.pending}), 0o644)

    def change(
        self, deployment: str, options: Options, layer: list[Written], daemon: str | None, env: str | None
    ) -> None:
        """Write the files, after the record that tells how to undo it. Raises OSError."""
        before = self.record.setdefault(
            "before",
            {"options": deepcopy(self.record["options"]), "daemon": text_of(self.files.daemon), "environment": {}},
        )
        before["environment"].setdefault(self.files.environment.name, text_of(self.files.environment))
        self.record["options"][deployment] = options
        self.record["layers"].append([written.dump() for written in layer])
        self.save()
        write(self.files.daemon, daemon, 0o644)
        write(self.files.environment, env, 0o600)

    def settle(self, deployment: str) -> None:
        """The engine came up with what was written. Raises OSError."""
        self.record.pop("before", None)
        self.record["layers"] = self.record["layers"][-1:]
        if not self.record["options"].get(deployment):
            self.record["options"].pop(deployment, None)
        self.save()

    def revert(self) -> None:
        """Bring the files back that the engine last came up with. Raises OSError."""
        before = self.record.pop("before")
        write(self.files.daemon, before["daemon"], 0o644)
        for name, text in before["environment"].items():  # each deployment has one
            write(self.files.environment.with_name(name), text, 0o600)
        self.record["options"] = before["options"]
        self.record["layers"] = self.record["layers"][:1]
        self.save()


def hide_passwords(text: str) -> str:
    """The text without the user's part of URLs."""
    return re.sub(r"//[^/@\s\"]*@", "//***@", text)


def apply(
    engine: Engine, deployment: str, options: Options, defaults: Options, environment: dict[str, str], check_mode: bool
) -> dict[str, Any]:
    """Compare, ask the engine, and unless in check mode, write; the module's result.

    Raises OptionsError and OSError.
    """
    found, own = read_options(engine.files.daemon), engine.own()
    if defaults:
        engine.record["defaults"] = defaults
    others = {name: theirs for name, theirs in engine.record["options"].items() if name != deployment}
    over = wanted_options(own, engine.record["defaults"], {**others, deployment: options})
    wanted = merge(own, over)
    check(wanted, own, engine.files.daemon)

    env, env_found = environment_text(environment) or None, text_of(engine.files.environment)
    known = engine.record["options"].get(deployment, {})
    differs = wanted != found or env != env_found
    restart = differs or (engine.pending and not engine.loaded())
    if not check_mode:
        if differs:
            daemon = as_json(wanted) if wanted != found else text_of(engine.files.daemon)
            layer = [Written(path, value, find(own, path)) for path, value in leaves(over)]
            engine.change(deployment, options, layer, daemon, env)
        elif engine.pending and not restart:
            engine.settle(deployment)
        elif known != options:  # what the host's own file says already, and so nobody need load
            engine.record["options"][deployment] = options
            engine.record["layers"][-1] = [Written(path, value, find(own, path)).dump() for path, value in leaves(over)]
            engine.save()
    header = str(engine.files.daemon)
    diff = [
        {
            "before_header": header,
            "after_header": header,
            "before": hide_passwords(as_json(found)),
            "after": hide_passwords(as_json(wanted)),
        }
    ]
    if env != env_found:
        header = str(engine.files.environment)
        hidden = {None: "", env_found: "(secret)\n", env: "(secret, changed)\n"}
        diff.append(
            {"before_header": header, "after_header": header, "before": hidden[env_found], "after": hidden[env]}
        )
    root, root_found = wanted.get("data-root", ""), found.get("data-root", "")
    return {
        "changed": restart,
        "restart": restart,
        "data_root": root,
        "moves_data": root != root_found,
        "diff": diff,
    }


class Module(AnsibleModule):  # type: ignore[misc]
    """A module that leaves no trace of its parameters in the host's system log."""

    def _log_invocation(self) -> None:
        """Log nothing: an option may be a proxy with its password."""


def main() -> None:
    """Run the module."""
    module = Module(
        argument_spec={
            "deployment": {"type": "str", "required": True},
            "options": {"type": "dict", "default": {}},
            "defaults": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}, "no_log": True},
            "state": {"type": "str", "choices": ["present", "settled", "reverted"], "default": "present"},
            "file": {"type": "path", "default": "/etc/docker/daemon.json"},
            "directory": {"type": "path", "default": "/etc/docker/mlflow-stack"},
            "fact": {"type": "path", "default": "/etc/ansible/facts.d/mlflow_stack_options.fact"},
            "pidfile": {"type": "path", "default": "/run/docker.pid"},
        },
        supports_check_mode=True,
    )
    wanted = module.params
    deployment, directory = wanted["deployment"], Path(wanted["directory"])
    files = Files(
        Path(wanted["file"]),
        directory / f"{deployment}.env",
        directory / "options.json",
        Path(wanted["fact"]),
        Path(wanted["pidfile"]),
    )
    result: dict[str, Any] = {"changed": False}
    try:
        engine = Engine(files)
        if wanted["state"] == "present":
            given = (wanted["options"], wanted["defaults"], wanted["environment"])
            result = apply(engine, deployment, *given, module.check_mode)
        elif engine.pending:
            result["changed"] = wanted["state"] == "reverted"
            if not module.check_mode:
                engine.revert() if wanted["state"] == "reverted" else engine.settle(deployment)
    except OptionsError as error:
        module.fail_json(msg=str(error))
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"The options of the Docker engine cannot be kept: {error}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
