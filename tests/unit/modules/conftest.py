"""A real MLflow server that asks for a password, models that it has logged, endpoints to test them at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import mlflow
import pandas as pd
import pytest
from ansible.module_utils.mlflow_api import Http, Mlflow
from ansible.module_utils.testing import patch_module_args
from mlflow.models.model import ModelInfo
from mlflow_harness import (
    DOUBLED,
    INPUTS,
    PASSWORD,
    USERNAME,
    Models,
    Peer,
    Run,
    free_port,
    listening,
    mlflow_client,
    multiplier,
    process,
    signature,
)


@pytest.fixture(scope="session")
def tracking_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the server."""
    home = tmp_path_factory.mktemp("mlflow")
    auth = home / "auth.ini"
    auth.write_text(
        f"""[mlflow]
default_permission = READ
database_uri = sqlite:///{home}/auth.db
admin_username = {USERNAME}
admin_password = {PASSWORD}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""
    )
    port = free_port()
    arguments = ["server", "--app-name=basic-auth", "--workers=1", f"--port={port}"]
    arguments += [f"--backend-store-uri=sqlite:///{home}/mlflow.db", f"--artifacts-destination={home}/artifacts"]
    environment = {
        "MLFLOW_AUTH_CONFIG_PATH": str(auth),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "a secret key of the tests",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
    }
    url = f"http://127.0.0.1:{port}"
    with process(arguments, f"{url}/health", home / "server.log", environment):
        yield url


@pytest.fixture(scope="session")
def client(tracking_uri: str) -> Mlflow:
    """Our client of the server."""
    return Mlflow(tracking_uri, Http(timeout=30, patience=30, username=USERNAME, password=PASSWORD))


@pytest.fixture(scope="session")
def models(tracking_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Models:
    """Models that multiply the column x by a number."""
    options: dict[str, Any] = {"signature": signature(), "pip_requirements": ["scikit-learn", "skops"]}
    home = tmp_path_factory.mktemp("models")
    with mlflow_client(tracking_uri):
        mlflow.sklearn.save_model(multiplier(4), home / "quadrupler", **options)
        mlflow.sklearn.save_model(multiplier(2), home / "doubler", **options)

        def log(factor: int, **more: object) -> ModelInfo:
            with mlflow.start_run():
                logged: ModelInfo = mlflow.sklearn.log_model(multiplier(factor), name="model", **options, **more)
                return logged

        doubler, again, tripler, example = log(2), log(2), log(3), log(5, input_example=pd.DataFrame(INPUTS))
        with mlflow.start_run(run_id=doubler.run_id):
            mlflow.log_dict({"inputs": INPUTS, "expected": DOUBLED}, "sample.json")
            mlflow.log_dict({"rows": []}, "other.json")
            mlflow.log_dict({"inputs": INPUTS, "expected": []}, "empty.json")
            mlflow.log_text("inputs", "not-json.txt")
            mlflow.log_artifacts(str(home / "doubler"), "old-style")
    uris = (logged.model_uri for logged in (doubler, again, tripler, example))
    return Models(doubler.run_id, *uris, home / "quadrupler")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Name of a registered model for this test alone."""
    return "".join(letter if letter.isalnum() else "-" for letter in request.node.name)


@pytest.fixture(scope="session")
def served(tracking_uri: str, models: Models, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of the doubler, served as the platform serves models."""
    port = free_port()
    arguments = ["models", "serve", f"--model-uri={models.doubler}", "--env-manager=local", f"--port={port}"]
    environment = {
        "MLFLOW_TRACKING_URI": tracking_uri,
        "MLFLOW_TRACKING_USERNAME": USERNAME,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
    }
    log = tmp_path_factory.mktemp("serve") / "log"
    with process(arguments, f"http://127.0.0.1:{port}/health", log, environment):
        yield f"http://127.0.0.1:{port}/invocations"


@pytest.fixture
def peer() -> Iterator[Peer]:
    """A server that says what it is told to."""
    with listening() as peer:
        yield peer


@pytest.fixture
def run(tracking_uri: str, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a module as Ansible does, as the administrator of the server, and returns what it returns.

    Its parameters are keywords, None for one that is left out; check: in check mode.
    """

    def run(module: ModuleType, *, check: bool = False, **parameters: object) -> dict[str, Any]:
        defaults = {"tracking_uri": tracking_uri, "username": USERNAME, "password": PASSWORD}
        given = {key: value for key, value in {**defaults, **parameters}.items() if value is not None}
        with (
            patch_module_args({**given, "_ansible_check_mode": check, "_ansible_diff": True}),
            pytest.raises(SystemExit),
        ):
            module.main()
        output = capsys.readouterr().out
        assert PASSWORD not in output
        result: dict[str, Any] = json.loads(output)
        del result["invocation"]
        return result

    return run
