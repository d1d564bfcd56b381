"""MLflow's server with downloads that stream: the apps ``mlflow-ftps`` and ``mlflow-ftps-basic-auth``.

MLflow itself puts each file of a store that is not a local disk into a temporary directory first. For a small file that
takes longer than to fetch it; a large one needs the space, and its client waits for the first byte.
"""

import json
import os
import posixpath
from collections.abc import AsyncIterator

from fastapi import FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from fastapi.routing import APIRoute
from flask import Flask
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.exceptions import MlflowException
from mlflow.server.artifact_router import _content_disposition, _get_artifact_repo, _get_workspace_scoped_path
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.types import Receive, Scope, Send

from mlflow_ftps.streams import DownloadPipe

# The paths of MLflow's own handler, mlflow.server.artifact_router.download_artifact.
_PATHS = [f"/{api}/2.0/mlflow-artifacts/artifacts/{{artifact_path:path}}" for api in ("api", "ajax-api")]


def create_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps``: as without a name, but with ``add_downloads``."""
    # Imported only here: MLflow makes its app while the module is imported.
    if _MLFLOW_SGI_NAME.get() == "uvicorn":
        from mlflow.server.fastapi_app import app

        return add_downloads(app)
    from mlflow.server import app as flask_app

    return flask_app


def create_basic_auth_app() -> Flask | FastAPI:
    """The app of ``mlflow server --app-name mlflow-ftps-basic-auth``: ``basic-auth`` with ``add_downloads``."""
    from mlflow.server.auth import create_app as create_mlflows_app

    return add_downloads(create_mlflows_app())


def add_downloads(app: Flask | FastAPI) -> Flask | FastAPI:
    """Let ``app``, an MLflow server, stream downloads from its FTP store.

    MLflow's authentication and permissions hold for them, too: they guard the path. Nothing changes in a server with
    another store, or under gunicorn or waitress, which run MLflow's Flask app.
    """
    destination = os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR, "")
    serves_ours = os.environ.get(SERVE_ARTIFACTS_ENV_VAR) == "true" and destination.startswith(("ftp://", "ftps://"))
    if serves_ours and isinstance(app, FastAPI):
        # In front, as of two routes that match the first is taken.
        app.router.routes[:0] = [APIRoute(path, _download, methods=["GET"]) for path in _PATHS]
    return app


async def _download(artifact_path: str) -> Response:
    """Answers as MLflow's handler does, but a directory with 400, and tells the length."""
    try:
        path = _get_workspace_scoped_path(validate_path_is_safe(artifact_path))
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
