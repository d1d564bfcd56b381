"""What a hostile account tries against an MLflow server: issue line B, as one table.

The account `thief` is denied the experiment and the registered model of the account `owner` by explicit DENY. Each
attack tries to read, list, write or delete what is the owner's, and must be answered with a 4xx. The table knows no
transport: it runs through `Send`, against a deployed platform or a local server.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

SECRET = "what only its owner may see"
FILE = "secret.txt"
_THIEF, _OWNER = "thief", "owner"
_PASSWORD = "a-password-of-the-tests"
API, AJAX, V3 = "/api/2.0/mlflow", "/ajax-api/2.0/mlflow", "/api/3.0/mlflow"
PROXIES = ("/api/2.0/mlflow-artifacts", "/ajax-api/2.0/mlflow-artifacts")


class Answer(NamedTuple):
    """HTTP status and body."""

    status: int
    body: str

    def json(self) -> Any:  # noqa: ANN401 (as the server decides)
        return json.loads(self.body)


class Send(Protocol):
    """Sends a request to the server; `account` is USER:PASSWORD, `body` is sent as JSON."""

    def __call__(
        self, method: str, path: str, *, account: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer: ...


@dataclass(frozen=True)
class Prey:
    """What the owner has, and what the thief has of its own to attack with."""

    send: Send
    destination: str
    thief: str
    owner: str
    experiment: str
    run: str
    model: str
    logged_model: str
    trace: str
    dataset: str
    own_experiment: str
    own_run: str
    own_model: str
    own_logged_model: str
    own_trace: str
    own_dataset: str

    @property
    def directory(self) -> str:
        """Where the owner's run has its artifacts, below the store's root."""
        return f"{self.experiment}/{self.run}/artifacts"

    @property
    def file(self) -> str:
        return f"{self.directory}/{FILE}"

    @property
    def store(self) -> str:
        """The address of the store's root, without a slash at its end."""
        return self.destination.rstrip("/")

    @property
    def loud_store(self) -> str:
        """The same with its scheme in capitals."""
        scheme, _, rest = self.store.partition(":")
        return f"{scheme.upper()}:{rest}"

    @property
    def encoded_experiment(self) -> str:
        """The experiment's number, each digit percent-encoded twice."""
        return "".join(f"%25{ord(digit):x}" for digit in self.experiment)

    @property
    def arabic_experiment(self) -> str:
        """The experiment's number in other digits."""
        return quote("".join(chr(0x660 + int(digit)) for digit in self.experiment))

    def attempt(self, method: str, path: str, body: object = None, kind: str = "application/json") -> Answer:
        """A request of the thief."""
        return self.send(method, path, account=self.thief, body=body, headers={"Content-Type": kind})

    def check_refused(self, attack: str) -> None:
        """Run the attack of this name. AssertionError if it is not refused."""
        answer = ATTACKS[attack](self)
        assert 400 <= answer.status < 500, answer
        assert SECRET not in answer.body

    def check_unharmed(self) -> None:
        """AssertionError if the owner's file is not as it was, or not alone; then it is made so."""
        path = f"{PROXIES[0]}/artifacts/{self.file}"
        content = self.send("GET", path, account=self.owner).body
        listing = self.send("GET", f"{API}/artifacts/list?run_id={self.run}", account=self.owner).json()
        if content != json.dumps(SECRET):
            self.send("PUT", path, account=self.owner, body=SECRET)
        assert content == json.dumps(SECRET)
        assert [file["path"] for file in listing["files"]] == [FILE]


def prepare(send: Send, admin: str, suffix: str, destination: str) -> Prey:
    """Make the accounts, what belongs to them, and the denials.

    `suffix` keeps the names apart from other ones, `destination` is where the server keeps its artifacts.

    AssertionError if the server does not let them.
    """
    thief, owner = (f"{name}-{suffix}" for name in (_THIEF, _OWNER))

    def ask(account: str, path: str, body: object, method: str = "POST") -> Any:  # noqa: ANN401
        answer = send(method, path, account=account, body=body)
        assert answer.status == 200, f"{path}: {answer}"
        return answer.json() if answer.body.startswith("{") else {}

    for username in (thief, owner):
        ask(admin, f"{API}/users/create", {"username": username, "password": _PASSWORD})
    keys = {name: f"{name}:{_PASSWORD}" for name in (thief, owner)}
    experiments, runs, models, traces, logged, datasets = {}, {}, {}, {}, {}, {}
    for name, account in keys.items():
        experiments[name] = ask(account, f"{API}/experiments/create", {"name": name})["experiment_id"]
        runs[name] = ask(account, f"{API}/runs/create", {"experiment_id": experiments[name], "start_time": 1})["run"][
            "info"
        ]["run_id"]
        models[name] = ask(account, f"{API}/registered-models/create", {"name": name})["registered_model"]["name"]
        traces[name] = f"tr-{suffix}{name}"
        ask(account, f"{V3}/traces", {"trace": {"trace_info": _trace(traces[name], experiments[name])}})
        file = f"{experiments[name]}/{runs[name]}/artifacts/{FILE}"
        ask(account, f"{PROXIES[0]}/artifacts/{file}", SECRET, "PUT")
        location = f"mlflow-artifacts:/{experiments[name]}/{runs[name]}/artifacts"
        version = {"name": name, "source": location, "run_id": runs[name]}
        ask(account, f"{API}/model-versions/create", version)
        model = ask(account, f"{API}/logged-models", {"experiment_id": experiments[name], "name": "m"})
        logged[name] = model["model"]["info"]["model_id"]
        dataset = {"name": name, "experiment_ids": [experiments[name]]}
        datasets[name] = ask(account, f"{V3}/datasets/create", dataset)["dataset"]["dataset_id"]
    traces_file = f"{experiments[owner]}/traces/{traces[owner]}/artifacts/traces.json"
    ask(keys[owner], f"{PROXIES[0]}/artifacts/{traces_file}", {"spans": [{"name": SECRET}]}, "PUT")
    for kind, identity in (("experiment", experiments[owner]), ("registered_model", owner)):
        grant = {"username": thief, "resource_type": kind, "resource_id": identity, "permission": "DENY"}
        ask(admin, f"{V3}/users/permissions/grant", grant)
    return Prey(
        send=send,
        destination=destination,
        thief=keys[thief],
        owner=keys[owner],
        experiment=experiments[owner],
        run=runs[owner],
        model=models[owner],
        logged_model=logged[owner],
        trace=traces[owner],
        dataset=datasets[owner],
        own_experiment=experiments[thief],
        own_run=runs[thief],
        own_model=models[thief],
        own_logged_model=logged[thief],
        own_trace=traces[thief],
        own_dataset=datasets[thief],
    )


def _trace(identity: str, experiment: str, tags: dict[str, str] | None = None) -> dict[str, object]:
    location = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    when = {"request_time": "2026-01-01T00:00:00Z", "execution_duration": "1s", "state": "OK"}
    return {"trace_id": identity, "trace_location": location, **when, "tags": tags or {}}


Attack = Callable[[Prey], Answer]
ATTACKS: dict[str, Attack] = {}


def _add(name: str, method: str, path: str, body: object = None, kind: str = "application/json") -> None:
    """One request. `{x}` in path and body stands for attribute x of the prey."""

    def attack(prey: Prey) -> Answer:
        filled = body and json.loads(_filled(json.dumps(body), prey))
        return prey.attempt(method, _filled(path, prey), filled, kind)

    assert name not in ATTACKS, name
    ATTACKS[name] = attack


def _filled(text: str, prey: Prey) -> str:
    return re.sub(r"\{([a-z_]+)\}", lambda match: str(getattr(prey, match[1])), text)


def _chain(attack: Attack) -> Attack:
    """An attack of several requests, of which the last is judged."""
    ATTACKS[attack.__name__.replace("_", " ")] = attack
    return attack


# Spellings of the owner's path that name the same file to somebody who decodes or normalizes them.
_SPELLINGS = {
    "plain": "{file}",
    "dot": "./{file}",
    "dot encoded": "%2e/{file}",
    "dot encoded twice": "%252e/{file}",
    "dot encoded thrice": "%25252e/{file}",
    "dot inside": "{experiment}/./{run}/artifacts/secret.txt",
    "dots and back": "{own_experiment}/../{file}",
    "dots and back encoded": "{own_experiment}/%2e%2e/{file}",
    "dots and back encoded twice": "{own_experiment}/%252e%252e/{file}",
    "slash first": "/{file}",
    "slash first encoded": "%2f{file}",
    "two slashes": "{experiment}//{run}/artifacts/secret.txt",
    "slashes encoded": "{experiment}%2f{run}%2fartifacts%2fsecret.txt",
    "digit encoded twice": "{encoded_experiment}/{run}/artifacts/secret.txt",
    "scheme file": "file:{file}",
    "scheme file, absolute": "file:/{file}",
    "scheme file, host": "file://{file}",
    "backslash": ".\\{file}",
    "parameters": "{experiment};x/{run}/artifacts/secret.txt",
    "question mark": "{file}%3f",
    "hash": "{file}%23",
    "nul": "{file}%00",
    "blank before": "%20{file}",
    "line break before": "%0a{file}",
    "workspace": "workspaces/default/../../{file}",
}
for _name, _spelling in _SPELLINGS.items():
    _add(f"get, {_name}", "GET", f"{PROXIES[0]}/artifacts/{_spelling}")
    _add(f"delete, {_name}", "DELETE", f"{PROXIES[0]}/artifacts/{_spelling}")
for _name in ("plain", "dot", "dot encoded twice", "dots and back encoded", "scheme file", "two slashes"):
    _spelling = _SPELLINGS[_name]
    _add(f"put, {_name}", "PUT", f"{PROXIES[0]}/artifacts/{_spelling}", "overwritten")
    _add(f"get for pages, {_name}", "GET", f"{PROXIES[1]}/artifacts/{_spelling}")
    _add(f"head, {_name}", "HEAD", f"{PROXIES[0]}/artifacts/{_spelling}")
    _add(f"presigned, {_name}", "GET", f"{PROXIES[0]}/presigned/{_spelling}")
    for _step in ("create", "complete", "abort"):
        _body = {"path": "secret.txt", "num_parts": 1, "upload_id": "1", "parts": []}
        _add(f"multipart {_step}, {_name}", "POST", f"{PROXIES[0]}/mpu/{_step}/{_spelling}", _body)
_DIRECTORY_SPELLINGS = {
    "plain": "{directory}",
    "dot": "./{directory}",
    "dot encoded twice": "%252e/{directory}",
    "slash last": "{directory}/",
    "dots": "{own_experiment}/../{directory}",
    "scheme file": "file:{directory}",
    "given twice": "{own_experiment}&path={directory}",
    "given twice, reversed": "{directory}&path={own_experiment}",
    "experiment": "{experiment}",
    "experiment, dot": "./{experiment}",
    "experiment, dot last": "{experiment}/.",
    "traces": "./{experiment}/traces",
}
for _name, _spelling in _DIRECTORY_SPELLINGS.items():
    _add(f"list, {_name}", "GET", f"{PROXIES[0]}/artifacts?path={_spelling}")
_add("list, path in a body", "GET", f"{PROXIES[0]}/artifacts", {"path": "{directory}"})
_add("list, path in a body and another in the address", "GET", f"{PROXIES[0]}/artifacts?x=1", {"path": "{directory}"})
_add("list, experiment in a body", "GET", f"{PROXIES[1]}/artifacts", {"path": "{experiment}"})
_add("delete the experiment's directory", "DELETE", f"{PROXIES[0]}/artifacts/{{experiment}}")
_add("delete the experiment's directory, dot", "DELETE", f"{PROXIES[0]}/artifacts/./{{experiment}}")
_add("delete everything", "DELETE", f"{PROXIES[0]}/artifacts/.")
_add("delete everything, encoded", "DELETE", f"{PROXIES[0]}/artifacts/%2e")

# The routes of MLflow's own pages and clients.
_add("run's artifacts, list", "GET", f"{API}/artifacts/list?run_id={{run}}")
_add("run's artifacts, list, both ids", "GET", f"{API}/artifacts/list?run_id=&run_uuid={{run}}")
_add("run's artifacts, list, in a body", "GET", f"{API}/artifacts/list", {"run_id": "{run}"})
_add("run's artifacts, list, two runs", "GET", f"{API}/artifacts/list?run_id={{own_run}}&run_id={{run}}")
_add("get-artifact", "GET", "/get-artifact?run_id={run}&path=secret.txt")
_add("get-artifact, run_uuid", "GET", "/get-artifact?run_uuid={run}&path=secret.txt")
_add("get-artifact, dots", "GET", "/get-artifact?run_id={own_run}&path=../../../{file}")
_add("get-artifact, dots encoded", "GET", "/get-artifact?run_id={own_run}&path=%252e%252e/%252e%252e/%252e%252e/{file}")
_add("get-artifact, dot", "GET", "/get-artifact?run_id={run}&path=./secret.txt")
_add("get-artifact, two runs", "GET", "/get-artifact?run_id={own_run}&run_uuid={run}&path=./secret.txt")
_add("get-artifact, head", "HEAD", "/get-artifact?run_id={run}&path=secret.txt")
_add("get-artifact, two slashes", "GET", "//get-artifact?run_id={run}&path=secret.txt")
_add("version's artifact", "GET", "/model-versions/get-artifact?name={model}&version=1&path=secret.txt")
_add("version's artifact, head", "HEAD", "/model-versions/get-artifact?name={model}&version=1&path=secret.txt")
_add(
    "version's artifact, two names",
    "GET",
    "/model-versions/get-artifact?name={own_model}&name={model}&version=1&path=./secret.txt",
)
_add(
    "version's artifact, dots",
    "GET",
    "/model-versions/get-artifact?name={own_model}&version=1&path=../../../{file}",
)
_add("version's address", "GET", f"{API}/model-versions/get-download-uri?name={{model}}&version=1")
_add("upload-artifact", "POST", f"{AJAX}/upload-artifact?run_uuid={{run}}&path=secret.txt", "overwritten")
_add(
    "upload-artifact, own run beside",
    "POST",
    f"{AJAX}/upload-artifact?run_id={{own_run}}&run_uuid={{run}}&path=secret.txt",
    "overwritten",
)
_add(
    "upload-artifact, dots",
    "POST",
    f"{AJAX}/upload-artifact?run_uuid={{own_run}}&path=../../../{{file}}",
    "overwritten",
)
_add("logged model's files", "GET", f"{API}/logged-models/{{logged_model}}/artifacts/directories")
_add(
    "logged model's file",
    "GET",
    f"{AJAX}/logged-models/{{logged_model}}/artifacts/files?artifact_file_path=MLmodel",
)
_add("trace's data", "GET", f"{AJAX}/get-trace-artifact?request_id={{trace}}")
_add("trace, moved", "POST", f"{V3}/traces", {"trace": {"trace_info": _trace("{trace}", "{own_experiment}")}})
_add("trace's attachment", "GET", f"{AJAX}/get-trace-artifact?request_id={{trace}}&path=secret.txt")
_add("presigned upload", "POST", f"{API}/artifacts/presigned-upload-url", {"run_id": "{run}", "path": FILE})
_add("presigned download", "POST", f"{API}/artifacts/presigned-download-url", {"run_id": "{run}", "path": FILE})

# Locations that a client names: of an experiment, a model version, a trace.
_LOCATIONS = {
    "proxied": "mlflow-artifacts:/{experiment}",
    "proxied, run": "mlflow-artifacts:/{directory}",
    "proxied, dot": "mlflow-artifacts:/./{directory}",
    "proxied, slashes": "mlflow-artifacts:///{directory}",
    "proxied, host": "mlflow-artifacts://mlflow:5000/{directory}",
    "proxied, localhost": "mlflow-artifacts://127.0.0.1/{directory}",
    "proxied, capitals": "MLFLOW-ARTIFACTS:/{directory}",
    "proxied, encoded": "mlflow-artifacts:/%2e/{directory}",
    "proxied, everything": "mlflow-artifacts:/",
    "http": "http://127.0.0.1:5000/api/2.0/mlflow-artifacts/artifacts/{directory}",
    "store": "{store}/{directory}",
    "store, root": "{store}",
    "store, slash": "{store}/",
    "store, two slashes": "{store}//{directory}",
    "store, dot": "{store}/./{directory}",
    "store, dot encoded": "{store}/%2e/{directory}",
    "store, dots": "{store}/x/../{directory}",
    "store, query": "{store}/{directory}?x=1",
    "store, hash": "{store}/{directory}#x",
    "store, blank": " {store}/{directory}",
    "store, scheme in capitals": "{loud_store}/{directory}",
    "store, host in capitals": "ftps://FTP:2121/{directory}",
    "store, user": "ftps://mlflow@ftp:2121/{directory}",
    "store, other user": "ftps://root@ftp:2121/{directory}",
    "store, password": "ftps://mlflow:x@ftp:2121/{directory}",
    "store, no port": "ftps://ftp/{directory}",
    "store, other port": "ftps://ftp:02121/{directory}",
    "store, no tls": "ftp://ftp:2121/{directory}",
    "store, no host": "ftps:///{directory}",
    "store, no slashes": "ftps:{directory}",
    "store, other protocol": "sftp://ftp:2121/{directory}",
    "a bucket": "s3://bucket/{directory}",
    "a lake": "dbfs:/{directory}",
    "disk": "file:///etc",
    "disk, path": "/etc",
    "disk, password file": "file:///etc/mlflow-stack",
}


def _location_attacks(name: str, location: str) -> None:
    def experiment(prey: Prey) -> Answer:
        """An experiment there, a run in it, and its artifacts listed."""
        filled = _filled(location, prey)
        body = {"name": f"{prey.own_experiment} {name}", "artifact_location": filled}
        created = prey.attempt("POST", f"{API}/experiments/create", body)
        if created.status != 200:
            return created
        started = prey.attempt(
            "POST", f"{API}/runs/create", {"experiment_id": created.json()["experiment_id"], "start_time": 1}
        )
        run = started.json()["run"]["info"]["run_id"]
        return prey.attempt("GET", f"{API}/artifacts/list?run_id={run}")

    def version(prey: Prey) -> Answer:
        """A model version from there, and its file."""
        filled = _filled(location, prey)
        body = {"name": prey.own_model, "source": filled, "run_id": prey.own_run}
        created = prey.attempt("POST", f"{API}/model-versions/create", body)
        if created.status != 200:
            return created
        number = created.json()["model_version"]["version"]
        where = f"name={prey.own_model}&version={number}"
        for path in (FILE, f"{prey.directory}/{FILE}", "hostname"):
            answer = prey.attempt("GET", f"/model-versions/get-artifact?{where}&path={path}")
            if answer.status < 400 or answer.status >= 500:
                return answer
        return answer

    def trace(prey: Prey) -> Answer:
        """The thief's own trace, said to be there, and its data."""
        tag = {"key": "mlflow.artifactLocation", "value": _filled(location, prey)}
        tagged = prey.attempt("PATCH", f"{V3}/traces/{prey.own_trace}/tags", tag)
        if tagged.status >= 400:
            return tagged
        return prey.attempt("GET", f"{AJAX}/get-trace-artifact?request_id={prey.own_trace}")

    ATTACKS[f"experiment at {name}"] = experiment
    ATTACKS[f"version of {name}"] = version
    ATTACKS[f"trace at {name}"] = trace


for _name, _spelling in _LOCATIONS.items():
    _location_attacks(_name, _spelling)
_add("version of run", "POST", f"{API}/model-versions/create", {"name": "{own_model}", "source": "runs:/{run}/"})
_add(
    "version of run, with its id",
    "POST",
    f"{API}/model-versions/create",
    {"name": "{own_model}", "source": "mlflow-artifacts:/{directory}", "run_id": "{run}"},
)
_add(
    "version of run, without an id",
    "POST",
    f"{API}/model-versions/create",
    {"name": "{own_model}", "source": "mlflow-artifacts:/{directory}"},
)
_add(
    "version of version",
    "POST",
    f"{API}/model-versions/create",
    {"name": "{own_model}", "source": "models:/{model}/1"},
)
_add(
    "version of logged model",
    "POST",
    f"{API}/model-versions/create",
    {"name": "{own_model}", "source": "models:/{logged_model}"},
)


# What is one thing for who asks about permissions and another for who acts: an id in the query beside the path's,
_TWICE = {
    "trace": f"{V3}/traces/{{trace}}?trace_id={{own_trace}}",
    "trace's info": f"{API}/traces/{{trace}}/info?request_id={{own_trace}}",
    "logged model": f"{API}/logged-models/{{logged_model}}?model_id={{own_logged_model}}",
    "logged model's files": f"{API}/logged-models/{{logged_model}}/artifacts/directories?model_id={{own_logged_model}}",
    "dataset": f"{V3}/datasets/{{dataset}}?dataset_id={{own_dataset}}",
    "dataset's records": f"{V3}/datasets/{{dataset}}/records?dataset_id={{own_dataset}}",
}
for _name, _path in _TWICE.items():
    _add(f"own id in the query, {_name}", "GET", _path)
    _add(f"own id in the query, delete {_name}", "DELETE", _path, None, "text/plain")
# a body that only one of them reads,
_BODIES = {
    "registered-models/delete": "name={own_model}",
    "registered-models/delete-tag": "name={own_model}&key=k",
    "registered-models/alias": "name={own_model}&alias=a",
    "model-versions/delete": "name={own_model}&version=1",
}
for _path, _query in _BODIES.items():
    _body = {"name": "{model}", "version": "1", "key": "k", "alias": "a"}
    _add(f"body that is not said to be JSON, {_path}", "DELETE", f"{API}/{_path}?{_query}", _body, "text/plain")
_own_experiment = {"experiment_ids": ["{own_experiment}"]}
_add("own experiment in a body", "GET", f"{V3}/datasets/search?experiment_ids={{experiment}}", _own_experiment)
# or another spelling of a number.
_NUMBERS = {
    "zero before": "0{experiment}",
    "plus": "%2B{experiment}",
    "blank before": "%20{experiment}",
    "blank": "{experiment}%20",
    "line break": "{experiment}%0a",
    "other digits": "{arabic_experiment}",
}
for _name, _number in _NUMBERS.items():
    _add(f"number, {_name}", "GET", f"{API}/experiments/get?experiment_id={_number}")
    _add(f"number, {_name}, traces", "GET", f"{API}/traces?experiment_ids={_number}")
for _name, _number in {"zero before": "0{experiment}", "plus": "+{experiment}", "blank": "{experiment} "}.items():
    _add(f"number, {_name}, runs", "POST", f"{API}/runs/search", {"experiment_ids": [_number]})
    _add(f"number, {_name}, a run", "POST", f"{API}/runs/create", {"experiment_id": _number})


@_chain
def trace_at_the_owners_trace(prey: Prey) -> Answer:
    """The owner's trace lies in a directory with a well-known name: the thief's trace is said to be there."""
    where = f"mlflow-artifacts:/{prey.experiment}/traces/{prey.trace}/artifacts"
    tag = {"key": "mlflow.artifactLocation", "value": where}
    prey.attempt("PATCH", f"{V3}/traces/{prey.own_trace}/tags", tag)
    return prey.attempt("GET", f"{AJAX}/get-trace-artifact?request_id={prey.own_trace}")


@_chain
def new_trace_at_the_owners_trace(prey: Prey) -> Answer:
    """The same from the trace's beginning."""
    where = f"mlflow-artifacts:/{prey.experiment}/traces/{prey.trace}/artifacts"
    identity = f"{prey.own_trace}2"
    body = {"trace": {"trace_info": _trace(identity, prey.own_experiment, {"mlflow.artifactLocation": where})}}
    prey.attempt("POST", f"{V3}/traces", body)
    return prey.attempt("GET", f"{AJAX}/get-trace-artifact?request_id={identity}")


@_chain
def trace_with_a_path_as_its_id(prey: Prey) -> Answer:
    """Traces are named by clients."""
    identity = f"../../{prey.experiment}/traces/{prey.trace}"
    prey.attempt("POST", f"{V3}/traces", {"trace": {"trace_info": _trace(identity, prey.own_experiment)}})
    return prey.attempt("GET", f"{AJAX}/get-trace-artifact?request_id={identity}")


@_chain
def experiment_above_the_owners_trace(prey: Prey) -> Answer:
    """An experiment at the owner's location has its traces where the owner's are."""
    body = {"name": f"{prey.own_experiment} above", "artifact_location": f"mlflow-artifacts:/{prey.experiment}"}
    return prey.attempt("POST", f"{API}/experiments/create", body)
