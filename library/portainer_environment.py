#!/usr/bin/python
"""Ansible module: the desired state of one environment of Portainer."""

from __future__ import annotations

DOCUMENTATION = r"""
module: portainer_environment
short_description: Keep an environment of Portainer, and prove that it works
description:
  - An environment is a Docker engine that Portainer manages.
  - Waits until Portainer answers and has its administrator, logs in once, registers the environment if it is missing,
    and asks the Docker engine behind it for its version, through Portainer.
  - Talks to Portainer 2 by its REST API and needs no library on the target.
author: mlflow-stack contributors
attributes:
  check_mode:
    support: full
    description: Says what would change; a Portainer that does not run yet has no environments.
  diff_mode:
    support: full
    description: Shows the environment's name and URL before and after.
  idempotent:
    support: full
    description: A second run with the same parameters changes nothing.
options:
  portainer_url:
    description: URL of Portainer. The module runs on Portainer's own host, so no proxy is used.
    type: str
    required: true
  username:
    description: Administrator of Portainer.
    type: str
    default: admin
  password:
    description: Password of O(username).
    type: str
    required: true
  validate_certs:
    description: Whether Portainer's certificate is verified. The one that it makes for itself cannot be.
    type: bool
    default: true
  ca_path:
    description: PEM file, on the target, with the authorities to trust instead of those of the target.
    type: path
  start_timeout:
    description: Seconds that Portainer may take until it answers and has its administrator.
    type: float
    default: 120.0
  timeout:
    description: Seconds that one request may take.
    type: float
    default: 30.0
  name:
    description: Name of the environment.
    type: str
    required: true
  url:
    description: The Docker engine, C(unix://) with a path in Portainer's container or C(tcp://) with host and port.
    type: str
    default: unix:///var/run/docker.sock
  state:
    description: Whether the environment is there. Removing it removes nothing from the Docker engine.
    type: str
    choices: [present, absent]
    default: present
"""

EXAMPLES = r"""
- name: Register the Docker engine that Portainer runs on
  portainer_environment:
    portainer_url: https://127.0.0.1:9443
    password: "{{ portainer_admin_password }}"
    validate_certs: false
    name: local
"""

RETURN = r"""
environment:
  description: The environment as Portainer keeps it.
  returned: O(state=present), except when check mode would register it
  type: dict
  sample: {id: 1, name: local, url: unix:///var/run/docker.sock}
docker:
  description: What the Docker engine behind the environment says of itself.
  returned: when RV(environment) is, and nothing is left to change
  type: dict
  sample: {name: host1, version: 28.5.2, containers: 6}
portainer_version:
  description: Version of Portainer.
  returned: when Portainer answers
  type: str
  sample: 2.45.2
"""

import http.client
import json
import ssl
import time
import urllib.error
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url, prepare_multipart

LOCAL_DOCKER = "1"  # EndpointCreationType: an engine that Portainer talks to without an agent
POLL_INTERVAL = 0.5  # seconds between two looks at whether Portainer is ready


class PortainerError(Exception):
    """What was asked, what came back, and the cure. status: the HTTP status, None if there was no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status


class NotReadyError(PortainerError):
    """Portainer does not answer yet, or has no administrator yet."""


@dataclass(frozen=True)
class Environment:
    """One environment. url: unix:///path or tcp://host:port, as Portainer keeps it."""

    id: int
    name: str
    url: str

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Environment:
        return cls(id=answer["Id"], name=answer["Name"], url=answer["URL"])


class Portainer:
    """One Portainer. Every method raises PortainerError."""

    def __init__(self, url: str, *, validate_certs: bool, ca_path: str | None, timeout: float) -> None:
        self.url = url.rstrip("/")
        self._connection: dict[str, Any] = {"validate_certs": validate_certs, "ca_path": ca_path, "timeout": timeout}
        self._headers: dict[str, str] = {}

    def wait_until_ready(self, patience: float) -> None:
        """Return when Portainer has its administrator. Raises NotReadyError if it has none after `patience` seconds."""
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._check_administrator()
            except NotReadyError as error:
                if time.monotonic() + POLL_INTERVAL > deadline:
                    raise NotReadyError(f"{error} (waited for {patience:g} s)") from error
            time.sleep(POLL_INTERVAL)

    def _check_administrator(self) -> None:
        try:
            self._call("GET", "/users/admin/check")
        except PortainerError as error:
            if error.status == 404:
                raise NotReadyError(
                    f"{self.url} has no administrator: start Portainer with --admin-password-file", error.status
                ) from error
            if error.status == 303:
                raise PortainerError(
                    f"{self.url} has locked itself, because it got no administrator in its first five minutes: "
                    "start Portainer with --admin-password-file",
                    error.status,
                ) from error
            raise

    def version(self) -> str:
        version: str = self._call("GET", "/system/status")["Version"]
        return version

    def log_in(self, username: str, password: str) -> None:
        """Authenticate all later requests. Call it once a run: Portainer bans an address that logs in too often."""
        try:
            token = self._call("POST", "/auth", {"username": username, "password": password})["jwt"]
        except PortainerError as error:
            if error.status == 422:
                raise PortainerError(
                    f"{self.url} refuses the password of {username!r}. A password file acts only while Portainer has "
                    "no administrator; its data volume keeps the password that it got then, or that was set since. "
                    "Give that one, or set a new one: stop Portainer, run the image portainer/helper-reset-password "
                    "with the volume at /data, and start Portainer again.",
                    error.status,
                ) from error
            if error.status == 403:
                raise PortainerError(
                    f"{self.url} refuses logins from this address for an hour, after too many of them: "
                    "wait, or restart Portainer.",
                    error.status,
                ) from error
            raise
        self._headers = {"Authorization": f"Bearer {token}"}

    def environment(self, name: str) -> Environment | None:
        """Return the environment of that name, None if there is none."""
        environments = map(Environment.of, self._call("GET", "/endpoints?excludeSnapshots=true"))
        return next((environment for environment in environments if environment.name == name), None)

    def create(self, name: str, url: str) -> Environment:
        fields = {"Name": name, "EndpointCreationType": LOCAL_DOCKER, "ContainerEngine": "docker", "URL": url}
        return Environment.of(self._call("POST", "/endpoints", form=fields))

    def move(self, environment: Environment, url: str) -> Environment:
        return Environment.of(self._call("PUT", f"/endpoints/{environment.id}", {"URL": url}))

    def delete(self, environment: Environment) -> None:
        self._call("DELETE", f"/endpoints/{environment.id}")

    def docker_info(self, environment: Environment) -> dict[str, Any]:
        """Return what the Docker engine behind the environment says of itself."""
        info: dict[str, Any] = self._call("GET", f"/endpoints/{environment.id}/docker/info")
        return info

    def _call(
        self, method: str, path: str, body: Mapping[str, str] | None = None, form: Mapping[str, str] | None = None
    ) -> Any:  # noqa: ANN401 as the API: an object, a list, or None for an empty answer
        url = f"{self.url}/api{path}"
        headers, data = dict(self._headers), None
        if body is not None:
            headers["Content-Type"], data = "application/json", json.dumps(body)
        elif form is not None:
            headers["Content-Type"], data = prepare_multipart(form)
        try:
            answer = open_url(
                url,
                data=data,
                headers=headers,
                method=method,
                use_proxy=False,
                use_netrc=False,
                follow_redirects="none",
                http_agent="ansible-portainer",
                **self._connection,
            ).read()
            return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            raise PortainerError(f"{method} {url}: HTTP {error.code}: {_message(error)}", error.code) from error
        except ValueError as error:
            raise PortainerError(f"{method} {url}: the answer is not JSON: is this Portainer?") from error
        except (OSError, http.client.HTTPException) as error:
            raise _network_error(method, url, error) from error


def _message(error: urllib.error.HTTPError) -> str:
    """Return Portainer's own words; a path that it does not know is answered in plain text."""
    text = error.read().decode(errors="replace").strip()
    try:
        answer = json.loads(text)
        return f"{answer['message']}: {answer['details']}"
    except (ValueError, KeyError, TypeError):
        return text[:300] or str(error.reason)


def _network_error(method: str, url: str, error: Exception) -> PortainerError:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        return PortainerError(
            f"{method} {url}: {reason.verify_message}: set ca_path to the authority that signed the certificate, "
            "or validate_certs to false if Portainer made it for itself and is on this host"
        )
    return NotReadyError(f"{method} {url}: {reason}")


def ensure(portainer: Portainer, parameters: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Bring the environment into the desired state; return the module's result. Raises PortainerError."""
    name, url, present = parameters["name"], parameters["url"], parameters["state"] == "present"
    after = {"name": name, "url": url} if present else {}
    try:
        portainer.wait_until_ready(0 if check_mode else parameters["start_timeout"])
    except NotReadyError:
        if not check_mode:
            raise
        return {"changed": present, "diff": {"before": {}, "after": after}}
    portainer.log_in(parameters["username"], parameters["password"])
    found = portainer.environment(name)
    before = {"name": found.name, "url": found.url} if found else {}
    result: dict[str, Any] = {
        "changed": before != after,
        "diff": {"before": before, "after": after},
        "portainer_version": portainer.version(),
    }
    if result["changed"] and not check_mode:
        found = change(portainer, found, after)
    if found and present:
        result["environment"] = asdict(found)
        if found.url == url:
            result["docker"] = prove(portainer, found)
    return result


def change(portainer: Portainer, found: Environment | None, after: Mapping[str, str]) -> Environment | None:
    """Create, move or delete the environment, and return what is there then."""
    if found is None:
        return portainer.create(**after)
    if after:
        return portainer.move(found, after["url"])
    portainer.delete(found)
    return None


def prove(portainer: Portainer, environment: Environment) -> dict[str, Any]:
    """Return name, version and number of containers of the Docker engine behind the environment."""
    try:
        info = portainer.docker_info(environment)
    except PortainerError as error:
        raise PortainerError(
            f"Portainer has the environment {environment.name!r}, but does not reach its Docker engine at "
            f"{environment.url}: {error}. Check that the socket is mounted into Portainer's container.",
            error.status,
        ) from error
    return {"name": info["Name"], "version": info["ServerVersion"], "containers": info["Containers"]}


ARGUMENT_SPEC: dict[str, dict[str, Any]] = {
    "portainer_url": {"type": "str", "required": True},
    "username": {"type": "str", "default": "admin"},
    "password": {"type": "str", "required": True, "no_log": True},
    "validate_certs": {"type": "bool", "default": True},
    "ca_path": {"type": "path"},
    "start_timeout": {"type": "float", "default": 120.0},
    "timeout": {"type": "float", "default": 30.0},
    "name": {"type": "str", "required": True},
    "url": {"type": "str", "default": "unix:///var/run/docker.sock"},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


def main() -> None:
    """Compare, and unless in check mode, change."""
    module = AnsibleModule(argument_spec=ARGUMENT_SPEC, supports_check_mode=True)
    portainer = Portainer(
        module.params["portainer_url"],
        validate_certs=module.params["validate_certs"],
        ca_path=module.params["ca_path"],
        timeout=module.params["timeout"],
    )
    try:
        module.exit_json(**ensure(portainer, module.params, module.check_mode))
    except PortainerError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
