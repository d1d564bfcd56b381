"""Lookup of what a service's container shall be, and what there is of it."""

from __future__ import annotations

import hashlib
import json
import re
from typing import Any

from ansible.plugins.loader import lookup_loader
from ansible.plugins.lookup import LookupBase

DOCUMENTATION = """
name: container_plan
short_description: What a service's container shall be, and what there is of it
description:
  - Completes a definition in the words of the Compose specification, and compares it with what the engine has listed
    and what M(deployment_lock) has found. Nothing is asked of the host.
options:
  _terms:
    description: Names of services.
    required: true
    type: list
    elements: str
  project:
    description: Name of the deployment.
    type: str
    required: true
  definition:
    description: The service in the words of the Compose specification.
    type: dict
    required: true
  files:
    description: Its configuration files, as M(config_files) takes them.
    type: list
    elements: dict
    default: []
  secrets:
    description: Its secrets, as M(config_files) takes them.
    type: list
    elements: dict
    default: []
  secrets_gid:
    description: Numeric group that may read the secrets.
    type: int
    required: true
  config_root:
    description: Directory on the host that holds the configuration of each service.
    type: str
    required: true
  networks:
    description: Docker networks, by the names that definitions have for them.
    type: dict
    required: true
  registry:
    description: Registry that stands in for docker.io and quay.io.
    type: str
    default: ""
  candidate:
    description: Whether it is to be beside the one that runs, by a name of its own, until it takes that one's place.
    type: bool
    default: false
  containers:
    description: The engine's containers, as it lists them, by name.
    type: dict
    required: true
  found:
    description: What M(deployment_lock) has found below O(config_root).
    type: list
    elements: dict
    default: []
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('container_plan', 'ftp', project='mlflow-stack', definition=ftp_container, secrets_gid=64720,
                    config_root='/etc/mlflow-stack', networks=container_networks, containers=docker_containers).done }}"
"""

RETURN = """
_raw:
  description:
    - Of what shall be, the complete C(definition), its C(networks) as Docker names them, C(mounts), C(volumes) that it
      names, C(labels) and C(config), that is the C(path) of its directory and its C(listing), as M(deployment_lock)
      gives it; the C(health_command) that its health check runs; whether it C(is_task), which runs to its end, and when
      the engine is to C(restart) it.
    - Of what there is, whether the configuration is C(written), and when it C(changed) last, in seconds since 1970;
      whether a container is C(done), that is right and at work, or right and C(awaited); what is C(mounted) as its
      configuration, the name of its C(previous) container, and the one that has worked last, C(succeeded).
    - Whether the service is C(live), that is, follows its files (C(x-live-configuration) in its definition). It has all
      its configurations mounted; the link C(current) leads to the one that holds, C(worked) to the last one that was
      found to work. Where they lead now, C(linked) and C(worked), and whether the container C(follows), is right but
      for what it has to take over.
    - Whether a change is made C(beside) the container that runs (C(x-beside) in its definition, and no port that both
      would publish). Such a service is known by its container's name alone, and has no C(aliases) in its networks,
      which a candidate would share.
    - Which configurations are C(obsolete) once it is done, and whether all is C(settled), that is done and tidied up.
  type: list
  elements: dict
"""

Json = dict[str, Any]

MOUNTED_AT = "/etc/mlflow-stack"
LINK, WORKED = "current", "worked"
# What every service gets, unless its definition says otherwise. Restarted always, not "unless-stopped": engines like
# Debian 12's take what a crash of theirs has ended for stopped by hand.
COMMON: Json = {
    "restart": "always",
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges:true"],
    "logging": {"driver": "json-file", "options": {"max-size": "10m", "max-file": "3"}},
    "networks": ["default"],
    "volumes": [],
    "labels": {},
}


def completed(service: str, project: str, definition: Json) -> Json:
    """The whole definition, but for its image and the mount of its configuration."""
    given = {key: value for key, value in definition.items() if key not in ("build", "configs")}
    names = {"container_name": f"{project}-{service}"}
    # A host's name is one that engines from 25 on find the container by, and a candidate would share it.
    return COMMON | names | ({} if definition.get("x-beside") else {"hostname": service}) | given


def health_command(definition: Json) -> list[str]:
    """What its health check runs in the container; nothing if it has none."""
    test = definition.get("healthcheck", {}).get("test", [])
    if isinstance(test, str):
        test = ["CMD-SHELL", test]
    return ["/bin/sh", "-c", *test[1:]] if test[:1] == ["CMD-SHELL"] else list(test[1:])


def mounts(definition: Json, configs: list[dict[str, str]], directory: str) -> list[str]:
    """Its volumes; the configuration as a whole; and each file that has to lie elsewhere in the container too."""
    files = [f"{directory}/{config['source']}:{config['target']}:ro" for config in configs]
    return [*definition["volumes"], f"{directory}:{MOUNTED_AT}:ro", *files]


def labels(service: str, project: str, made_of: list[Any]) -> dict[str, str]:
    """What Compose and Portainer know a container of a project by.

    The same hash, nothing to do. Compose computes it in another way, so each takes over what the other has made.
    """
    return {
        "com.docker.compose.project": project,
        "com.docker.compose.service": service,
        "com.docker.compose.container-number": "1",
        "com.docker.compose.oneoff": "False",
        "com.docker.compose.config-hash": hashlib.sha256(json.dumps(made_of, sort_keys=True).encode()).hexdigest(),
    }


def works(container: Json, definition: Json) -> bool:
    """Whether a container is in the state that it shall be in."""
    if definition["restart"] == "no":
        good = r"Exited \(0\)"
    else:
        good = r"Up .*\(healthy\)" if health_command(definition) else "Up "
    return bool(re.match(good, container.get("Status", "")))


def is_as_defined(container: Json, plan: Json) -> bool:
    """Whether a container was made from this definition, and is in its networks."""
    hashed = "com.docker.compose.config-hash"
    return (
        bool(container)
        and container.get("Image") == plan["definition"]["image"]
        and container.get("Labels", {}).get(hashed) == plan["labels"][hashed]
        and set(plan["networks"]) <= container["NetworkSettings"]["Networks"].keys()
    )


def has_read(container: Json, plan: Json) -> bool:
    """Whether a container has found its configuration as it is; one that follows its files tells by its health.

    Whoever has changed a file since, and put it back perhaps, the process may have read something else.
    """
    if plan["live"]:
        return bool(plan["written"] and plan["linked"] == plan["worked"] == plan["config"]["path"])
    return bool(plan["written"] and plan["changed"] <= int(container["Created"]))


def below(path: str, directory: str) -> bool:
    """Whether a path is that of a directory or lies in it."""
    return path == directory or path.startswith(f"{directory}/")


def configuration(config: Json, service_dir: str, found: list[Json]) -> Json:
    """What there is of the configuration on the host."""
    entries = [entry for entry in found if entry["path"] == service_dir or below(entry["path"], config["path"])]
    facts = ("path", "mode", "uid", "gid", "checksum")
    listing = [{fact: entry[fact] for fact in facts if fact in entry} for entry in entries]
    changed = [int(entry["ctime"]) for entry in entries if below(entry["path"], config["path"])]
    return {
        "written": sorted(listing, key=lambda entry: str(entry["path"])) == config["listing"],
        "changed": max(changed, default=0),
    }


def configurations_mounted(*containers: Json) -> list[str]:
    """The directories that containers have their configuration mounted from."""
    return [
        mount["Source"]
        for container in containers
        for mount in container.get("Mounts", [])
        if mount["Destination"] == MOUNTED_AT
    ]


def linked(service_dir: str, name: str, found: list[Json]) -> str:
    """Where a link of a service that follows its files leads; empty where there is none."""
    targets = [entry["link"] for entry in found if entry["path"] == f"{service_dir}/{name}" and "link" in entry]
    return f"{service_dir}/{targets[0]}" if targets else ""


def obsolete(service_dir: str, wanted: str, mounted: list[str], found: list[Json]) -> list[str]:
    """Configurations that no container has mounted once the new one is at work.

    They are the directories that are named by a digest, and what this service has had mounted before.
    """
    directories = [
        entry["path"] for entry in found if re.fullmatch(re.escape(service_dir) + "/[0-9a-f]{16}", entry["path"])
    ]
    had = [path for path in mounted if below(path, service_dir)]
    return [path for path in dict.fromkeys(directories + had) if path != wanted]


class LookupModule(LookupBase):  # type: ignore[misc]
    """Plans of services."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[Json]:
        self.set_options(var_options=variables, direct=kwargs)
        return [self._plan(service) for service in terms]

    def _plan(self, service: str) -> Json:
        project, given, gid = (self.get_option(name) for name in ("project", "definition", "secrets_gid"))
        containers, found = self.get_option("containers"), self.get_option("found")
        service_dir = f"{self.get_option('config_root')}/{service}"
        config = lookup_loader.get("config_listing").run(
            [service_dir], files=self.get_option("files"), secrets=self.get_option("secrets"), secrets_gid=gid
        )[0]
        image = lookup_loader.get("image_reference").run(
            [given["image"]], build=given.get("build", {}), registry=self.get_option("registry")
        )[0]
        definition = completed(service, project, given)
        definition |= {"image": image, "group_add": [str(gid)]}
        beside = bool(definition.get("x-beside"))
        networks = [self.get_option("networks")[name] for name in definition["networks"]]
        live = bool(definition.get("x-live-configuration"))
        mounted_at = mounts(definition, given.get("configs", []), service_dir if live else config["path"])
        # The same labels as the one whose place it takes: then a change of its name is all.
        made_of = {key: value for key, value in definition.items() if not key.startswith("x-")}
        identity = labels(service, project, [made_of, mounted_at, networks])
        candidate = self.get_option("candidate")
        if candidate:
            definition |= {"container_name": f"{definition['container_name']}-candidate"}
        name = definition["container_name"]
        present, before = containers.get(name, {}), containers.get(f"{name}-previous", {})
        at_work = works(present, definition)
        mounted = configurations_mounted(present, before)
        plan = {
            "definition": definition,
            "config": config,
            "networks": networks,
            "mounts": mounted_at,
            "volumes": [volume.split(":")[0] for volume in definition["volumes"] if volume[0] not in "/."],
            "labels": identity,
            "aliases": [] if beside else [service],
            "beside": beside and not candidate and bool(present) and not definition.get("ports"),
            "health_command": health_command(definition),
            "is_task": definition["restart"] == "no",
            # A candidate that ends has failed, and is nobody's after a restart of the host.
            "restart": "no" if candidate else definition["restart"],
            "previous": f"{name}-previous",
            "works": at_work,
            "succeeded": present if at_work or not before else before,
            "mounted": [path for path in mounted if not live or path != service_dir],
            "live": live,
            "linked": linked(service_dir, LINK, found),
            "worked": linked(service_dir, WORKED, found),
            **configuration(config, service_dir, found),
        }
        outdated = obsolete(service_dir, config["path"], plan["mounted"], found)
        plan["obsolete"] = [] if candidate else outdated
        defined = is_as_defined(present, plan)
        right = defined and has_read(present, plan)
        plan["done"] = right and at_work
        # One that is right and has only just been started, as after a restart of the host, is given its time.
        plan["awaited"] = right and bool(re.match("Up .*health: starting", present.get("Status", "")))
        # One that has nothing to take over and is not well gets no better by it.
        at_hand = defined and bool(re.match("Up ", present.get("Status", "")))
        plan["follows"] = live and at_hand and (at_work or plan["awaited"] or not right)
        plan["settled"] = plan["done"] and not plan["obsolete"] and plan["previous"] not in containers
        return plan
