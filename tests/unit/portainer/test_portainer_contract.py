"""What module and stand-in say to each other, against the API that Portainer publishes; the stand-in's refusals."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import BytesParser
from importlib.metadata import distribution
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import jsonschema
import portainer_environment
import pytest
import standin as portainer
import yaml
from ansible.module_utils.urls import open_url
from portainer_harness import PASSWORD, REPO, Run, Standin
from settings_harness import Inventory

CONVERSIONS: dict[str, Callable[[str], Any]] = {"integer": int, "boolean": json.loads}


@pytest.fixture(scope="module")
def api() -> dict[str, Any]:
    """The API description that Portainer publishes, out of a package that carries it."""
    file = distribution("mcp-portainer").locate_file("portainer_mcp/data/portainer-patched.yaml")
    description: dict[str, Any] = yaml.load(Path(str(file)).read_text(), Loader=yaml.CSafeLoader)
    return description


@dataclass
class Exchange:
    """One request of the module, and the answer."""

    method: str
    url: str
    headers: dict[str, str]
    body: bytes
    status: int
    answer: bytes

    @property
    def path(self) -> str:
        return urlsplit(self.url).path.removeprefix("/api")


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[Exchange]:
    """All that the module sends and gets."""
    seen: list[Exchange] = []

    def record(
        url: str, *, data: str | bytes | None, headers: dict[str, str], method: str, **options: object
    ) -> io.BytesIO:
        body = data.encode() if isinstance(data, str) else data or b""
        try:
            response = open_url(url, data=data, headers=headers, method=method, **options)
            status, answer = response.status, response.read()
        except urllib.error.HTTPError as error:
            answer = error.read()
            seen.append(Exchange(method, url, headers, body, error.code, answer))
            raise urllib.error.HTTPError(url, error.code, error.reason, error.headers, io.BytesIO(answer)) from error
        seen.append(Exchange(method, url, headers, body, status, answer))
        return io.BytesIO(answer)

    monkeypatch.setattr(portainer_environment, "open_url", record)
    return seen


def exact(node: Any) -> Any:  # noqa: ANN401 any JSON
    """The schemas with unknown keys forbidden. What they require is not: the description is of another edition, too."""
    if isinstance(node, list):
        return [exact(item) for item in node]
    if not isinstance(node, dict):
        return node
    result = {key: exact(value) for key, value in node.items() if key != "required"}
    return {**result, "additionalProperties": False} if "properties" in node else result


def check(instance: Any, schema: dict[str, Any], api: dict[str, Any]) -> None:  # noqa: ANN401 any JSON
    """Raise jsonschema.ValidationError if the instance is not as the schema says."""
    components = {"schemas": exact(api["components"]["schemas"])}
    jsonschema.Draft4Validator({"allOf": [exact(schema)], "components": components}).validate(instance)


def operation(api: dict[str, Any], exchange: Exchange) -> dict[str, Any] | None:
    """The description of what was asked for, None if there is none."""
    for template, operations in api["paths"].items():
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), exchange.path):
            described: dict[str, Any] | None = operations.get(exchange.method.lower())
            return described
    return None


def sent(exchange: Exchange, schema: dict[str, Any]) -> Any:  # noqa: ANN401 any JSON
    """The body of a request; a form's fields in the types that the description gives them."""
    content_type = exchange.headers["Content-Type"]
    if content_type == "application/json":
        return json.loads(exchange.body)
    message = BytesParser().parsebytes(f"Content-Type: {content_type}\n\n".encode() + exchange.body)
    fields = {
        str(part.get_param("name", header="content-disposition")): str(part.get_payload())
        for part in message.get_payload()
        if not isinstance(part, str)
    }
    types = {name: str(schema["properties"][name]["type"]) for name in fields}
    return {name: CONVERSIONS.get(types[name], str)(text) for name, text in fields.items()}


def verify(exchange: Exchange, described: dict[str, Any], api: dict[str, Any]) -> None:
    """Compare one exchange with its description: query, body, status, answer."""
    parameters = {parameter["name"]: parameter["schema"] for parameter in described.get("parameters", [])}
    for name, text in parse_qsl(urlsplit(exchange.url).query):
        check(CONVERSIONS.get(parameters[name]["type"], str)(text), parameters[name], api)
    if exchange.body:
        (content,) = described["requestBody"]["content"].items()
        assert exchange.headers["Content-Type"].split(";")[0] == content[0]
        check(sent(exchange, content[1]["schema"]), content[1]["schema"], api)
    assert str(exchange.status) in described["responses"]
    answer = described["responses"][str(exchange.status)].get("content")
    if answer is not None:
        check(json.loads(exchange.answer), answer["application/json"]["schema"], api)
    elif exchange.status == 204:
        assert exchange.answer == b""
    else:
        assert set(json.loads(exchange.answer)) == {"message", "details"}


@pytest.mark.usefixtures("standin")
def test_module_and_standin_keep_to_the_published_api(
    engine: str, another_engine: str, run: Run, exchanges: list[Exchange], api: dict[str, Any]
) -> None:
    for parameters in (
        {"url": engine},
        {"url": another_engine},
        {"password": "a password that is wrong"},
        {"url": "unix:///nowhere", "name": "nowhere"},
        {"state": "absent"},
    ):
        run(**parameters)
    described = [(exchange, operation(api, exchange)) for exchange in exchanges]
    for exchange, description in described:
        if description is not None:
            verify(exchange, description, api)
    # Portainer hands these on to Docker, and its description says so in words.
    assert {exchange.path for exchange, description in described if description is None} == {"/endpoints/1/docker/info"}
    assert {(exchange.method, exchange.path, exchange.status) for exchange in exchanges} >= {
        ("GET", "/users/admin/check", 204),
        ("GET", "/system/status", 200),
        ("POST", "/auth", 200),
        ("POST", "/auth", 422),
        ("GET", "/endpoints", 200),
        ("POST", "/endpoints", 200),
        ("POST", "/endpoints", 500),
        ("PUT", "/endpoints/1", 200),
        ("DELETE", "/endpoints/1", 204),
    }


@pytest.mark.usefixtures("standin")
def test_module_logs_in_once_a_run(engine: str, run: Run, exchanges: list[Exchange]) -> None:
    run(url=engine)
    assert [exchange.path for exchange in exchanges].count("/auth") == 1


def test_standin_hands_questions_on_to_docker_as_they_are(standin: Standin, engine: str, run: Run) -> None:
    run(url=engine)
    administrator = portainer_environment.Portainer(standin.url, validate_certs=False, ca_path=None, timeout=10)
    administrator.log_in("admin", PASSWORD)
    assert administrator._call("GET", "/endpoints/1/docker/containers/json?all=true") == [{"Id": "c0ffee"}]


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_standin_refuses_whoever_is_not_logged_in(standin: Standin, run: Run, method: str) -> None:
    run(state="absent")
    anyone = portainer_environment.Portainer(standin.url, validate_certs=False, ca_path=None, timeout=10)
    with pytest.raises(portainer_environment.PortainerError, match="HTTP 401: A valid authorisation token is missing"):
        anyone._call(method, "/endpoints")


def test_standin_knows_no_other_paths(standin: Standin, run: Run) -> None:
    run(state="absent")
    anyone = portainer_environment.Portainer(standin.url, validate_certs=False, ca_path=None, timeout=10)
    with pytest.raises(portainer_environment.PortainerError, match="HTTP 404: 404 page not found"):
        anyone._call("GET", "/nothing")


@pytest.mark.parametrize(
    ("password", "flags", "message"),
    [
        (b"long enough to be one", ["--sslcert-path=x"], "unrecognized arguments: --sslcert-path=x"),
        (b"long enough to be one", ["--http-disable"], "unrecognized arguments: --http-disable"),
        (None, [], "failed getting admin password file"),
        (b"", [], "has 0 bytes"),
        (b"short\n", [], "has 5 bytes"),
        (b"x" * 73, [], "has 73 bytes"),
        (b"carriage return\r\n", [], "no carriage return"),
    ],
)
def test_standin_stops_with_status_1(tmp_path: Path, password: bytes | None, flags: list[str], message: str) -> None:
    file = tmp_path / "password"
    if password is not None:
        file.write_bytes(password)
    program = [sys.executable, portainer.__file__, f"--data={tmp_path}", f"--admin-password-file={file}", *flags]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=20)
    assert ended.returncode == 1
    assert message in ended.stderr


@pytest.mark.parametrize(("gateway", "origins"), [(False, None), (True, "localhost:9443")])
def test_standin_understands_the_command_of_the_role(tmp_path: Path, gateway: bool, origins: str | None) -> None:
    role = Inventory(tmp_path, gateway=gateway).compute(["portainer_container", "portainer_secrets"], {})
    flags = portainer.parse(role["portainer_container"]["command"])
    assert flags.http_disabled
    assert flags.bind_https == ":9443"
    assert flags.admin_password_file == Path("/etc/mlflow-stack") / role["portainer_secrets"][0]["name"]
    assert flags.trusted_origins == origins


def test_standin_is_of_the_version_that_the_role_runs() -> None:
    images = yaml.safe_load((REPO / "playbooks/group_vars/all/images.yml").read_text())
    assert images["portainer_image"].endswith(f":{portainer.VERSION}")
