"""A stand-in for Portainer CE, whose image cannot be had everywhere: its command line, and what we use of its API.

It refuses what Portainer refuses, and stops with status 1 where Portainer stops or where its administrator would be
locked out (a password file that is missing, empty, or not of 12 to 72 bytes). For tests only.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import re
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn
from urllib.parse import urlsplit

VERSION = "2.45.2"
ADMINISTRATOR_DEADLINE = 300  # seconds after the start; then Portainer locks itself
LOGINS_A_SECOND = 10  # from one address; more of them ban it


class Parser(argparse.ArgumentParser):
    """Ends with status 1 as Portainer does; argparse would say 2."""

    def error(self, message: str) -> NoReturn:
        sys.exit(f"portainer: error: {message}, try --help")


def parse(arguments: list[str]) -> argparse.Namespace:
    """The flags that Portainer CE 2.45 documents, and that make sense in a container."""
    parser = Parser(prog="portainer", allow_abbrev=False)
    for flag in ("--tunnel-addr", "--tunnel-port", "--log-level", "--log-mode", "--snapshot-interval", "--logo"):
        parser.add_argument(flag)
    for flag in ("--tlscert", "--tlskey", "--tlscacert", "--trusted-origins"):
        parser.add_argument(flag)
    for flag in ("--http-enabled", "--http-disabled", "--no-setup-token", "--compact-db", "--no-csp"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("-p", "--bind", default=":9000")
    parser.add_argument("--bind-https", default=":9443")
    parser.add_argument("-d", "--data", default="/data", type=Path)
    parser.add_argument("-H", "--host")
    parser.add_argument("-b", "--base-url", default="/")
    parser.add_argument("-l", "--hide-label", action="append")
    parser.add_argument("-t", "--templates")
    parser.add_argument("--admin-password-file", type=Path)
    return parser.parse_args(arguments)


def read_password(file: Path) -> bytes:
    """The administrator's password. Portainer reads the file at every start, even with an administrator in its data."""
    try:
        password = file.read_bytes().removesuffix(b"\n")
    except OSError as error:
        sys.exit(f"failed getting admin password file: {error}")
    if not 12 <= len(password) <= 72 or b"\r" in password:
        sys.exit(f"the password in {file} has {len(password)} bytes; 12 to 72 are expected, and no carriage return")
    return password


class Store:
    """What Portainer keeps in its data directory: the administrator and the environments."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "portainer.db"
        self.content: dict[str, Any] = {"administrator": None, "environments": {}, "next": 1}
        if self.file.exists():
            self.content = json.loads(self.file.read_text())

    def save(self) -> None:
        self.file.write_text(json.dumps(self.content))

    @property
    def environments(self) -> dict[str, dict[str, Any]]:
        environments: dict[str, dict[str, Any]] = self.content["environments"]
        return environments

    def set_administrator(self, password: bytes) -> None:
        salt = secrets.token_hex()
        self.content["administrator"] = {"salt": salt, "hash": digest(password, salt)}
        self.save()

    def is_administrator(self, username: str, password: str) -> bool:
        known = self.content["administrator"]
        return known is not None and username == "admin" and known["hash"] == digest(password.encode(), known["salt"])

    def add(self, name: str, url: str) -> dict[str, Any]:
        number = self.content["next"]
        environment = {
            "Id": number,
            "Name": name,
            "Type": 1,
            "ContainerEngine": "docker",
            "URL": url,
            "PublicURL": "",
            "GroupId": 1,
            "TagIds": [],
            "Status": 1,
            "TLSConfig": {"TLS": False, "TLSSkipVerify": False},
        }
        self.environments[str(number)] = environment
        self.content["next"] = number + 1
        self.save()
        return environment


def digest(password: bytes, salt: str) -> str:
    """A slow hash of the password, hexadecimal."""
    return hashlib.scrypt(password, salt=salt.encode(), n=2**12, r=8, p=1).hex()


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


def ask_docker(url: str, path: str) -> tuple[int, bytes]:
    """Status and body of a Docker engine's answer. Raises OSError if it cannot be reached."""
    target = urlsplit(url)
    if target.scheme == "unix":
        connection: http.client.HTTPConnection = UnixConnection(target.path)
    else:
        connection = http.client.HTTPConnection(target.hostname or "", target.port, timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


class ApiError(Exception):
    """An answer that says no: {"message", "details"}."""

    def __init__(self, status: int, message: str, details: str) -> None:
        super().__init__(message)
        self.status = status
        self.answer = {"message": message, "details": details}


Answer = tuple[int, Any]  # HTTP status, and what to send as JSON; None sends nothing, bytes are sent as they are


class Handler(BaseHTTPRequestHandler):
    """Portainer's API."""

    store: Store
    started: float
    tokens: set[str]
    logins: list[float]

    def check_administrator(self) -> Answer:
        if self.store.content["administrator"] is None:
            raise ApiError(404, "No administrator account found inside the database", "Object not found")
        return 204, None

    def status(self) -> Answer:
        return 200, {"Version": VERSION, "InstanceID": "299ab403-70a8-4c05-92f7-bf7a994d50df"}

    def authenticate(self) -> Answer:
        now = time.monotonic()
        self.logins[:] = [moment for moment in self.logins if now - moment < 1] + [now]
        if len(self.logins) > LOGINS_A_SECOND:
            raise ApiError(403, "Access denied", "Access denied to resource")
        # Portainer matches the names of a JSON object whatever their case.
        payload = {key.lower(): value for key, value in self.json().items()}
        if not payload.get("username") or not payload.get("password"):
            raise ApiError(400, "Invalid request payload", "Invalid username or password")
        if not self.store.is_administrator(payload["username"], payload["password"]):
            raise ApiError(422, "Invalid credentials", "Unauthorized")
        token = secrets.token_urlsafe()
        self.tokens.add(token)
        return 200, {"jwt": token}

    def environments(self) -> Answer:
        return 200, list(self.store.environments.values())

    def create_environment(self) -> Answer:
        form = self.form()
        if not form.get("Name"):
            raise ApiError(400, "Invalid request payload", "invalid environment name")
        if form.get("EndpointCreationType") != "1":
            raise ApiError(400, "Invalid request payload", "the stand-in knows EndpointCreationType 1 only")
        if form.get("ContainerEngine", "docker") not in ("", "docker", "podman"):
            raise ApiError(400, "Invalid request payload", "invalid container engine value")
        if any(environment["Name"] == form["Name"] for environment in self.store.environments.values()):
            raise ApiError(409, "Name is not unique", "Name is not unique")
        url = form.get("URL") or "unix:///var/run/docker.sock"
        try:
            ask_docker(url, "/info")
        except OSError as error:
            raise ApiError(500, "Unable to initiate communications with environment", str(error)) from error
        return 200, self.store.add(form["Name"], url)

    def environment(self, number: str) -> Answer:
        if number not in self.store.environments:
            raise ApiError(404, "Unable to find an environment with the specified identifier", "Object not found")
        return 200, self.store.environments[number]

    def update_environment(self, number: str) -> Answer:
        _, environment = self.environment(number)
        environment.update({key: value for key, value in self.json().items() if key in ("Name", "URL", "PublicURL")})
        self.store.save()
        return 200, environment

    def delete_environment(self, number: str) -> Answer:
        self.environment(number)
        del self.store.environments[number]
        self.store.save()
        return 204, None

    def docker(self, number: str, path: str) -> Answer:
        _, environment = self.environment(number)
        try:
            return ask_docker(environment["URL"], urlsplit(self.path)._replace(path=path).geturl())
        except OSError as error:
            raise ApiError(502, "Unable to proxy the request via the Docker socket", str(error)) from error

    PUBLIC: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
        ("GET", "/system/status", status),
        ("GET", "/status", status),
        ("GET", "/users/admin/check", check_administrator),
        ("POST", "/auth", authenticate),
    )
    FOR_USERS: tuple[tuple[str, str, Callable[..., Answer]], ...] = (
        ("GET", "/endpoints", environments),
        ("POST", "/endpoints", create_environment),
        ("GET", r"/endpoints/(\d+)", environment),
        ("PUT", r"/endpoints/(\d+)", update_environment),
        ("DELETE", r"/endpoints/(\d+)", delete_environment),
        ("GET", r"/endpoints/(\d+)/docker(/.*)", docker),
    )

    def answer(self) -> Answer:
        """What the request at hand is answered with. Raises ApiError."""
        path = urlsplit(self.path).path.removeprefix("/api")
        locked = (
            self.store.content["administrator"] is None and time.monotonic() - self.started > ADMINISTRATOR_DEADLINE
        )
        if locked and path != "/status":
            return 303, None
        for routes in (self.PUBLIC, self.FOR_USERS):
            for method, pattern, handle in routes:
                match = re.fullmatch(pattern, path)
                if match and method == self.command:
                    if routes is self.FOR_USERS:
                        self.authorize()
                    return handle(self, *match.groups())
        return 404, b"404 page not found\n"

    def authorize(self) -> None:
        if self.headers.get("Authorization", "").removeprefix("Bearer ") not in self.tokens:
            raise ApiError(401, "A valid authorisation token is missing", "Unauthorized")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def json(self) -> dict[str, Any]:
        try:
            payload = json.loads(self.body())
        except ValueError as error:
            raise ApiError(400, "Invalid request payload", str(error)) from error
        if not isinstance(payload, dict):
            raise ApiError(400, "Invalid request payload", "expected an object")
        return payload

    def form(self) -> dict[str, str]:
        content_type = self.headers.get("Content-Type", "")
        if not content_type.startswith("multipart/form-data"):
            raise ApiError(400, "Invalid request payload", "request Content-Type isn't multipart/form-data")
        message = BytesParser().parsebytes(f"Content-Type: {content_type}\n\n".encode() + self.body())
        return {
            str(part.get_param("name", header="content-disposition")): str(part.get_payload())
            for part in message.walk()
            if not part.is_multipart()
        }

    def respond(self) -> None:
        try:
            status, content = self.answer()
        except ApiError as error:
            status, content = error.status, error.answer
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        self.send_response(status)
        if status == 303:
            self.send_header("Location", "/timeout.html")
        self.send_header(
            "Content-Type", "text/plain" if status == 404 and isinstance(content, bytes) else "application/json"
        )
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = respond  # noqa: N815 the names that http.server looks for


def make_certificate(directory: Path) -> tuple[Path, Path]:
    """Certificate and key below the data directory, made on the first start, signed by itself."""
    certificate, key = directory / "certs" / "cert.pem", directory / "certs" / "key.pem"
    if not certificate.exists():
        certificate.parent.mkdir(exist_ok=True)
        options = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1825 -subj /CN=localhost"
        names = ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        files = ["-keyout", str(key), "-out", str(certificate)]
        subprocess.run(["/usr/bin/openssl", *options.split(), *names, *files], check=True, capture_output=True)
    return certificate, key


def main() -> None:
    """Start as Portainer starts, and serve until the process is ended."""
    flags = parse(sys.argv[1:])
    password = read_password(flags.admin_password_file) if flags.admin_password_file else None
    store = Store(flags.data)
    if password and store.content["administrator"] is None:
        store.set_administrator(password)
    Handler.store, Handler.started, Handler.tokens, Handler.logins = store, time.monotonic(), set(), []
    if not flags.http_disabled:
        Thread(target=listen(flags.bind).serve_forever, daemon=True).start()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(flags.data))
    server = listen(flags.bind_https)
    # The handshake is left to the connection's own thread: a client that never speaks must not hold up the others.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # the first process of a container has no default for it
    server.serve_forever()


def listen(address: str) -> ThreadingHTTPServer:
    """A server that listens at `[host]:port`."""
    host, _, port = address.rpartition(":")
    return ThreadingHTTPServer((host, int(port)), Handler)


if __name__ == "__main__":
    main()
