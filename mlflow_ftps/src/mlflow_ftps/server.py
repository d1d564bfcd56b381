"""MLflow's server with a faster way to its artifacts: the apps ``mlflow-ftps`` and ``mlflow-ftps-basic-auth``.

MLflow itself puts each file that is downloaded from a store that is not a local disk into a temporary directory first.
For a small file that takes longer than to fetch it; a large one needs the space, and its client waits for the first
byte. Here downloads stream, as uploads do anyway.

Both are plain routes of Starlette: what FastAPI does around an endpoint is not needed, and is a twentieth of the time
of a small upload.
"""

import json
import os
import posixpath
from collections.abc import AsyncIterator, Awaitable, Callable

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from flask import Flask
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.exceptions import MlflowException
from mlflow.server.artifact_router import (
    _content_disposition,
    _get_artifact_repo,
    _get_workspace_scoped_path,
    upload_artifact,
)
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from mlflow_ftps.streams import DownloadPipe

# The paths of MLflow's own handlers, in mlflow.server.artifact_router.
_PATHS = [f"/{api}/2.0/mlflow-artifacts/artifacts/{{artifact_path:path}}" for api in ("api", "ajax-api")]


def create_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps``: as without a name, but with ``add_routes``."""
    # Imported only here: MLflow makes its app while the module is imported.
    if _MLFLOW_SGI_NAME.get() == "uvicorn":
        from mlflow.server.fastapi_app import app

        return add_routes(app)
    from mlflow.server import app as flask_app

    return flask_app


def create_basic_auth_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps-basic-auth``: ``basic-auth`` with ``add_routes``."""
    from mlflow.server.auth import create_app as create_mlflows_app

    return add_routes(create_mlflows_app())


def add_routes(app: Flask | FastAPI) -> Flask | FastAPI:
    """Let ``app``, an MLflow server, take the faster way to the artifacts of its FTP store.

    MLflow's authentication and permissions hold for it, too: they guard the path. Nothing changes in a server with
    another store, or under gunicorn or waitress, which run MLflow's Flask app.
    """
    destination = os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR, "")
    serves_ours = os.environ.get(SERVE_ARTIFACTS_ENV_VAR) == "true" and destination.startswith(("ftp://", "ftps://"))
    if serves_ours and isinstance(app, FastAPI):
        # In front, as of two routes that match the first is taken.
        for path in _PATHS:
            app.router.routes[:0] = [_route(path, "GET", _download), _route(path, "PUT", _upload)]
    return app


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint)
    # Not HEAD, which Starlette would add to GET: MLflow guards GET and PUT in front of these routes, all else in Flask.
    route.methods = {method}
    return route


async def _upload(request: Request) -> Response:
    response: Response = await upload_artifact(request.path_params["artifact_path"], request)
    return response


async def _download(request: Request) -> Response:
    """Answers as MLflow's handler does, but a directory with 400, and tells the length."""
    try:
        path = _get_workspace_scoped_path(validate_path_is_safe(request.path_params["artifact_path"]))
        pipe = _get_artifact_repo().download_to_async_stream(path)
        first = await pipe.read()
    except MlflowException as error:
        return JSONResponse(json.loads(error.serialize_as_json()), error.get_http_status_code())
    headers = {
        "Content-Type": _guess_mime_type(path),
        "Content-Disposition": _content_disposition(posixpath.basename(path)),
        "X-Content-Type-Options": "nosniff",
    }
    if len(first) == pipe.size:
        return Response(first, headers=headers)
    return _PipeResponse(first, pipe, {**headers, "Content-Length": str(pipe.size)})


class _PipeResponse(StreamingResponse):
    """Sends what comes through a pipe, and abandons it if the client goes away."""

    def __init__(self, first: bytes, pipe: DownloadPipe, headers: dict[str, str]) -> None:
        super().__init__(self._blocks(first), headers=headers)
        self._pipe = pipe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._pipe.abandon()

    async def _blocks(self, block: bytes) -> AsyncIterator[bytes]:
        while block:
            yield block
            block = await self._pipe.read()
