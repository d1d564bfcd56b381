"""Typed client of MLflow's REST API for Ansible modules. It needs no library on the target but Ansible's own."""

from __future__ import annotations

import contextlib
import http.client
import io
import ipaddress
import json
import math
import posixpath
import re
import signal
import ssl
import time
import urllib.error
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType
from typing import IO, Any

from ansible.module_utils.urls import Request, make_context

CONNECTION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "tracking_uri": {"type": "str", "required": True},
    "username": {"type": "str"},
    "password": {"type": "str", "no_log": True},
    "ca_path": {"type": "path"},
    "validate_certs": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 30.0},
}
CONNECTION_REQUIRED_TOGETHER = [("username", "password")]

API = "/api/2.0/mlflow"
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
PAGE_SIZE = 1000
PIECE = 2**20  # bytes that are read at once, and of an error at all
FIRST_DELAY, LONGEST_DELAY = 0.2, 5.0  # seconds between attempts; each is twice the one before

# The server has not acted on a request that it answers so: it can be sent again, whatever it was.
REFUSED = frozenset({429, 503})
# A server or a proxy that starts up or is overloaded may answer so: what has the same effect twice can be sent again.
FAILED = frozenset({500, 502, 504})
# So does a connection that breaks; Docker accepts one for a container that does not listen yet, and closes it.
BROKEN = (ConnectionError, http.client.IncompleteRead)


class ParameterError(Exception):
    """A parameter that cannot be: the message names it, what was found and what is expected."""


class MlflowError(Exception):
    """A request that failed: what was asked, and what came back.

    url: without credentials; status: HTTP status, None if there was no answer; error_code: MLflow's own, e.g.
    RESOURCE_DOES_NOT_EXIST, None if the answer had none; message: MLflow's words, or those of the network;
    answer: the three in one line; reason: what went wrong on the network, None if there was an answer.
    """

    def __init__(
        self,
        method: str,
        url: str,
        message: str,
        *,
        status: int | None = None,
        error_code: str | None = None,
        reason: Exception | None = None,
    ) -> None:
        self.url = url
        self.status = status
        self.error_code = error_code
        self.message = message
        self.reason = reason
        code = " ".join(part for part in (f"HTTP {status}" if status else None, error_code) if part)
        self.answer = f"{code}: {message}" if code else message
        super().__init__(f"{method} {url}: {self.answer}")

    @property
    def is_missing(self) -> bool:
        """Whether MLflow says that what was asked for does not exist."""
        return self.error_code == "RESOURCE_DOES_NOT_EXIST"


@dataclass(frozen=True)
class Http:
    """Sends requests, and again those that failed for a reason that passes, until `patience` seconds are over.

    timeout: seconds without a byte after which an attempt has failed; distrusts: whether they are all that it may take,
    whatever comes, which only the main thread can see to; transient: the statuses that pass.
    Redirects are not followed: they would lose a body, or carry credentials to another host.
    """

    timeout: float
    patience: float
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    ca_path: str | None = None
    validate_certs: bool = True
    distrusts: bool = False
    transient: frozenset[int] = REFUSED | FAILED

    def send(
        self,
        method: str,
        url: str,
        *,
        body: bytes | IO[bytes] | None = None,
        sink: IO[bytes] | None = None,
        largest: float = math.inf,
        repeatable: bool = True,
    ) -> bytes:
        """Returns the body of the answer, or writes it to `sink` and returns b"".

        body: JSON as bytes, or an open file of any kind; largest: bytes of an answer; repeatable: whether the request
        may reach the server twice.
        Raises MlflowError, and ParameterError if ca_path is no file of certificates.
        """
        deadline = time.monotonic() + self.patience
        delay = FIRST_DELAY
        while True:
            try:
                return self._attempt(method, url, body, sink, largest)
            except MlflowError as error:
                if not self._may_send_again(error, repeatable) or time.monotonic() + delay > deadline:
                    raise
            time.sleep(delay)
            delay = min(2 * delay, LONGEST_DELAY)

    def _may_send_again(self, error: MlflowError, repeatable: bool) -> bool:
        if error.status is not None:
            return error.status in self.transient and (repeatable or error.status in REFUSED)
        return isinstance(error.reason, BROKEN if repeatable else ConnectionRefusedError)

    def _attempt(
        self, method: str, url: str, body: bytes | IO[bytes] | None, sink: IO[bytes] | None, largest: float
    ) -> bytes:
        headers = {"Authorization": f"Bearer {self.token}"} if self.token else {}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/json"
        elif body is not None:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Length"] = str(body.seek(0, io.SEEK_END))
            body.seek(0)
        answer = io.BytesIO()
        try:
            with _within(self.timeout) if self.distrusts else contextlib.nullcontext():
                self._exchange(method, url, body, headers, sink or answer, largest)
        except (OSError, http.client.HTTPException) as error:
            raise self._network_error(method, url, error) from error
        return answer.getvalue()

    def _exchange(
        self,
        method: str,
        url: str,
        body: bytes | IO[bytes] | None,
        headers: Mapping[str, str],
        sink: IO[bytes],
        largest: float,
    ) -> None:
        sink.seek(0)
        sink.truncate()
        try:
            with self._session(url).open(method, url, data=body, headers=headers) as response:
                while piece := response.read(PIECE):
                    sink.write(piece)
                    if sink.tell() > largest:
                        raise MlflowError(method, url, f"the answer is larger than {largest / 2**20:g} MiB")
                if getattr(response, "length", None):  # what was announced, and has not come
                    raise http.client.IncompleteRead(b"", response.length)
        except urllib.error.HTTPError as error:
            raise _http_error(method, url, error) from error

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        try:
            context: ssl.SSLContext = make_context(cafile=self.ca_path, validate_certs=self.validate_certs)
        except OSError as error:
            message = f"ca_path is {self.ca_path!r}: {error.strerror}; expected a file of certificates in PEM form"
            raise ParameterError(message) from error
        return context

    def _session(self, url: str) -> Request:
        target = urllib.parse.urlsplit(url)
        return Request(
            # Without TLS an empty context is enough, and saves loading the authorities that the host trusts.
            context=self._tls if target.scheme == "https" else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            timeout=self.timeout,
            url_username=self.username,
            url_password=self.password,
            force_basic_auth=self.username is not None,
            use_netrc=False,
            use_proxy=not _is_near(target.hostname or ""),
            follow_redirects="none",
            http_agent="ansible-mlflow",
        )

    def _network_error(self, method: str, url: str, error: Exception) -> MlflowError:
        wrapped = error.reason if isinstance(error, urllib.error.URLError) else None
        reason = wrapped if isinstance(wrapped, Exception) else error
        if isinstance(reason, TimeoutError):
            words = f"no answer within {self.timeout:g} s"
        elif isinstance(reason, ssl.SSLCertVerificationError):
            cure = "set ca_path to the certificate of the authority that signed the server's, in PEM form"
            words = f"{reason.verify_message}; {cure}"
        else:
            words = getattr(reason, "strerror", None) or str(reason) or type(reason).__name__
        return MlflowError(method, url, words, reason=reason)


def require_plain_url(option: str, url: str) -> None:
    """Raises ParameterError, naming the option, unless the URL is one of a server, and holds no credentials."""
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None or parts.password is not None:
        raise ParameterError(f"{option} holds credentials; expected a URL without them")
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        raise ParameterError(f"{option} is {url!r}; expected the URL of a server, http://… or https://…")


def _is_near(host: str) -> bool:
    """Whether no proxy is needed: this machine, and private addresses, as its containers have."""
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return host == "localhost"


@contextlib.contextmanager
def _within(seconds: float) -> Iterator[None]:
    """Raises TimeoutError in what takes longer, whatever progress it makes."""

    def end(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _http_error(method: str, url: str, error: urllib.error.HTTPError) -> MlflowError:
    text = error.read(PIECE).decode(errors="replace")
    try:
        answer = json.loads(text)
    except (ValueError, RecursionError):
        answer = None
    error_code = None
    if isinstance(answer, dict) and "message" in answer:
        error_code = answer.get("error_code") or None
        message = str(answer["message"])
    elif location := error.headers.get("Location"):
        message = f"redirected to {location}; expected the address of the server itself"
    else:
        message = re.sub(r"<[^>]*>", " ", text) or str(error.reason)
    if message.startswith("Invalid Host header"):
        message += f"; list {urllib.parse.urlsplit(url).netloc} in the allowed hosts of the MLflow server"
    return MlflowError(method, url, _excerpt(message), status=error.code, error_code=error_code)


def _excerpt(text: str) -> str:
    """One line, and of a long one the beginning and the end: MLflow repeats all its input between the two.

    Without what a terminal would obey.
    """
    line = "".join(sign if sign.isprintable() else "\ufffd" for sign in " ".join(text.split())).rstrip(".")
    return line if len(line) <= 400 else f"{line[:100]} … {line[-300:]}"


@dataclass(frozen=True)
class ModelVersion:
    """One version of a registered model; source: the URI that it was registered from."""

    name: str
    version: int
    source: str
    run_id: str | None
    tags: Mapping[str, str]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> ModelVersion:
        return cls(
            name=answer["name"],
            version=int(answer["version"]),
            source=answer.get("source", ""),
            run_id=answer.get("run_id") or None,
            tags=_tags(answer),
        )


@dataclass(frozen=True)
class RegisteredModel:
    """aliases: alias -> version; latest: the newest version that MLflow reports along with the model, if any."""

    name: str
    description: str
    tags: Mapping[str, str]
    aliases: Mapping[str, int]
    latest: ModelVersion | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> RegisteredModel:
        versions = [ModelVersion.of(version) for version in answer.get("latest_versions", [])]
        return cls(
            name=answer["name"],
            description=answer.get("description", ""),
            tags=_tags(answer),
            aliases={entry["alias"]: int(entry["version"]) for entry in answer.get("aliases", [])},
            latest=max(versions, key=lambda version: version.version, default=None),
        )


@dataclass(frozen=True)
class Run:
    """artifact_uri: root of the run's own files; model_ids: the models it logged, in the order of their steps."""

    run_id: str
    artifact_uri: str
    model_ids: tuple[str, ...]

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> Run:
        outputs = answer.get("outputs", {}).get("model_outputs", [])
        return cls(
            run_id=answer["info"]["run_id"],
            artifact_uri=answer["info"]["artifact_uri"],
            model_ids=tuple(output["model_id"] for output in sorted(outputs, key=lambda o: int(o.get("step", 0)))),
        )


@dataclass(frozen=True)
class LoggedModel:
    """A model as MLflow 3 logs it: with an identity and files of its own, `models:/m-…`."""

    model_id: str
    name: str
    artifact_uri: str
    run_id: str | None

    @classmethod
    def of(cls, answer: Mapping[str, Any]) -> LoggedModel:
        info = answer["info"]
        return cls(
            model_id=info["model_id"],
            name=info.get("name", ""),
            artifact_uri=info["artifact_uri"],
            run_id=info.get("source_run_id") or None,
        )


def _tags(answer: Mapping[str, Any]) -> dict[str, str]:
    return {tag["key"]: tag.get("value", "") for tag in answer.get("tags", [])}


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"key": key, "value": value} for key, value in tags.items()]


class Mlflow:
    """One tracking server. Every method raises MlflowError; those that look up one thing return None if it is missing
    only where their type says so."""

    def __init__(self, tracking_uri: str, http: Http) -> None:
        """Raises ParameterError if tracking_uri is not the plain URL of a server."""
        self.http = http
        require_plain_url("tracking_uri", tracking_uri)
        self.base = tracking_uri.rstrip("/")

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Mlflow:
        """From a module's parameters, see CONNECTION_ARGUMENTS."""
        return cls(
            parameters["tracking_uri"],
            Http(
                timeout=parameters["timeout"],
                patience=parameters["timeout"],
                username=parameters["username"],
                password=parameters["password"],
                ca_path=parameters["ca_path"],
                validate_certs=parameters["validate_certs"],
            ),
        )

    def ask_version(self) -> None:
        """The cheapest question that only somebody who may log in gets an answer to."""
        self.http.send("GET", f"{self.base}/version")

    # Registered models

    def registered_model(self, name: str) -> RegisteredModel | None:
        try:
            answer = self._get("registered-models/get", name=name)
        except MlflowError as error:
            if error.is_missing:
                return None
            raise
        return RegisteredModel.of(answer["registered_model"])

    def aliased(self, model: RegisteredModel | None, alias: str | None) -> dict[str, Any]:
        """The version that an alias of the model points to, as modules return it; without one all is None."""
        number = model.aliases.get(alias) if model and alias else None
        version = None
        if model and number is not None:
            newest = model.latest if model.latest and model.latest.version == number else None
            version = newest or self.version(model.name, number)
        return {
            "version": version and version.version,
            "source": version and version.source,
            "run_id": version and version.run_id,
            "tags": dict(version.tags) if version else {},
        }

    def create_registered_model(self, name: str) -> None:
        self._call("POST", "registered-models/create", {"name": name}, repeatable=False)

    def describe_registered_model(self, name: str, description: str) -> None:
        self._call("PATCH", "registered-models/update", {"name": name, "description": description})

    def delete_registered_model(self, name: str) -> None:
        self._call("DELETE", "registered-models/delete", {"name": name})

    def set_registered_model_tag(self, name: str, key: str, value: str) -> None:
        self._call("POST", "registered-models/set-tag", {"name": name, "key": key, "value": value})

    def delete_registered_model_tag(self, name: str, key: str) -> None:
        self._call("DELETE", "registered-models/delete-tag", {"name": name, "key": key})

    def set_alias(self, name: str, alias: str, version: int) -> None:
        self._call("POST", "registered-models/alias", {"name": name, "alias": alias, "version": str(version)})

    def delete_alias(self, name: str, alias: str) -> None:
        self._call("DELETE", "registered-models/alias", {"name": name, "alias": alias})

    # Versions

    def version(self, name: str, version: int) -> ModelVersion | None:
        try:
            answer = self._get("model-versions/get", name=name, version=version)
        except MlflowError as error:
            if error.is_missing:
                return None
            raise
        return ModelVersion.of(answer["model_version"])

    def versions(
        self, name: str, *, source: str | None = None, tags: Mapping[str, str] = MappingProxyType({})
    ) -> list[ModelVersion]:
        """The versions with that source and those tags, newest first."""
        conditions = [f"name = {_quoted(name)}"]
        if source is not None:
            conditions.append(f"source_path = {_quoted(source)}")
        conditions += [f"tags.`{key}` = {_quoted(value)}" for key, value in tags.items()]
        found: list[ModelVersion] = []
        token = ""
        while True:
            answer = self._get(
                "model-versions/search", filter=" AND ".join(conditions), max_results=PAGE_SIZE, page_token=token
            )
            found += [ModelVersion.of(version) for version in answer.get("model_versions", [])]
            token = answer.get("next_page_token", "")
            if not token:
                return sorted(found, key=lambda version: version.version, reverse=True)

    def create_version(
        self, name: str, source: str, run_id: str | None, model_id: str | None, tags: Mapping[str, str]
    ) -> ModelVersion:
        body: dict[str, Any] = {"name": name, "source": source, "tags": _pairs(tags)}
        body |= {key: value for key, value in (("run_id", run_id), ("model_id", model_id)) if value}
        answer = self._call("POST", "model-versions/create", body, repeatable=False)
        return ModelVersion.of(answer["model_version"])

    def delete_version(self, name: str, version: int) -> None:
        self._call("DELETE", "model-versions/delete", {"name": name, "version": str(version)})

    def set_version_tag(self, name: str, version: int, key: str, value: str) -> None:
        body = {"name": name, "version": str(version), "key": key, "value": value}
        self._call("POST", "model-versions/set-tag", body)

    def delete_version_tag(self, name: str, version: int, key: str) -> None:
        self._call("DELETE", "model-versions/delete-tag", {"name": name, "version": str(version), "key": key})

    def version_location(self, name: str, version: int) -> str:
        """URI of the directory that holds the version's files."""
        location: str = self._get("model-versions/get-download-uri", name=name, version=version)["artifact_uri"]
        return location

    # Runs and logged models

    def run(self, run_id: str) -> Run:
        return Run.of(self._get("runs/get", run_id=run_id)["run"])

    def logged_model(self, model_id: str) -> LoggedModel:
        return LoggedModel.of(self._get(f"logged-models/{urllib.parse.quote(model_id, safe='')}")["model"])

    def create_logged_model(self, experiment: str, name: str) -> LoggedModel:
        """Creates the experiment too, if there is none of that name."""
        body = {"experiment_id": self._experiment_id(experiment), "name": name}
        return LoggedModel.of(self._call("POST", "logged-models", body, repeatable=False)["model"])

    def finish_logged_model(self, model_id: str, *, ready: bool) -> None:
        status = "LOGGED_MODEL_READY" if ready else "LOGGED_MODEL_UPLOAD_FAILED"
        self._call("PATCH", f"logged-models/{model_id}", {"model_id": model_id, "status": status})

    def _experiment_id(self, name: str) -> str:
        try:
            experiment_id = self._get("experiments/get-by-name", experiment_name=name)["experiment"]["experiment_id"]
        except MlflowError as error:
            if not error.is_missing:
                raise
            experiment_id = self._call("POST", "experiments/create", {"name": name}, repeatable=False)["experiment_id"]
        return str(experiment_id)

    # Artifacts, through the tracking server

    def files(self, uri: str) -> Iterator[str]:
        """Paths of the files below `uri`, relative to it, sorted; nothing if there is no such directory."""
        directories = [""]
        found: list[str] = []
        while directories:
            directory = directories.pop()
            path = posixpath.join(_proxied_path(uri), directory).rstrip("/")
            for entry in self._json("GET", f"{self.base}{ARTIFACTS}?{_query(path=path)}").get("files", []):
                target = directories if entry.get("is_dir") else found
                target.append(posixpath.join(directory, entry["path"]))
        return iter(sorted(found))

    def download(self, uri: str, path: str, sink: IO[bytes]) -> None:
        self.http.send("GET", self._artifact_url(uri, path), sink=sink)
        sink.seek(0)

    def read(self, uri: str, path: str, largest: int) -> bytes:
        """What an artifact holds, of at most `largest` bytes."""
        return self.http.send("GET", self._artifact_url(uri, path), largest=largest)

    def upload(self, uri: str, path: str, content: IO[bytes]) -> None:
        self.http.send("PUT", self._artifact_url(uri, path), body=content)

    def _artifact_url(self, uri: str, path: str) -> str:
        return f"{self.base}{ARTIFACTS}/{urllib.parse.quote(posixpath.join(_proxied_path(uri), path))}"

    # Transport

    def _get(self, endpoint: str, **query: str | int) -> dict[str, Any]:
        return self._json("GET", f"{self.base}{API}/{endpoint}" + (f"?{_query(**query)}" if query else ""))

    def _call(self, method: str, endpoint: str, body: Mapping[str, Any], *, repeatable: bool = True) -> dict[str, Any]:
        return self._json(method, f"{self.base}{API}/{endpoint}", body=json.dumps(body).encode(), repeatable=repeatable)

    def _json(self, method: str, url: str, *, body: bytes | None = None, repeatable: bool = True) -> dict[str, Any]:
        text = self.http.send(method, url, body=body, repeatable=repeatable)
        try:
            answer = json.loads(text)
        except ValueError:
            answer = None
        if not isinstance(answer, dict):
            start = text[:100].decode(errors="replace")
            raise MlflowError(method, url, f"expected MLflow's JSON, got {start!r}; is it the URL of an MLflow server?")
        return answer


def _query(**query: str | int) -> str:
    return urllib.parse.urlencode({key: value for key, value in query.items() if value != ""})


def _quoted(value: str) -> str:
    """A string of MLflow's filter language, which knows no escapes but two kinds of quotes."""
    return f'"{value}"' if "'" in value else f"'{value}'"


def _proxied_path(uri: str) -> str:
    """Path below the artifact endpoint of what `uri` names. Raises MlflowError if the server does not proxy it."""
    parts = urllib.parse.urlsplit(uri)
    if parts.scheme == "mlflow-artifacts":
        return parts.path.strip("/")
    if parts.scheme in {"http", "https"} and f"{ARTIFACTS}/" in parts.path:
        return parts.path.split(f"{ARTIFACTS}/", 1)[1].strip("/")
    raise MlflowError(
        "GET",
        uri,
        "the tracking server does not proxy these artifacts (expected mlflow-artifacts:/…); "
        "start it with --artifacts-destination and without --default-artifact-root",
    )
