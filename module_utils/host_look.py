"""All that a deployment asks a host before it decides what to do: one look, as each module takes its time."""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import shutil
import socket
import stat
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nftables import ENVIRONMENT, unchanged
else:
    from ansible.module_utils.nftables import ENVIRONMENT, unchanged

Json = dict[str, Any]

RECORDS = Path("/etc/ansible/facts.d")
# What a host has added to Debian for those who build images on it: certificate authorities, and pip's settings.
SETTINGS = (Path("/usr/local/share/ca-certificates"), "*.crt"), (Path("/etc"), "pip.conf")
DOCKER_SOCKET = "/var/run/docker.sock"
SYSTEMD = Path("/run/systemd/system")  # there while it runs, as sd_booted(3) has it
PATIENCE = 60  # seconds for an answer of the engine
NO_ENGINE: Json = {
    "running": False,
    "root": "/var/lib/docker",
    "containers": [],
    "images": [],
    "networks": [],
    "volumes": [],
}


def digest(path: Path) -> str:
    """SHA-256 of a file. Raises OSError."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def records(directory: Path = RECORDS) -> Json:
    """What deployments have written down, by the names of the local facts; what is no JSON does not count."""
    found = {}
    for path in sorted(directory.glob("mlflow_stack_*.fact")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except ValueError:
            continue
    return found


def configurations(root: Path) -> Iterator[Json]:
    """What lies below a directory, links as they are; nothing where there is none. Raises OSError."""
    for path in sorted(root.rglob("*")) if root.is_dir() else ():
        status = path.lstat()
        entry = {
            "path": str(path),
            "mode": f"{stat.S_IMODE(status.st_mode):04o}",
            "uid": status.st_uid,
            "gid": status.st_gid,
            "ctime": status.st_ctime,
            "isdir": stat.S_ISDIR(status.st_mode),
        }
        if stat.S_ISREG(status.st_mode):
            entry["checksum"] = digest(path)
        if stat.S_ISLNK(status.st_mode):
            entry["link"] = str(path.readlink())
        yield entry


def settings() -> list[Json]:
    """The host's own files that images are made with. Raises OSError."""
    paths = sorted(path for directory, pattern in SETTINGS for path in directory.glob(pattern))
    return [{"path": str(path), "checksum": digest(path)} for path in paths if path.is_file() and not path.is_symlink()]


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a socket of the host."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self) -> None:
        """Open the socket. Raises OSError."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def json(self, url: str) -> Any:  # noqa: ANN401 (as the engine answers)
        """What it answers to GET. Raises OSError, HTTPException and ValueError."""
        self.request("GET", url)
        answer = self.getresponse()
        content = json.loads(answer.read())
        if answer.status != http.client.OK:
            raise OSError(content.get("message", f"status {answer.status}"))
        return content


def engine_socket() -> str:
    """Where community.docker's modules find the engine on this host."""
    host = os.environ.get("DOCKER_HOST", "")
    return host.removeprefix("unix://") if host.startswith("unix://") else DOCKER_SOCKET


def engine(path: str) -> Json:
    """What the Docker engine has, as its API lists it; or why it does not answer."""
    connection = UnixConnection(path)
    try:
        return {
            "running": True,
            "root": connection.json("/info")["DockerRootDir"],
            "containers": connection.json("/containers/json?all=1"),
            "images": connection.json("/images/json"),
            "networks": connection.json("/networks"),
            "volumes": connection.json("/volumes")["Volumes"] or [],
        }
    except (OSError, http.client.HTTPException, ValueError) as error:
        return NO_ENGINE | {"message": f"{path}: {getattr(error, 'strerror', None) or error}"}
    finally:
        connection.close()


def lacking() -> list[str]:
    """Debian's packages that modules need on the host, and that are not there."""
    there = {"python3-requests": find_spec("requests"), "nftables": shutil.which("nft", path=ENVIRONMENT["PATH"])}
    return [package for package, found in there.items() if not found]


def look(config_root: Path, table: str, table_file: Path) -> Json:
    """What there is. Raises OSError."""
    return {
        "records": records(),
        "files": list(configurations(config_root)),
        "settings": settings(),
        "firewall": unchanged(table, table_file),
        "docker": engine(engine_socket()),
        "lacking": lacking(),
        "systemd": SYSTEMD.is_dir(),
    }
