"""mlflow_model, mlflow_model_info and mlflow_info against a real MLflow: register, prove, promote, remove, look up."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from threading import Timer
from typing import Any, ClassVar

import mlflow
import mlflow_info
import mlflow_model
import mlflow_model_info
import pandas as pd
import pytest
import yaml
from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.mlflow_api import Http, Mlflow
from mlflow_harness import (
    DOUBLED,
    INPUTS,
    PASSWORD,
    USERNAME,
    Answer,
    Models,
    Peer,
    Run,
    free_port,
    listening,
    mlflow_client,
)

REPO = Path(__file__).parents[3]
DIGEST = "mlflow_model.digest"


def smoke_test(endpoint: str, **options: object) -> dict[str, Any]:
    return {"endpoint": endpoint, "inputs": INPUTS, "expected": DOUBLED, **options}


def right() -> Answer:
    return Answer(200, {"predictions": DOUBLED})


# Registering


def test_a_model_is_registered_once(run: Run, client: Mlflow, models: Models, name: str) -> None:
    first = run(mlflow_model, name=name, source=models.doubler)
    digest = first["tags"][DIGEST]
    assert (first["changed"], first["created"], first["version"]) == (True, True, 1)
    assert (first["source"], first["run_id"]) == (models.doubler, models.run)
    assert first["diff"] == {
        "before": {"registered_model": None, "version": None, "version_tags": {}},
        "after": {"registered_model": name, "version": 1, "version_tags": {DIGEST: digest}},
    }
    second = run(mlflow_model, name=name, source=models.doubler)
    assert (second["changed"], second["created"], second["version"]) == (False, False, 1)
    assert second["diff"] == {"before": {}, "after": {}}
    assert len(client.versions(name)) == 1


def test_check_mode_predicts_and_changes_nothing(run: Run, client: Mlflow, models: Models, name: str) -> None:
    parameters: dict[str, Any] = {"name": name, "source": models.doubler, "alias": "champion", "tags": {"team": "wine"}}
    predicted = run(mlflow_model, check=True, **parameters)
    assert client.registered_model(name) is None
    real = run(mlflow_model, **parameters)
    assert (predicted["changed"], predicted["created"]) == (real["changed"], real["created"]) == (True, True)
    assert predicted["version"] is None
    assert predicted["diff"]["before"] == real["diff"]["before"]
    assert predicted["diff"]["after"] == {**real["diff"]["after"], "version": "new", "alias": {"champion": "new"}}
    assert run(mlflow_model, check=True, **parameters)["changed"] is False


def test_the_same_model_of_another_run_is_no_new_version(run: Run, models: Models, name: str) -> None:
    first = run(mlflow_model, name=name, source=models.doubler)
    again = run(mlflow_model, name=name, source=models.doubler_again)
    assert models.doubler != models.doubler_again
    assert (again["changed"], again["version"], again["source"]) == (False, 1, models.doubler)
    assert again["tags"] == first["tags"]


def test_another_model_is_a_new_version(run: Run, models: Models, name: str) -> None:
    run(mlflow_model, name=name, source=models.doubler)
    other = run(mlflow_model, name=name, source=models.tripler)
    assert (other["changed"], other["created"], other["version"]) == (True, True, 2)


def test_a_model_of_a_run_is_named_by_its_path(run: Run, models: Models, name: str) -> None:
    logged = run(mlflow_model, name=name, source=f"runs:/{models.run}/model")
    assert (logged["version"], logged["source"]) == (1, models.doubler)
    old_style = run(mlflow_model, name=name, source=f"runs:/{models.run}/old-style/")
    assert old_style["version"] == 1, "the content is the same"
    alone = run(mlflow_model, name=f"{name}-2", source=f"runs:/{models.run}/old-style")
    assert alone["source"].endswith(f"/{models.run}/artifacts/old-style")
    assert alone["run_id"] == models.run
    assert run(mlflow_model, name=f"{name}-2", source=f"runs:/{models.run}/old-style")["changed"] is False


def test_a_directory_is_uploaded_once(run: Run, models: Models, tracking_uri: str, name: str) -> None:
    first = run(mlflow_model, name=name, source=str(models.directory))
    assert (first["changed"], first["created"], first["run_id"]) == (True, True, None)
    assert run(mlflow_model, name=name, source=str(models.directory))["changed"] is False
    with mlflow_client(tracking_uri):
        loaded = mlflow.pyfunc.load_model(f"models:/{name}/1")
        downloaded = mlflow.artifacts.download_artifacts(f"models:/{name}/1")
    assert list(loaded.predict(pd.DataFrame(INPUTS))) == [4.0, 8.0, 12.0]
    assert run(mlflow_model, name=name, source=downloaded)["changed"] is False


def test_an_upload_that_fails_registers_nothing(
    run: Run, client: Mlflow, models: Models, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Http.send

    def full_disk(self: Http, method: str, url: str, **options: Any) -> object:  # noqa: ANN401
        if method == "PUT":
            raise OSError(28, "No space left on device")
        return send(self, method, url, **options)

    monkeypatch.setattr(Http, "send", full_disk)
    with pytest.raises(OSError, match="No space left"):
        run(mlflow_model, name=name, source=str(models.directory))
    assert client.versions(name) == []


def test_a_version_of_another_model_is_copied(run: Run, models: Models, name: str) -> None:
    run(mlflow_model, name=f"{name}-dev", source=models.tripler, alias="good")
    copy = run(mlflow_model, name=name, source=f"models:/{name}-dev@good")
    assert (copy["changed"], copy["version"], copy["source"]) == (True, 1, f"models:/{name}-dev/1")
    assert run(mlflow_model, name=name, source=f"models:/{name}-dev/1")["changed"] is False
    assert run(mlflow_model, name=name, source=models.tripler)["version"] == 1


def test_a_version_of_the_model_itself_is_that_version(run: Run, client: Mlflow, models: Models, name: str) -> None:
    client.create_registered_model(name)
    client.create_version(name, models.doubler, None, models.doubler.removeprefix("models:/"), {})
    client.set_alias(name, "challenger", 1)
    promoted = run(mlflow_model, name=name, source=f"models:/{name}@challenger", alias="champion")
    assert (promoted["version"], promoted["created"], promoted["alias"]) == (1, False, "champion")
    assert client.registered_model(name).aliases == {"challenger": 1, "champion": 1}
    assert len(client.versions(name)) == 1


def test_a_version_that_was_registered_by_other_means_is_recognised(
    run: Run, client: Mlflow, models: Models, name: str
) -> None:
    client.create_registered_model(name)
    client.create_version(name, models.doubler, None, models.doubler.removeprefix("models:/"), {})
    found = run(mlflow_model, name=name, source=models.doubler)
    assert (found["version"], found["created"]) == (1, False)
    assert list(found["diff"]["after"]) == ["version_tags"], "it gets its digest"
    assert run(mlflow_model, name=name, source=models.doubler_again)["version"] == 1


# Description and tags


def test_description_and_tags(run: Run, client: Mlflow, models: Models, name: str) -> None:
    parameters: dict[str, Any] = {"name": name, "source": models.doubler, "description": "Doubles.", "tags": {"a": 1}}
    run(mlflow_model, **parameters, version_tags={"commit": "4f2a9c1"})
    assert run(mlflow_model, **parameters, version_tags={"commit": "4f2a9c1"})["changed"] is False

    parameters |= {"description": "", "tags": {"a": None, "b": "2"}}
    changed = run(mlflow_model, **parameters, version_tags={"commit": None, "stage": "test"})
    assert changed["diff"] == {
        "before": {
            "description": "Doubles.",
            "tags": {"a": "1", "b": None},
            "version_tags": {"commit": "4f2a9c1", "stage": None},
        },
        "after": {
            "description": "",
            "tags": {"a": None, "b": "2"},
            "version_tags": {"commit": None, "stage": "test"},
        },
    }
    assert changed["tags"] == client.version(name, 1).tags == {DIGEST: changed["tags"][DIGEST], "stage": "test"}
    model = client.registered_model(name)
    assert (model.description, model.tags) == ("", {"b": "2"})


def test_what_is_not_given_is_left_alone(run: Run, client: Mlflow, models: Models, name: str) -> None:
    run(mlflow_model, name=name, source=models.doubler, description="Doubles.", tags={"a": "1"}, alias="champion")
    assert run(mlflow_model, name=name)["changed"] is False
    model = client.registered_model(name)
    assert (model.description, model.tags, model.aliases) == ("Doubles.", {"a": "1"}, {"champion": 1})


# The smoke test


@pytest.fixture
def champion(client: Mlflow, models: Models, name: str) -> str:
    """Name of a registered model whose version 1, the doubler, is its champion, and whose version 2 is the tripler."""
    client.create_registered_model(name)
    for uri in (models.doubler, models.tripler):
        client.create_version(name, uri, None, uri.removeprefix("models:/"), {DIGEST: f"sha256:{uri}"})
    client.set_alias(name, "champion", 1)
    return name


def test_a_model_is_promoted_after_proof(run: Run, client: Mlflow, models: Models, name: str, served: str) -> None:
    test = smoke_test(served, max_latency_ms=5000)
    result = run(mlflow_model, name=name, source=models.doubler, alias="champion", smoke_test=test)
    assert result["smoke_test"].pop("latency_ms") > 0
    assert result["smoke_test"].pop("max_difference") < 1e-6
    assert result["smoke_test"] == {"passed": True, "rows": 3, "problems": []}
    assert (result["alias"], result["previous_version"]) == ("champion", None)
    assert client.registered_model(name).aliases == {"champion": 1}
    again = run(mlflow_model, name=name, source=models.doubler, alias="champion", smoke_test=test)
    assert (again["changed"], again["previous_version"], again["smoke_test"]["passed"]) == (False, 1, True)


def test_the_served_model_that_is_not_the_expected_one_stays_out(
    run: Run, client: Mlflow, champion: str, served: str
) -> None:
    test = smoke_test(served, expected=[3.0, 6.0, 9.0])
    result = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)
    assert result["failed"]
    assert result["msg"] == (
        f"Version 2 of '{champion}' failed its smoke test at {served}: "
        "row 0: expected 3.0, got 2.0, difference 1 (tolerance 1e-06); "
        "row 1: expected 6.0, got 4.0, difference 2 (tolerance 1e-06); "
        "row 2: expected 9.0, got 6.0, difference 3 (tolerance 1e-06). "
        "The alias 'champion' still points to version 1."
    )
    assert result["smoke_test"]["max_difference"] == pytest.approx(3)
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_inputs_of_the_wrong_schema(run: Run, client: Mlflow, champion: str, served: str) -> None:
    test = smoke_test(served, inputs=[{"y": 1.0}], expected=[2.0])
    result = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)
    assert result["failed"]
    assert "HTTP 400 INVALID_PARAMETER_VALUE: Failed to predict data" in result["msg"]
    assert "Model is missing inputs ['x']. Note that there were extra inputs: ['y']. The alias" in result["msg"]
    assert client.registered_model(champion).aliases == {"champion": 1}


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Answer(200, {"predictions": [2.0, 4.0]}), "number of rows: expected 3, got 2"),
        (Answer(200, {"predictions": [2.0, math.nan, 6.0]}), "row 1: expected 4.0, got NaN"),
        (
            Answer(200, {"predictions": {"x": 1}}),
            'HTTP 200: expected a list of predictions, got {"predictions": {"x": 1}}',
        ),
        (Answer(200, [2.0, 4.0, 6.0]), "HTTP 200: expected a list of predictions, got [2.0, 4.0, 6.0]"),
        (Answer(200, b"<p>Welcome</p>"), 'HTTP 200: expected JSON, got "<p>Welcome</p>"'),
        (Answer(500, b"Internal Server Error"), "HTTP 500: Internal Server Error"),
        (Answer(503, b"starting"), "HTTP 503: starting"),
        (Answer(200, {"predictions": DOUBLED}, seconds=2), "no answer within 1 s"),
        (Answer(200, {"predictions": DOUBLED}, pause=0.3), "no answer within 1 s"),
        (Answer(500, b"Internal Server Error", pause=0.3), "no answer within 1 s"),
        (Answer(500, b"[" * 90), f"HTTP 500: {'[' * 90}"),
        (Answer(500, b"\x1b[2Kwell"), "HTTP 500: \ufffd[2Kwell"),
        (Answer(200, {"predictions": ["x" * 2**24]}), "the answer is larger than 16 MiB"),
        (
            Answer(200, b'{"predictions": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
            "HTTP 200: the answer is nested too deeply",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_an_endpoint_that_fails(
    run: Run, client: Mlflow, champion: str, peer: Peer, answer: Answer, problem: str
) -> None:
    test = smoke_test(peer.says(answer))
    result = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test, timeout=1)
    assert result["msg"] == (
        f"Version 2 of '{champion}' failed its smoke test at {peer.url}: {problem}. "
        "The alias 'champion' still points to version 1."
    )
    assert (result["smoke_test"]["passed"], result["smoke_test"]["problems"]) == (False, [problem])
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_an_endpoint_that_is_down(run: Run, client: Mlflow, champion: str) -> None:
    test = smoke_test(f"http://127.0.0.1:{free_port()}")
    result = run(mlflow_model, name=champion, version=2, alias="challenger", smoke_test=test)
    assert result["msg"].endswith(": Connection refused. The alias 'challenger' was not set.")
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_an_endpoint_that_is_too_slow(run: Run, client: Mlflow, champion: str, peer: Peer) -> None:
    endpoint = peer.says(Answer(200, {"predictions": DOUBLED}, seconds=0.1))
    test = smoke_test(endpoint, max_latency_ms=50)
    result = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)
    latency = result["smoke_test"]["latency_ms"]
    assert latency >= 100
    assert result["smoke_test"]["problems"] == [f"the answer took {latency:g} ms, expected at most 50 ms"]
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_one_slow_answer_is_forgiven(run: Run, champion: str, peer: Peer) -> None:
    slow = Answer(200, {"predictions": DOUBLED}, seconds=0.3)
    test = smoke_test(peer.says(slow, slow, right()), max_latency_ms=250)
    assert run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)["smoke_test"]["passed"]


def test_a_failed_test_without_an_alias(run: Run, champion: str, peer: Peer) -> None:
    test = smoke_test(peer.says(Answer(200, {"predictions": [2.0, 4.0, 7.0]})), tolerance=0.1)
    result = run(mlflow_model, name=champion, version=2, smoke_test=test)
    assert result["msg"] == (
        f"Version 2 of '{champion}' failed its smoke test at {peer.url}: "
        "row 2: expected 6.0, got 7.0, difference 1 (tolerance 0.1)."
    )


def test_a_new_version_that_fails_is_registered_all_the_same(
    run: Run, client: Mlflow, models: Models, name: str, peer: Peer
) -> None:
    test = smoke_test(peer.says(Answer(500)))
    result = run(mlflow_model, name=name, source=models.doubler, alias="champion", smoke_test=test)
    assert (result["failed"], result["changed"], result["created"], result["version"]) == (True, True, True, 1)
    assert client.registered_model(name).aliases == {}


def test_a_version_that_fails_gets_no_tags_and_one_that_passes_gets_them_with_its_alias(
    run: Run, client: Mlflow, models: Models, name: str, peer: Peer
) -> None:
    """Issue line A8: tags that a later run decides by do not come before the proof, on no version."""
    parameters = {"name": name, "source": models.doubler, "alias": "champion", "version_tags": {"code": "2"}}
    new = run(mlflow_model, **parameters, smoke_test=smoke_test(peer.says(Answer(500))))
    assert (new["failed"], list(new["tags"])) == (True, [DIGEST])
    run(mlflow_model, name=name, source=models.doubler, version_tags={"code": "1"})

    again = run(mlflow_model, **parameters, smoke_test=smoke_test(peer.says(Answer(500))))
    assert again["failed"]
    assert client.version(name, 1).tags == {DIGEST: new["tags"][DIGEST], "code": "1"}

    proved = run(mlflow_model, **parameters, smoke_test=smoke_test(peer.says(right())))
    assert proved["tags"] == client.version(name, 1).tags == {DIGEST: new["tags"][DIGEST], "code": "2"}
    assert proved["diff"] == {
        "before": {"alias": {"champion": None}, "version_tags": {"code": "1"}},
        "after": {"alias": {"champion": 1}, "version_tags": {"code": "2"}},
    }


def test_tags_are_the_last_thing_that_changes(
    run: Run, client: Mlflow, models: Models, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue line A4: a task that is killed after the alias has moved leaves tags that say so."""
    monkeypatch.setattr(Mlflow, "set_alias", lambda *_: sys.exit("killed"))
    with pytest.raises(json.JSONDecodeError):
        run(mlflow_model, name=name, source=models.doubler, alias="champion", version_tags={"code": "1"})
    assert list(client.version(name, 1).tags) == [DIGEST]


def test_a_candidate_that_is_about_to_start_is_waited_for(run: Run, champion: str) -> None:
    port = free_port()
    listeners = []

    def start() -> None:
        listeners.append(listening(port))
        listeners[0].__enter__().says(right())

    timer = Timer(0.5, start)
    timer.start()
    try:
        test = smoke_test(f"http://127.0.0.1:{port}", wait=30)
        assert run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)["smoke_test"]["passed"]
    finally:
        timer.join()
        listeners[0].__exit__(None, None, None)


def test_what_the_endpoint_is_asked(run: Run, champion: str, peer: Peer) -> None:
    test = smoke_test(peer.says(right()))
    run(mlflow_model, name=champion, version=2, smoke_test=test)
    assert {(asked.method, asked.path, asked.headers["Content-Type"]) for asked in peer.asked} == {
        ("POST", "/", "application/json")
    }
    assert all(json.loads(asked.body) == {"inputs": INPUTS} for asked in peer.asked)
    assert not any("Authorization" in asked.headers for asked in peer.asked), "the password is the tracking server's"


def test_check_mode_runs_the_test_of_a_version_that_exists(run: Run, client: Mlflow, champion: str, peer: Peer) -> None:
    test = smoke_test(peer.says(right()))
    passed = run(mlflow_model, check=True, name=champion, version=2, alias="champion", smoke_test=test)
    assert (passed["changed"], passed["smoke_test"]["passed"]) == (True, True)
    assert passed["diff"] == {"before": {"alias": {"champion": 1}}, "after": {"alias": {"champion": 2}}}
    peer.says(Answer(500))
    assert run(mlflow_model, check=True, name=champion, version=2, alias="champion", smoke_test=test)["failed"]
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_check_mode_has_nothing_to_ask_of_a_version_to_come(run: Run, models: Models, name: str, peer: Peer) -> None:
    test = smoke_test(peer.says(Answer(500)))
    result = run(mlflow_model, check=True, name=name, source=models.doubler, alias="champion", smoke_test=test)
    assert (result["changed"], result["smoke_test"]["passed"], peer.asked) == (True, None, [])


def test_check_mode_does_without_an_endpoint(run: Run, champion: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warnings: list[str] = []  # where Ansible has them depends on which of its parts other tests have loaded
    monkeypatch.setattr(AnsibleModule, "warn", lambda _module, warning: warnings.append(warning))
    url = f"http://127.0.0.1:{free_port()}"
    test = smoke_test(url, wait=60)
    start = time.monotonic()
    result = run(mlflow_model, check=True, name=champion, version=2, alias="champion", smoke_test=test)
    assert time.monotonic() - start < 30, "it waits for nothing"
    assert (result["changed"], result["smoke_test"]["passed"]) == (True, None)
    assert warnings == [f"The smoke test was left out, its endpoint does not answer: POST {url}: Connection refused"]


def test_a_sample_of_the_run(run: Run, champion: str, peer: Peer) -> None:
    test = {"endpoint": peer.says(right()), "sample": "sample.json"}
    result = run(mlflow_model, name=champion, version=1, smoke_test=test)
    assert (result["smoke_test"]["passed"], result["smoke_test"]["rows"]) == (True, 3)
    assert json.loads(peer.asked[0].body) == {"inputs": INPUTS}


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        ("missing.json", " does not exist"),
        ("not-json.txt", " is not a JSON object with the keys inputs and expected"),
        ("other.json", " is not a JSON object with the keys inputs and expected"),
        ("empty.json", ": expected: expected a list that is not empty, got []"),
    ],
)
def test_a_sample_that_is_none(
    run: Run, client: Mlflow, champion: str, models: Models, peer: Peer, sample: str, problem: str
) -> None:
    test = {"endpoint": peer.says(right()), "sample": sample}
    result = run(mlflow_model, name=champion, version=1, alias="other", smoke_test=test)
    assert result["msg"] == f"smoke_test.sample: '{sample}' of run {models.run}{problem}"
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_rows_that_were_kept_are_asked_again(run: Run, champion: str, peer: Peer) -> None:
    """Issue part B8, of a version that was proved with rows of an operator's: it can be proved again."""
    keeping = smoke_test(peer.says(Answer(200, {"predictions": [2.0, 4.0, 7.0]})), keep=True)
    refused = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=keeping)
    assert "mlflow_model.smoke_test" not in refused["tags"]

    promoted = run(
        mlflow_model, name=champion, version=2, alias="champion", smoke_test={**keeping, "endpoint": peer.says(right())}
    )
    kept = {"inputs": INPUTS, "expected": DOUBLED}
    assert json.loads(promoted["tags"]["mlflow_model.smoke_test"]) == kept
    assert promoted["diff"]["after"] == {
        "alias": {"champion": 2},
        "version_tags": {"mlflow_model.smoke_test": json.dumps(kept)},
    }

    test = {"endpoint": peer.says(right()), "sample": "missing.json"}
    again = run(mlflow_model, name=champion, version=2, smoke_test=test)
    assert (again["changed"], again["smoke_test"]["rows"]) == (False, 3)
    wrong = {"endpoint": peer.says(Answer(200, {"predictions": [2.0, 4.0, 7.0]})), "sample": "missing.json"}
    assert "row 2: expected 6.0, got 7.0" in run(mlflow_model, name=champion, version=2, smoke_test=wrong)["msg"]


def test_rows_that_cannot_be_kept_are_refused(run: Run, champion: str, peer: Peer) -> None:
    test = smoke_test(peer.says(right()), inputs=[{"x": 1.0}] * 10_000, expected=[2.0] * 10_000, keep=True)
    result = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)
    assert result["msg"] == (
        "smoke_test.inputs and smoke_test.expected have 170026 characters as JSON, and MLflow keeps 100000: give fewer "
        "rows, or log them with the version's run"
    )
    assert peer.asked == []


def test_a_tag_that_is_no_test_is_refused(run: Run, champion: str, peer: Peer) -> None:
    run(mlflow_model, name=champion, version=2, version_tags={"mlflow_model.smoke_test": "[" * 50_000})
    test = {"endpoint": peer.says(right()), "sample": "sample.json"}
    assert run(mlflow_model, name=champion, version=2, smoke_test=test)["msg"] == (
        f"smoke_test.sample: the tag mlflow_model.smoke_test of version 2 of '{champion}' is not a JSON object with "
        "the keys inputs and expected"
    )


def test_rows_that_were_not_asked_are_not_kept(run: Run, client: Mlflow, champion: str) -> None:
    test = {"inputs": INPUTS, "expected": [9.0, 9.0, 9.0], "keep": True}
    found = run(mlflow_model, name=champion, version=2, smoke_test=test)
    assert (found["changed"], found["smoke_test"]["passed"]) == (False, None)
    assert "mlflow_model.smoke_test" not in found["tags"]
    proved_nothing = run(mlflow_model, name=champion, version=2, alias="champion", smoke_test=test)
    assert proved_nothing["msg"] == (
        "smoke_test has no endpoint, so that nothing is proved: give it one, or leave alias and version_tags out"
    )
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_without_an_endpoint_only_what_would_be_asked_is_looked_up(run: Run, champion: str, models: Models) -> None:
    found = run(mlflow_model, name=champion, version=1, smoke_test={"sample": "sample.json"})
    assert (found["changed"], found["smoke_test"]["passed"]) == (False, None)
    missing = run(mlflow_model, name=champion, version=1, smoke_test={"sample": "missing.json"})
    assert missing["msg"] == f"smoke_test.sample: 'missing.json' of run {models.run} does not exist"


def test_a_sample_that_is_too_large_is_refused(
    run: Run, client: Mlflow, champion: str, models: Models, tmp_path: Path
) -> None:
    large = tmp_path / "large.json"
    large.write_text(json.dumps({"inputs": INPUTS, "expected": DOUBLED, "more": "x" * 2**24}))
    with large.open("rb") as file:
        client.upload(client.run(models.run).artifact_uri, "large.json", file)
    result = run(mlflow_model, name=champion, version=1, smoke_test={"sample": "large.json"})
    assert result["msg"].endswith("large.json: the answer is larger than 16 MiB")


def test_a_version_without_a_run_has_no_sample(run: Run, models: Models, name: str, peer: Peer) -> None:
    test = {"endpoint": peer.says(right()), "sample": "sample.json"}
    result = run(mlflow_model, name=name, source=str(models.directory), smoke_test=test)
    assert result["msg"] == (
        f"smoke_test.sample: version 1 of '{name}' comes from no run; give smoke_test.inputs and smoke_test.expected"
    )


def test_without_a_sample_the_input_example_has_to_be_answered(run: Run, models: Models, name: str, peer: Peer) -> None:
    """Issue line B8: what the model's own example gives is not known, that it is answered is."""
    run(mlflow_model, name=name, source=models.with_example)
    test = {"endpoint": peer.says(Answer(200, {"choices": []})), "sample": "missing.json", "input_example": True}
    passed = run(mlflow_model, name=name, version=1, smoke_test=test)
    assert (passed["smoke_test"]["passed"], passed["smoke_test"]["rows"]) == (True, 0)
    assert json.loads(peer.asked[0].body) == {"dataframe_split": {"columns": ["x"], "data": [[1.0], [2.0], [3.0]]}}

    peer.says(Answer(400, {"error_code": "BAD_REQUEST", "message": "What is x?"}))
    failed = run(mlflow_model, name=name, version=1, smoke_test=test)
    assert failed["msg"].endswith("HTTP 400 BAD_REQUEST: What is x?.")


def test_a_sample_comes_before_the_input_example(run: Run, models: Models, name: str, peer: Peer) -> None:
    """Issue line B8."""
    run(mlflow_model, name=name, source=models.doubler)
    test = {"endpoint": peer.says(Answer(200, {"predictions": [1, 2, 3]})), "sample": "sample.json"}
    assert run(mlflow_model, name=name, version=1, smoke_test={**test, "input_example": True})["failed"]


def test_a_version_with_neither_cannot_be_proved(run: Run, models: Models, champion: str, peer: Peer) -> None:
    """Issue line B8."""
    test = {"endpoint": peer.says(right()), "sample": "missing.json", "input_example": True}
    result = run(mlflow_model, name=champion, version=1, smoke_test=test)
    assert result["msg"] == (
        f"smoke_test.sample: 'missing.json' of run {models.run} does not exist, and version 1 of '{champion}' "
        "has no input example either, so that there is nothing to test it with: give inputs and expected"
    )


# Aliases, versions and models that shall be or not be


def test_an_alias_moves_back(run: Run, client: Mlflow, champion: str) -> None:
    run(mlflow_model, name=champion, version=2, alias="champion")
    back = run(mlflow_model, name=champion, version=1, alias="champion")
    assert back["previous_version"] == 2
    assert back["diff"] == {"before": {"alias": {"champion": 2}}, "after": {"alias": {"champion": 1}}}
    assert client.registered_model(champion).aliases == {"champion": 1}


def test_an_alias_alone_names_the_version_to_test(run: Run, champion: str, peer: Peer) -> None:
    result = run(mlflow_model, name=champion, alias="champion", smoke_test=smoke_test(peer.says(right())))
    assert (result["changed"], result["version"], result["smoke_test"]["passed"]) == (False, 1, True)


def absent(run: Run, **parameters: object) -> tuple[dict[str, Any], ...]:
    """Results of check mode, of the removal, and of the same once more."""
    return tuple(run(mlflow_model, state="absent", check=check, **parameters) for check in (True, False, False))


def test_an_alias_is_removed_and_nothing_else(run: Run, client: Mlflow, champion: str) -> None:
    predicted, removed, again = absent(run, name=champion, alias="champion")
    assert (
        predicted["diff"]
        == removed["diff"]
        == {
            "before": {"alias": {"champion": 1}},
            "after": {"alias": {"champion": None}},
        }
    )
    assert (predicted["changed"], removed["changed"], again["changed"]) == (True, True, False)
    assert client.registered_model(champion).aliases == {}
    assert len(client.versions(champion)) == 2


def test_a_version_is_removed(run: Run, client: Mlflow, champion: str) -> None:
    predicted, removed, again = absent(run, name=champion, version=2)
    assert predicted["diff"] == removed["diff"] == {"before": {"version": 2}, "after": {"version": None}}
    assert (predicted["changed"], removed["changed"], again["changed"]) == (True, True, False)
    assert [version.version for version in client.versions(champion)] == [1]


def test_a_version_that_an_alias_points_to_stays(run: Run, client: Mlflow, champion: str) -> None:
    for result in absent(run, name=champion, version=1):
        assert result["msg"] == (
            f"version 1 of '{champion}' is in use by the alias 'champion'; move or remove the alias first"
        )
    assert len(client.versions(champion)) == 2


def test_a_model_is_removed_once_it_has_no_alias(run: Run, client: Mlflow, champion: str) -> None:
    for result in absent(run, name=champion):
        assert result["msg"] == f"'{champion}' is in use by the alias 'champion'; remove the alias first"
    client.delete_alias(champion, "champion")
    predicted, removed, again = absent(run, name=champion)
    assert (
        predicted["diff"]
        == removed["diff"]
        == {
            "before": {"registered_model": champion},
            "after": {"registered_model": None},
        }
    )
    assert (predicted["changed"], removed["changed"], again["changed"]) == (True, True, False)
    assert client.registered_model(champion) is None


@pytest.mark.parametrize("parameters", [{"alias": "champion"}, {"version": 1}, {}], ids=str)
def test_what_is_absent_already(run: Run, name: str, parameters: dict[str, Any]) -> None:
    assert run(mlflow_model, name=name, state="absent", **parameters)["changed"] is False


# What cannot be


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"version": 7}, "'<name>' has no version 7; its latest is 2"),
        ({"alias": "best"}, "'<name>' has no alias 'best' yet; say by source or version what it shall point to"),
        (
            {"version_tags": {"a": "b"}},
            "version_tags and smoke_test are about a version; give source, version or alias",
        ),
        (
            {"source": "/nonexistent"},
            "source is '/nonexistent'; expected runs:/RUN_ID/PATH, models:/m-ID, models:/NAME/VERSION, "
            "models:/NAME@ALIAS, or a directory of the target with a file MLmodel",
        ),
        ({"source": "models:/<name>/9"}, "source: there is no models:/<name>/9"),
        ({"source": "models:/<name>@best"}, "source: there is no models:/<name>@best"),
        ({"source": "runs:/<run>/other"}, "source: run <run> has no model 'other'; the models that it logged: model"),
        ({"source": "models:/m-1", "version": 1}, "parameters are mutually exclusive: source|version"),
        (
            {"state": "absent", "version": 2, "alias": "champion"},
            "alias and version are both given; with state: absent, give the one that shall go",
        ),
        ({"tracking_uri": "http://u:p@host"}, "tracking_uri holds credentials; expected a URL without them"),
        (
            {"version": 1, "smoke_test": {"endpoint": "localhost:5002", "inputs": [1], "expected": [1]}},
            "smoke_test.endpoint is 'localhost:5002'; expected the URL of a server, http://… or https://…",
        ),
        (
            {"version": 1, "smoke_test": {"endpoint": "http://localhost", "inputs": [1], "expected": []}},
            "smoke_test: expected: expected a list that is not empty, got []",
        ),
        (
            {"version": 1, "smoke_test": {"endpoint": "http://localhost"}},
            "one of the following is required: inputs, sample found in smoke_test",
        ),
        (
            {"version": 1, "smoke_test": {"endpoint": "http://localhost", "inputs": [1]}},
            "parameters are required together: inputs, expected found in smoke_test",
        ),
        (
            {"version": 1, "smoke_test": {"sample": "a.json", "keep": True}},
            "keep is True but all of the following are missing: inputs, expected found in smoke_test",
        ),
        (
            {
                "version": 1,
                "smoke_test": {"endpoint": "http://localhost", "inputs": [1], "expected": [1], "tolerance": math.nan},
            },
            "smoke_test.tolerance is nan; expected 0 or a positive number",
        ),
        (
            {
                "version": 1,
                "smoke_test": {"endpoint": "http://localhost", "inputs": [1], "expected": [1], "max_latency_ms": 0},
            },
            "smoke_test.max_latency_ms is 0; expected a positive number",
        ),
        ({"state": "absent", "alias": ""}, "alias is ''; give it a value or leave it out"),
        ({"state": "absent", "version": 0}, "version is 0; give it a value or leave it out"),
        ({"source": ""}, "source is ''; give it a value or leave it out"),
        ({"version": 1, "password": None}, "parameters are required together: username, password"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_fails_and_changes_nothing(
    run: Run, client: Mlflow, models: Models, champion: str, parameters: dict[str, Any], message: str
) -> None:
    before = client.registered_model(champion)

    def filled(text: str) -> str:
        return text.replace("<name>", champion).replace("<run>", models.run)

    parameters = {key: filled(value) if isinstance(value, str) else value for key, value in parameters.items()}
    result = run(mlflow_model, name=champion, **parameters)
    assert (result["failed"], result["msg"]) == (True, filled(message))
    assert client.registered_model(champion) == before


def test_a_version_of_a_model_that_is_missing(run: Run, client: Mlflow, name: str) -> None:
    assert run(mlflow_model, name=name, version=1)["msg"] == f"'{name}' has no version 1; it has none"
    assert client.registered_model(name) is None


@pytest.mark.parametrize("module", [mlflow_model, mlflow_model_info], ids=lambda module: module.__name__)
def test_an_error_of_the_server_is_given_in_parts(run: Run, module: Any, name: str, tracking_uri: str) -> None:  # noqa: ANN401
    result = run(module, name=name, password="not the password")
    url = f"{tracking_uri}/api/2.0/mlflow/registered-models/get?name={name}"
    assert (result["failed"], result["url"], result["status"], result["error_code"]) == (True, url, 401, None)
    assert result["msg"].startswith(f"GET {url}: HTTP 401: You are not authenticated")
    assert "not the password" not in json.dumps(result)


# Looking up


def test_a_model_that_is_missing_is_no_error(run: Run, name: str) -> None:
    result = run(mlflow_model_info, name=name, alias="champion")
    result.pop("warnings", None)  # Ansible keeps those of a process, which are those of other tests
    assert result == {
        "exists": False,
        "aliases": {},
        "latest_version": None,
        "version": None,
        "source": None,
        "run_id": None,
        "tags": {},
        "tagged_versions": [],
    }


@pytest.fixture
def requests_sent(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The URLs that a module asks for."""
    sent: list[str] = []
    send = Http.send

    def counting(self: Http, method: str, url: str, **options: Any) -> object:  # noqa: ANN401
        sent.append(url)
        return send(self, method, url, **options)

    monkeypatch.setattr(Http, "send", counting)
    return sent


@pytest.mark.parametrize(("version", "requests"), [(1, 2), (2, 1)], ids=["an older version", "the newest version"])
def test_an_alias_is_looked_up(
    run: Run, models: Models, champion: str, requests_sent: list[str], version: int, requests: int
) -> None:
    run(mlflow_model, name=champion, version=version, alias="champion")
    requests_sent.clear()
    result = run(mlflow_model_info, name=champion, alias="champion")
    assert len(requests_sent) == requests
    assert (result["exists"], result["aliases"], result["latest_version"]) == (True, {"champion": version}, 2)
    assert (result["version"], result["source"]) == (version, [models.doubler, models.tripler][version - 1])
    assert result["run_id"]
    assert list(result["tags"]) == [DIGEST]


def test_an_alias_that_is_missing_is_no_error(run: Run, champion: str) -> None:
    for parameters in ({}, {"alias": "best"}):
        result = run(mlflow_model_info, name=champion, **parameters)
        assert (result["exists"], result["latest_version"], result["version"], result["tags"]) == (True, 2, None, {})


def test_versions_are_looked_up_by_their_tags(run: Run, champion: str) -> None:
    """Issue line B8: whether a version of this code was the champion before."""
    run(mlflow_model, name=champion, version=1, version_tags={"code": "1", "stage": "test"})
    run(mlflow_model, name=champion, version=2, version_tags={"code": "1"})
    for tags, versions in (({"code": "1"}, [2, 1]), ({"code": "1", "stage": "test"}, [1]), ({"code": "2"}, [])):
        assert run(mlflow_model_info, name=champion, version_tags=tags)["tagged_versions"] == versions
    assert run(mlflow_model_info, name=f"{champion}-none", version_tags={"code": "1"})["tagged_versions"] == []


def test_a_run_that_changes_nothing_takes_two_requests(
    run: Run, models: Models, champion: str, requests_sent: list[str]
) -> None:
    assert run(mlflow_model, name=champion, source=models.doubler, alias="champion")["changed"] is False
    assert len(requests_sent) == 2


class TestInfo:
    """mlflow_info, one look at all that a deployment asks."""

    JUPYTER: ClassVar = {"username": USERNAME, "password": PASSWORD}

    def test_who_is_refused(self, run: Run, name: str) -> None:
        """Issue line A6 of the first hour: somebody has changed a shared password."""
        logins = [self.JUPYTER, {"username": "changed", "password": "as it was"}]
        result = run(mlflow_info, logins=logins, aliases=[[name, "champion"]])
        assert result["refused"] == ["changed"]
        nothing: dict[str, Any] = {"version": None, "source": None, "run_id": None, "tags": {}}
        assert result["aliases"] == [{"model": name, "alias": "champion", **nothing}]
        assert "as it was" not in json.dumps(result)

    def test_a_name_that_is_in_an_alias_s_answer(self, run: Run, models: Models, champion: str) -> None:
        """What Ansible hides is the passwords, not what looks like a user."""
        run(mlflow_model, name=champion, version=1, alias="champion")
        logins = [{"username": "models", "password": "of nobody"}]
        result = run(mlflow_info, logins=logins, aliases=[[champion, "champion"]])
        assert result["refused"] == ["models"]
        assert result["aliases"][0]["source"] == models.doubler

    def test_what_aliases_point_to(self, run: Run, models: Models, champion: str) -> None:
        run(mlflow_model, name=champion, version=1, alias="champion")
        (found,) = run(mlflow_info, aliases=[[champion, "champion"]])["aliases"]
        alone = run(mlflow_model_info, name=champion, alias="champion")
        assert found.pop("model") == champion
        assert found.pop("alias") == "champion"
        assert found == {key: alone[key] for key in found}
        assert (found["version"], found["source"]) == (1, models.doubler)

    def test_a_reader_who_is_refused(self, run: Run, champion: str) -> None:
        """That is no error: the next task makes the accounts right, and others ask once more."""
        result = run(mlflow_info, password="not the password", logins=[self.JUPYTER], aliases=[[champion, "champion"]])
        assert (result["refused"], result["aliases"]) == ([USERNAME], None)

    def test_a_question_that_is_refused(self, run: Run, peer: Peer) -> None:
        """Who owns the model may close it to us: what is known of passwords is known all the same."""
        denied = Answer(403, {"error_code": "PERMISSION_DENIED", "message": "Permission denied"})
        result = run(mlflow_info, tracking_uri=peer.says(denied), logins=[self.JUPYTER], aliases=[["m", "champion"]])
        assert (result["refused"], result["aliases"]) == ([], None)

    def test_a_server_that_is_away(self, run: Run) -> None:
        url = f"http://127.0.0.1:{free_port()}"
        result = run(mlflow_info, tracking_uri=url, timeout=0.1, logins=[self.JUPYTER])
        assert (result["failed"], result["status"]) == (True, None)
        assert "Connection refused" in result["msg"]


# Documentation, and the way that Ansible takes


ALL = [mlflow_model, mlflow_model_info, mlflow_info]
MODULES = pytest.mark.parametrize("module", ALL, ids=lambda module: module.__name__)


def documented(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a documentation in the words of an argument_spec."""
    kept = ("type", "required", "default", "choices", "elements")
    return {
        name: {key: option[key] for key in kept if key in option}
        | ({"options": documented(option["suboptions"])} if "suboptions" in option else {})
        for name, option in options.items()
    }


def specified(arguments: dict[str, Any]) -> dict[str, Any]:
    """The same of an argument_spec, without what a documentation has no words for."""
    kept = ("type", "required", "default", "choices", "elements")
    return {
        name: {key: argument[key] for key in kept if key in argument}
        | ({"options": specified(argument["options"])} if "options" in argument else {})
        for name, argument in arguments.items()
    }


@MODULES
def test_the_documented_options_are_those_of_the_module(module: Any) -> None:  # noqa: ANN401
    assert documented(yaml.safe_load(module.DOCUMENTATION)["options"]) == specified(module.ARGUMENTS)


@MODULES
def test_the_examples_are_tasks_with_options_that_exist(module: Any) -> None:  # noqa: ANN401
    tasks = [task[module.__name__] for task in yaml.safe_load(module.EXAMPLES) if module.__name__ in task]
    assert tasks
    for task in tasks:
        assert task.keys() <= module.ARGUMENTS.keys()
        assert task.get("smoke_test", {}).keys() <= module.ARGUMENTS.get("smoke_test", {}).get("options", {}).keys()


@MODULES
def test_the_documented_results_are_those_of_the_module(module: Any, run: Run, champion: str, peer: Peer) -> None:  # noqa: ANN401
    named = {} if module is mlflow_info else {"name": champion, "alias": "champion"}
    test = {"smoke_test": smoke_test(peer.says(right()))} if module is mlflow_model else {}
    result = run(module, **named, **test)
    results = yaml.safe_load(module.RETURN)
    assert result.keys() - {"changed", "diff", "warnings"} == results.keys()
    if test:
        assert result["smoke_test"].keys() == results["smoke_test"]["contains"].keys()


@MODULES
def test_ansible_runs_and_documents_it(module: Any, champion: str, tracking_uri: str, tmp_path: Path) -> None:  # noqa: ANN401
    playbook = tmp_path / "playbook.yml"
    parameters = {"tracking_uri": tracking_uri, "username": USERNAME, "password": PASSWORD}
    named = {} if module is mlflow_info else {"name": champion, "alias": "champion"}
    task = {module.__name__: {**parameters, **named}}
    playbook.write_text(
        json.dumps([{"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": [task]}])
    )
    python = f"ansible_python_interpreter={sys.executable}"
    output = ansible("ansible-playbook", "-i", "localhost,", "-e", python, "-vvv", "--diff", str(playbook))
    assert "changed=0" in output
    assert PASSWORD not in output
    assert "> MODULE" in ansible("ansible-doc", module.__name__)


def ansible(*command: str) -> str:
    """Output of a program of Ansible, with the configuration of the project."""
    program = Path(sys.executable).with_name(command[0])
    done = subprocess.run([program, *command[1:]], cwd=REPO, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
