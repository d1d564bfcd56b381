"""What the clients of a server may name, beyond what MLflow itself checks: paths, parameters and locations.

MLflow decides by the name of an experiment, run, model or trace who may read what lies there. So a name must not have
two readings, one for the decision and one for the store, and a location that a client gives to what is its own must not
be somebody else's.
"""

import posixpath
from collections.abc import Callable
from typing import Any

from flask import g
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED
from mlflow.server import handlers
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.tracing.utils.artifact_utils import get_artifact_uri_for_trace
from mlflow.utils.uri import append_to_uri_path, get_uri_scheme, validate_path_is_safe
from starlette.datastructures import Headers, QueryParams
from starlette.types import Scope

from mlflow_ftps import own

_PATH_PARAMETERS = ("path", "artifact_file_path", "artifact_directory_path")
_PROXY = "/mlflow-artifacts/"
_PROXY_FAMILIES = ("artifacts/", "presigned/", "mpu/create/", "mpu/complete/", "mpu/abort/")


def is_normal(path: str) -> bool:
    """Whether ``path`` is the only way to write what it names: nothing to decode, to resolve or to leave out."""
    try:
        return path != "." and path in ("", posixpath.normpath(validate_path_is_safe(path)))
    except (MlflowException, ValueError):
        return False


def misnomer(scope: Scope) -> str | None:
    """What is wrong with how this HTTP request names artifacts; None if nothing is."""
    address = scope["path"]
    if "artifact" not in address:
        return None
    _, found, path = address.partition(_PROXY)
    family = next((family for family in _PROXY_FAMILIES if found and path.startswith(family)), None)
    path = path.removeprefix(family or "")
    if family and not is_normal(_directory(path) if scope["method"] == "DELETE" else path):
        return _not_normal(path)
    parameters = QueryParams(scope["query_string"]).multi_items()
    values = dict(parameters)
    if len(values) < len(parameters):
        return "A parameter is given twice."
    if len({values[name] for name in ("run_id", "run_uuid") if values.get(name)}) > 1:
        return "The parameters run_id and run_uuid name two runs."
    for name in _PATH_PARAMETERS:
        if not is_normal(_directory(values.get(name, ""))):
            return _not_normal(values[name])
    headers = Headers(scope=scope)
    has_body = headers.get("content-length", "0") != "0" or "transfer-encoding" in headers
    if scope["method"] == "GET" and has_body:
        # MLflow would take parameters from there that its permissions do not know of.
        return "A GET request has no body."
    return None


def guard() -> None:
    """Have MLflow's handlers, in this process, refuse locations that lead to other people's artifacts."""
    handlers._validate_artifact_uri_scheme = _validating(handlers._validate_artifact_uri_scheme)  # type: ignore[assignment]
    handlers._get_trace_artifact_repo = _in_its_place(handlers._get_trace_artifact_repo)  # type: ignore[assignment]
    if handlers._is_serving_proxied_artifacts():
        with own.by_the_server():
            handlers._get_artifact_repo_mlflow_artifacts()  # which keeps it
    own.seal()


def _directory(path: str) -> str:
    """``path`` without the slash at its end that MLflow's clients give to a directory which they list or delete."""
    return path.removesuffix("/")


def _not_normal(path: str) -> str:
    return f"Invalid path: {path!r} is not in its normal form, as in 'directory/file'."


def _validating(validate: Callable[[str, str], None]) -> Callable[[str, str], None]:
    """``validate`` with our own rules; it is called for each location, in the field ``field``, that a client names."""

    def validate_location(uri: str, field: str) -> None:
        validate(uri, field)
        scheme = get_uri_scheme(uri)
        if scheme in own.SCHEMES:
            own.check(uri)
        if field != "artifact_location" or not handlers._is_serving_proxied_artifacts():
            return
        if scheme in ("", "file"):
            raise MlflowException.invalid_parameter_value(
                f"'{field}' names a directory on the server's disk, where it keeps no artifacts. Leave it out: the "
                "server has a place for them."
            )
        if handlers._is_servable_proxied_run_artifact_root(uri):
            path = handlers._get_proxied_run_artifact_destination_path(uri)
            if not is_normal(path):
                raise MlflowException.invalid_parameter_value(_not_normal(path))
            if not _may_update(path):
                raise MlflowException(
                    f"'{field}' names a place among the server's artifacts that is not yours. Leave it out: the "
                    "server has a place for them.",
                    error_code=PERMISSION_DENIED,
                )

    return validate_location


def _may_update(path: str) -> bool:
    """Whether MLflow lets the account of this request upload to ``path``; True in a server without accounts."""
    username = g.get("mlflow_authenticated_user")
    if username is None:
        return True
    from mlflow.server import auth  # reads its configuration, which a server without accounts does not have

    address = f"/api/2.0{_PROXY}artifacts/{path}"
    return auth.sender_is_admin() or auth._authorize_fastapi_artifact_proxy(address, username, None, "update")


def _in_its_place(get_repository: Callable[[Any], ArtifactRepository]) -> Callable[[Any], ArtifactRepository]:
    """``get_repository`` of a trace, but only if that is where the server has put it: clients can set its tags."""

    def get_own_repository(trace: Any) -> ArtifactRepository:  # noqa: ANN401 -- MLflow has two types for it
        experiment = handlers._get_tracking_store().get_experiment(trace.experiment_id)
        place = append_to_uri_path(experiment.artifact_location, "traces", trace.trace_id, "artifacts")
        if get_artifact_uri_for_trace(trace) != place:
            raise MlflowException(
                f"The artifact location of the trace {trace.trace_id} is not the one that the server gave it.",
                error_code=PERMISSION_DENIED,
            )
        if not handlers._is_servable_proxied_run_artifact_root(place):
            return get_repository(trace)
        with own.by_the_server():
            return get_repository(trace)

    return get_own_repository
