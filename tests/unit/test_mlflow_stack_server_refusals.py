"""What the server refuses and MLflow does not: odd requests, stores that are not there, and what is another's."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow_stack_rig
import pytest
import requests
from mlflow_stack_rig import ADMIN, Answer, Rig
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

API, V3 = "/api/2.0/mlflow", "/api/3.0/mlflow"


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    home = tmp_path_factory.mktemp("mlflow") / "home"
    with mlflow_stack_rig.running(home, str(home / "store")) as server:
        yield server


@pytest.fixture(scope="module")
def experiments(rig: Rig) -> list[str]:
    """The numbers of two experiments."""
    answers = [rig.send("POST", f"{API}/experiments/create", account=ADMIN, body={"name": name}) for name in "ab"]
    return [answer.json()["experiment_id"] for answer in answers]


ODD = {
    "a list": (f"{API}/experiments/create", [1]),
    "a text": (f"{API}/runs/search", "x"),
    "a number": (f"{API}/runs/create", 5),
    "an empty list": (f"{API}/experiments/create", []),
    "zero": (f"{API}/runs/search", 0),
    "an empty text": (f"{API}/runs/log-metric", ""),
    "false": (f"{API}/experiments/create", False),
    "graphql of a list": ("/graphql", [1]),
    "graphql of nothing": ("/graphql", {}),
    "graphql of a number": ("/graphql", {"query": 1}),
    "graphql with a list of variables": (
        "/graphql",
        {"query": '{ test(inputString: "a") { output } }', "variables": [1]},
    ),
}


@pytest.mark.parametrize(("path", "body"), ODD.values(), ids=ODD)
def test_a_body_that_is_no_request_is_a_400(rig: Rig, path: str, body: object) -> None:
    answer = rig.send("POST", path, account=ADMIN, body=body)
    assert answer.status == 400
    assert "This is no request" in answer.body


@pytest.mark.parametrize(("path", "body"), ODD.values(), ids=ODD)
def test_without_a_login_it_is_a_401(rig: Rig, path: str, body: object) -> None:
    assert rig.send("POST", path, body=body).status == 401


@pytest.mark.parametrize("api", ["api", "ajax-api"])
def test_how_the_server_is_set_up_is_told_after_a_login(rig: Rig, api: str) -> None:
    path = f"/{api}/3.0/mlflow/server-info"
    assert rig.send("GET", path).status == 401
    assert rig.send("GET", path, account="nobody:and-no-password").status == 401
    assert "store_type" in rig.send("GET", path, account=ADMIN).body


def test_a_file_may_be_a_list(rig: Rig, experiments: list[str]) -> None:
    made = rig.send("POST", f"{API}/runs/create", account=ADMIN, body={"experiment_id": experiments[0]})
    address = f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={made.json()['run']['info']['run_id']}&path=list.json"
    assert rig.send("POST", address, account=ADMIN, body=[1]).status == 200


def test_an_object_may_be_made_into_text_twice(rig: Rig) -> None:
    """As old clients do."""
    assert rig.send("POST", f"{API}/experiments/search", account=ADMIN, body='{"max_results": 1}').status == 200


@pytest.mark.parametrize("text", ["null", "[" * 100_000], ids=["null", "nested"])
def test_what_is_no_request_either(rig: Rig, text: str) -> None:
    def status(login: tuple[str, str] | None) -> int:
        headers = {"Content-Type": "application/json"}
        address = f"{rig.url}{API}/runs/log-batch"
        return requests.post(address, data=text, headers=headers, auth=login, timeout=30).status_code

    assert status(None) == 401
    assert status((ADMIN.split(":")[0], ADMIN.split(":")[1])) == 400


TYPES: dict[str, tuple[str, object]] = {
    "a list for a number": (f"{API}/experiments/search", {"max_results": [1]}),
    "a number for an object": (f"{API}/runs/log-batch", {"run_id": "x", "metrics": [5]}),
}


@pytest.mark.parametrize(("path", "body"), TYPES.values(), ids=TYPES)
def test_a_field_of_another_type_is_a_400(rig: Rig, path: str, body: object) -> None:
    assert rig.send("POST", path, account=ADMIN, body=body).status == 400


def test_something_may_be_called_graphql(rig: Rig, experiments: list[str]) -> None:
    made = rig.send("POST", f"{API}/logged-models", account=ADMIN, body={"experiment_id": experiments[0], "name": "m"})
    address = f"{API}/logged-models/{made.json()['model']['info']['model_id']}/tags"
    tags = {"tags": [{"key": "graphql", "value": "x"}]}
    assert rig.send("PATCH", address, account=ADMIN, body=tags).status == 200
    assert rig.send("DELETE", f"{address}/graphql", account=ADMIN).status == 200


def test_an_id_may_stand_in_the_path_and_in_the_query(rig: Rig, experiments: list[str]) -> None:
    """As MLflow's own client sends it."""
    assert start(rig, "tr-twice", experiments[0]).status == 200
    assert rig.send("GET", f"{V3}/traces/tr-twice?trace_id=tr-twice", account=ADMIN).status == 200
    assert rig.send("GET", f"{V3}/traces/tr-twice?trace_id=tr-other", account=ADMIN).status == 400


def test_the_demo_is_not_made(rig: Rig) -> None:
    answer = rig.send("POST", "/ajax-api/3.0/mlflow/demo/generate", account=ADMIN, body={})
    assert (answer.status, "demo" in answer.body) == (400, True)


STORES = ["s3://bucket/a", "gs://bucket/a", "dbfs:/a", "wasbs://a@b/c", "hdfs://a/b", "odd:a"]
ELSEWHERE = ["models:/m/1", "runs:/0/a", "http://host/a"]  # a source may be there, an experiment not


@pytest.mark.parametrize("location", STORES)
def test_a_store_that_is_not_there_is_refused(rig: Rig, location: str) -> None:
    body = {"name": f"in {location}", "artifact_location": location}
    assert rig.send("POST", f"{API}/experiments/create", account=ADMIN, body=body).status == 400
    rig.send("POST", f"{API}/registered-models/create", account=ADMIN, body={"name": "m"})
    version = {"name": "m", "source": location}
    assert rig.send("POST", f"{API}/model-versions/create", account=ADMIN, body=version).status == 400


@pytest.mark.parametrize("location", ELSEWHERE)
def test_an_experiment_is_where_artifacts_can_be(rig: Rig, location: str) -> None:
    body = {"name": f"in {location}", "artifact_location": location}
    assert rig.send("POST", f"{API}/experiments/create", account=ADMIN, body=body).status == 400


def start(
    rig: Rig,
    trace: str,
    experiment: str,
    *assessments: str,
    account: str = ADMIN,
    overrides: str | None = None,
    run: str | None = None,
) -> Answer:
    """Start a trace, or what seems to be one, with assessments of these numbers, perhaps of a run."""
    place = {"type": "MLFLOW_EXPERIMENT", "mlflow_experiment": {"experiment_id": experiment}}
    when = "2026-01-01T00:00:00Z"
    source = {"source_type": "HUMAN", "source_id": "a"}
    assessed = [
        {
            "assessment_id": identity,
            "assessment_name": "good",
            "trace_id": trace,
            "source": source,
            "create_time": when,
            "last_update_time": when,
            "feedback": {"value": True},
            **({"overrides": overrides} if overrides else {}),
        }
        for identity in assessments
    ]
    info = {"trace_id": trace, "trace_location": place, "request_time": when, "state": "OK", "assessments": assessed}
    metadata = {"trace_metadata": {"mlflow.sourceRun": run}} if run else {}
    return rig.send("POST", f"{V3}/traces", account=account, body={"trace": {"trace_info": info | metadata}})


def export(rig: Rig, trace: str, experiment: str, name: str, *, account: str = ADMIN, run: str = "") -> int:
    """Send a span of a trace, perhaps of a run, as OpenTelemetry does; the answer's status."""
    span = Span(trace_id=bytes.fromhex(trace), span_id=b"8 octets", name=name, start_time_unix_nano=1)
    request = ExportTraceServiceRequest()
    request.resource_spans.add().scope_spans.add().spans.append(span)
    username, _, password = account.partition(":")
    headers = {"Content-Type": "application/x-protobuf", "X-Mlflow-Experiment-Id": experiment}
    return requests.post(
        f"{rig.url}/v1/traces",
        data=request.SerializeToString(),
        headers=headers | ({"X-Mlflow-Run-Id": run} if run else {}),
        auth=(username, password),
        timeout=30,
    ).status_code


def test_a_trace_stays_in_its_experiment(rig: Rig, experiments: list[str]) -> None:
    """Who may write to the other experiment took it over, and could delete it."""
    assert start(rig, "tr-a", experiments[0]).status == 200
    assert start(rig, "tr-a", experiments[1]).status == 403
    assert start(rig, "tr-a", experiments[0]).status == 200  # as when its spans came first


def test_spans_go_into_a_trace_by_way_of_its_experiment(rig: Rig, experiments: list[str]) -> None:
    """Who may write to the other experiment changed what it says."""
    trace = "0123456789abcdef" * 2
    assert export(rig, trace, experiments[0], "first") == 200
    assert export(rig, trace, experiments[1], "forged") == 403
    assert export(rig, trace, experiments[0], "second") == 200
    assert start(rig, f"tr-{trace}", experiments[1]).status == 403


def test_an_assessment_stays_with_its_trace(rig: Rig, experiments: list[str]) -> None:
    assert start(rig, "tr-assessed", experiments[0], "a-1").status == 200
    assert start(rig, "tr-thief", experiments[1]).status == 200
    assert start(rig, "tr-thief", experiments[1], "a-1").status == 403
    assert start(rig, "tr-assessed", experiments[0], "a-1").status == 200


def test_an_assessment_overrides_those_of_its_own_trace(rig: Rig, experiments: list[str]) -> None:
    """Who took his own back made the other one valid again."""
    assert start(rig, "tr-overridden", experiments[0], "a-2").status == 200
    assert start(rig, "tr-thief", experiments[1], "a-3", overrides="a-2").status == 403
    assert start(rig, "tr-overridden", experiments[0], "a-4", overrides="a-2").status == 200


def test_a_trace_has_an_id(rig: Rig, experiments: list[str]) -> None:
    assert start(rig, "", experiments[0]).status == 400


ACCOUNT = "scientist:a-password-of-the-scientist"


@pytest.fixture(scope="module")
def own(rig: Rig) -> str:
    """The number of an experiment of an account that is no administrator's."""
    name, password = ACCOUNT.split(":")
    rig.send("POST", f"{API}/users/create", account=ADMIN, body={"username": name, "password": password})
    made = rig.send("POST", f"{API}/experiments/create", account=ACCOUNT, body={"name": name})
    number: str = made.json()["experiment_id"]
    return number


def test_a_scorer_is_denied_with_its_experiment(rig: Rig, experiments: list[str], own: str) -> None:
    for account, number in ((ADMIN, experiments[1]), (ACCOUNT, own)):
        scorer = {"experiment_id": number, "name": "s", "serialized_scorer": "{}"}
        rig.send("POST", f"{V3}/scorers/register", account=account, body=scorer)
    grant = {"username": ACCOUNT.split(":")[0], "resource_type": "experiment", "resource_id": experiments[1]}
    rig.send("POST", f"{V3}/users/permissions/grant", account=ADMIN, body=grant | {"permission": "DENY"})
    asked = [
        rig.send("GET", f"{V3}/scorers/get?experiment_id={n}&name=s", account=ACCOUNT) for n in (experiments[1], own)
    ]
    assert [answer.status for answer in asked] == [403, 200]


def test_spans_link_their_trace_to_a_run_of_ones_own(rig: Rig, experiments: list[str], own: str) -> None:
    """Who may only read the run put traces on its page."""
    account = ACCOUNT
    places = [(account, own), (ADMIN, experiments[0])]
    made = [rig.send("POST", f"{API}/runs/create", account=who, body={"experiment_id": place}) for who, place in places]
    runs = [answer.json()["run"]["info"]["run_id"] for answer in made]
    assert export(rig, "1" * 32, own, "own", account=account, run=runs[0]) == 200
    assert export(rig, "2" * 32, own, "another's", account=account, run=runs[1]) == 403
    assert export(rig, "2" * 32, own, "nobody's", account=account, run="0" * 32) == 403
    assert export(rig, "2" * 32, own, "of no run", account=account) == 200
    assert start(rig, "tr-own", own, account=account, run=runs[0]).status == 200
    assert start(rig, "tr-others", own, account=account, run=runs[1]).status == 403
