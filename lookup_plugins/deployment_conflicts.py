"""Lookup of what on a host stands against a deployment: what belongs to another one, and secrets that do not fit."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: deployment_conflicts
short_description: Reasons why a deployment must not touch a host
description:
  - A host keeps which deployments it carries. What belongs to another one, or to nobody that is known, is left alone,
    and secrets other than those that a living deployment was made with are refused, as PostgreSQL, say, takes its
    password when it starts for the first time and never again.
options:
  _terms:
    description:
      - The deployment that is wanted, with its C(name), C(config_root), C(secrets_dir), C(inventory) (what it is
        deployed by), C(identity) (see the lookup deployment_identity), C(missing) and C(fixed) (names of secrets that
        there are no values of, and of those that a run cannot change), C(objects) (names of the containers, networks
        and volumes that it makes), and C(adopt) (name of a deployment whose record is to be made anew).
    required: true
    type: list
    elements: dict
  host:
    description: Name of the host, for the messages.
    required: true
    type: str
  records:
    description: What the host keeps of each deployment that it carries, by name.
    type: dict
    default: {}
  containers:
    description: All containers, as the engine lists them.
    type: list
    elements: dict
    default: []
  networks:
    description: All networks, as the engine lists them.
    type: list
    elements: dict
    default: []
  volumes:
    description: All volumes, as the engine lists them.
    type: list
    elements: dict
    default: []
  files:
    description: What M(deployment_lock) reports of the configuration's directory.
    type: list
    elements: dict
    default: []
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ query('deployment_conflicts', deployment, host=inventory_hostname, records=deployment_records) }}"
"""

RETURN = """
_raw:
  description: A sentence for each reason.
  type: list
  elements: str
"""

PROJECT = "com.docker.compose.project"

Json = dict[str, Any]


def project(thing: Json) -> str:
    """The project that an object of the engine belongs to; empty for none."""
    return str((thing.get("Labels") or {}).get(PROJECT, ""))


def named(things: list[Json]) -> Iterator[tuple[str, Json]]:
    """Objects of the engine with their names, of which a container has a list, each with a slash."""
    for thing in things:
        yield thing["Name"] if "Name" in thing else thing["Names"][0].removeprefix("/"), thing


def below(path: str, directory: str) -> bool:
    """Whether a path is a directory, or lies in it."""
    return PurePosixPath(path).is_relative_to(directory)


class Conflicts:
    """One deployment and what a host has."""

    def __init__(self, wanted: Json, host: str, records: dict[str, Json], engine: dict[str, list[Json]]) -> None:
        self.wanted = wanted
        self.name: str = wanted["name"]
        self.root: str = wanted["config_root"]
        self.host = host
        self.records = records
        self.record = records.get(self.name)
        self.engine = engine

    def ours(self) -> list[tuple[str, str]]:
        """Kind and name of all that the engine has of this deployment."""
        return [
            (kind, name)
            for kind, things in self.engine.items()
            for name, thing in named(things)
            if project(thing) == self.name
        ]

    def foreign_objects(self) -> Iterator[str]:
        """Objects of the engine that have names of ours and are not."""
        for kind, things in self.engine.items():
            for name, thing in named(things):
                owner = project(thing)
                if name in self.wanted["objects"][kind] and owner != self.name:
                    yield (
                        f"The {kind} {name} on {self.host} is {f'of {owner}' if owner else 'not of mlflow-stack'}, "
                        f"and stack_name is {self.name}: give this one another stack_name, or rename that {kind}."
                    )

    def foreign_directory(self, files: list[Json]) -> Iterator[str]:
        """A directory for the configuration that is another's."""
        for other, record in self.records.items():
            theirs = str(record["config_root"])
            if other != self.name and (below(self.root, theirs) or below(theirs, self.root)):
                yield (
                    f"stack_config_root is {self.root}, and the deployment {other} on {self.host} keeps its "
                    f"configuration in {theirs}: give this one a directory of its own, or leave stack_config_root out "
                    f"(/etc/{self.name})."
                )
        if self.record and self.record["config_root"] != self.root:
            yield (
                f"stack_config_root is {self.root}, and the deployment {self.name} on {self.host} keeps its "
                f"configuration in {self.record['config_root']}: set it to that."
            )
        if not self.record and files and not self.mounts_from_root():
            paths = sorted(file["path"] for file in files)
            yield (
                f"stack_config_root is {self.root}, and {self.host} has something in it that this deployment has not "
                f"written ({paths[0]}): set stack_config_root to a directory of its own."
            )

    def mounts_from_root(self) -> bool:
        """Whether a container of this deployment has its configuration in the directory."""
        return any(
            below(mount.get("Source", ""), self.root)
            for container in self.engine["container"]
            if project(container) == self.name
            for mount in container.get("Mounts", [])
        )

    def way_out(self) -> str:
        """What to do where the secrets do not fit."""
        return (
            f"Bring the secrets that it was deployed with to {self.wanted['secrets_dir']}, from your copy or a "
            "colleague's (docs/troubleshooting.md, 'A secret is lost', if there is none); or set another stack_name "
            "and other ports for a deployment beside it; or give it up with all its data: "
            f"ansible-playbook -i {self.wanted['inventory']} playbooks/uninstall.yml --extra-vars purge={self.name}."
        )

    def unfit_secrets(self, files: list[Json]) -> Iterator[str]:
        """Secrets other than those that the host's deployment was made with."""
        if self.wanted["adopt"] == self.name:
            return
        carries = f"{self.host} carries the deployment {self.name}"
        if self.record and self.record["authority"]:
            yield from self.unlike_recorded(self.record, carries)
        elif self.ours() and not self.has_authority_in(files):
            kind, name = self.ours()[0]
            yield (
                f"{carries} (it has the {kind} {name}), and does not know by which secrets. {self.way_out()} "
                f"If the secrets are the right ones, say so: --extra-vars stack_adopt={self.name}."
            )
        elif self.ours() and "postgres_password" in self.wanted["missing"]:
            yield f"{carries}, and {self.wanted['secrets_dir']} lacks postgres_password. {self.way_out()}"

    def unlike_recorded(self, record: Json, carries: str) -> Iterator[str]:
        """Secrets that differ from the record's."""
        known = f"{carries}, last changed by {record['by']} from {record['from']} on {record['at']}"
        identity = {authority["fingerprint"]: authority["secrets"] for authority in self.wanted["identity"]}
        if record["authority"] not in identity:
            found = "has the authority of another one" if identity else "has no authority"
            yield f"{known}, and {self.wanted['secrets_dir']} {found}. {self.way_out()}"
            return
        lost = sorted(set(self.wanted["missing"]) & set(record["secrets"]))
        if lost:
            yield f"{known}, and {self.wanted['secrets_dir']} lacks {', '.join(lost)}. {self.way_out()}"
        here = identity[record["authority"]]
        other = [
            name
            for name in self.wanted["fixed"]
            if name in here and name in record["secrets"] and here[name] != record["secrets"][name]
        ]
        if other:
            yield (
                f"{known}, with another {', '.join(other)} than is set here, which a run cannot change. "
                f"{self.way_out()}"
            )

    def has_authority_in(self, files: list[Json]) -> bool:
        """Whether an authority of ours lies in the configuration: of a deployment before there were records."""
        checksums = {file.get("checksum") for file in files if file["path"].endswith("/authority.pem")}
        return any(authority["checksum"] in checksums for authority in self.wanted["identity"])

    def all(self, files: list[Json]) -> list[str]:
        """Every reason; a directory or an object of somebody else makes the secrets no matter."""
        return [*self.foreign_directory(files), *self.foreign_objects()] or [*self.unfit_secrets(files)]


class LookupModule(LookupBase):  # type: ignore[misc]
    """Reasons for the deployments given."""

    def run(self, terms: list[Json], variables: Json | None = None, **kwargs: object) -> list[str]:
        self.set_options(var_options=variables, direct=kwargs)
        engine = {kind: self.get_option(f"{kind}s") for kind in ("container", "network", "volume")}
        host, records, files = self.get_option("host"), self.get_option("records"), self.get_option("files")
        return [reason for wanted in terms for reason in Conflicts(wanted, host, records, engine).all(files)]
