"""MLflow's server with a safer, faster way to its artifacts: the apps ``mlflow-ftps`` and ``mlflow-ftps-basic-auth``.

What clients name is checked in front (``mlflow_ftps.clients``).

MLflow itself puts each file that is downloaded from a store that is not a local disk into a temporary directory first.
For a small file that takes longer than to fetch it; a large one needs the space, and its client waits for the first
byte. Here downloads stream, as uploads do anyway.

Both are plain routes of Starlette: what FastAPI does around an endpoint is not needed, and is a twentieth of the time
of a small upload.

What MLflow's pages download of a run, model version or logged model goes through its Flask app, which holds in memory
what a client has not taken yet. Here Flask decides and finds the artifact, and it is streamed in place of its answer.
"""

import json
import os
import posixpath
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import quote, unquote

import flask
from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from flask import Flask
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.exceptions import MlflowException
from mlflow.server import handlers
from mlflow.server.artifact_router import (
    _content_disposition,
    _get_artifact_repo,
    _get_workspace_scoped_path,
    upload_artifact,
)
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
from mlflow.store.artifact.artifact_repo import ArtifactRepository
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlflow_ftps.clients import guard, misnomer
from mlflow_ftps.streams import DownloadPipe

# The paths of MLflow's own handlers, in mlflow.server.artifact_router.
_PATHS = [f"/{api}/2.0/mlflow-artifacts/artifacts/{{artifact_path:path}}" for api in ("api", "ajax-api")]


_GRANTED = f"x-artifact-{secrets.token_hex(16)}"  # header in which Flask names an artifact; nobody else can set it


def create_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps``: as without a name, but with ``add_routes``."""
    # Imported only here: MLflow makes its app while the module is imported.
    if _MLFLOW_SGI_NAME.get() == "uvicorn":
        from mlflow.server.fastapi_app import app

        return add_routes(app)
    from mlflow.server import app as flask_app

    return add_routes(flask_app)


def create_basic_auth_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps-basic-auth``: ``basic-auth`` with ``add_routes``."""
    from mlflow.server.auth import create_app as create_mlflows_app

    return add_routes(create_mlflows_app())


def add_routes(app: Flask | FastAPI) -> Flask | FastAPI:
    """Let ``app``, an MLflow server, take the faster way to the artifacts of its FTP store, and keep clients to theirs.

    MLflow's authentication and permissions hold for it, too: they guard the path. Nothing changes in a server with
    another store. Under gunicorn or waitress, which run MLflow's Flask app, locations are checked, but not paths.
    """
    destination = os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR, "")
    if os.environ.get(SERVE_ARTIFACTS_ENV_VAR) != "true" or not destination.startswith(("ftp://", "ftps://")):
        return app
    guard()
    if isinstance(app, FastAPI):
        # In front, as of two routes that match the first is taken.
        for path in _PATHS:
            app.router.routes[:0] = [_route(path, "GET", _download), _route(path, "PUT", _upload)]
        handlers._send_artifact = _granting(handlers._send_artifact)
        # Innermost, so that its answers get what MLflow puts around all answers.
        app.user_middleware.append(Middleware(_Door))
    return app


def _route(path: str, method: str, endpoint: Callable[[Request], Awaitable[Response]]) -> Route:
    route = Route(path, endpoint)
    # Not HEAD, which Starlette would add to GET: MLflow guards GET and PUT in front of these routes, all else in Flask.
    route.methods = {method}
    return route


def _granting(send: Callable[[ArtifactRepository, str], flask.Response]) -> Callable[..., flask.Response]:
    """``send`` an artifact, but if it is of the server's own store, only say that it is granted, in a header."""

    def send_or_grant(repository: ArtifactRepository, path: str) -> flask.Response:
        if repository is handlers._artifact_repo and flask.request.method == "GET":
            return flask.Response(headers={_GRANTED: quote(path)})
        return send(repository, path)

    return send_or_grant


class _Door:
    """Refuses requests that name artifacts in more than one way, and sends the artifacts that Flask has granted."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if fault := misnomer(scope):
            await _refusal(MlflowException.invalid_parameter_value(fault))(scope, receive, send)
            return
        granted: str | None = None

        async def send_or_hold(message: Message) -> None:
            nonlocal granted
            if message["type"] == "http.response.start":
                granted = Headers(raw=message["headers"]).get(_GRANTED)
            if granted is None:
                await send(message)

        await self._app(scope, receive, send_or_hold)
        if granted is not None:
            response = await _artifact(unquote(granted))
            await response(scope, receive, send)


async def _upload(request: Request) -> Response:
    response: Response = await upload_artifact(request.path_params["artifact_path"], request)
    return response


async def _download(request: Request) -> Response:
    """Answers as MLflow's handler does, but a directory with 400, and tells the length."""
    try:
        path = _get_workspace_scoped_path(validate_path_is_safe(request.path_params["artifact_path"]))
    except MlflowException as error:
        return _refusal(error)
    return await _artifact(path)


async def _artifact(path: str) -> Response:
    """The artifact at ``path`` of the server's store, or the reason why there is none."""
    try:
        pipe = _get_artifact_repo().download_to_async_stream(path)
        first = await pipe.read()
    except MlflowException as error:
        return _refusal(error)
    headers = {
        "Content-Type": _guess_mime_type(path),
        "Content-Disposition": _content_disposition(posixpath.basename(path)),
        "X-Content-Type-Options": "nosniff",
    }
    if len(first) == pipe.size:
        return Response(first, headers=headers)
    return _PipeResponse(first, pipe, {**headers, "Content-Length": str(pipe.size)})


def _refusal(error: MlflowException) -> Response:
    return JSONResponse(json.loads(error.serialize_as_json()), error.get_http_status_code())


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
