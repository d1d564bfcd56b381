"""MLflow's server with faster downloads: the apps ``mlflow-ftps`` and ``mlflow-ftps-basic-auth``.

For each file of a store that is not a local disk, MLflow makes a temporary directory and passes the content through
three threads, which takes longer than to fetch a small file.
"""

import functools
import json
import os
import posixpath
from typing import IO

from fastapi import APIRouter, FastAPI
from fastapi.responses import JSONResponse, Response, StreamingResponse
from flask import Flask
from mlflow.environment_variables import _MLFLOW_SGI_NAME
from mlflow.exceptions import MlflowException
from mlflow.server.artifact_router import _content_disposition, _get_artifact_repo, _get_workspace_scoped_path
from mlflow.server.constants import ARTIFACTS_DESTINATION_ENV_VAR, SERVE_ARTIFACTS_ENV_VAR
from mlflow.utils.mime_type_utils import _guess_mime_type
from mlflow.utils.uri import validate_path_is_safe
from starlette.types import Receive, Scope, Send

from mlflow_ftps.connection import BLOCK

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
    """Let ``app``, an MLflow server, serve downloads from its FTP store faster.

    MLflow's authentication and permissions hold for them, too: they guard the path. Nothing changes in a server with
    another store, or under gunicorn or waitress, which run MLflow's Flask app.
    """
    destination = os.environ.get(ARTIFACTS_DESTINATION_ENV_VAR, "")
    serves_ours = os.environ.get(SERVE_ARTIFACTS_ENV_VAR) == "true" and destination.startswith(("ftp://", "ftps://"))
    if serves_ours and isinstance(app, FastAPI):
        app.include_router(_router())
        routes = app.router.routes
        routes.insert(0, routes.pop())  # of two that match, the first is taken
    return app


def _router() -> APIRouter:
    router = APIRouter()
    for path in _PATHS:
        router.get(path)(_download)
    return router


async def _download(artifact_path: str) -> Response:
    """Answers as MLflow's handler does, and a directory with 400."""
    try:
        path = _get_workspace_scoped_path(validate_path_is_safe(artifact_path))
        file = await _get_artifact_repo().fetch(path)
    except MlflowException as error:
        return JSONResponse(json.loads(error.serialize_as_json()), error.get_http_status_code())
    headers = {
        "Content-Type": _guess_mime_type(path),
        "Content-Disposition": _content_disposition(posixpath.basename(path)),
        "X-Content-Type-Options": "nosniff",
    }
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    if size <= BLOCK:
        with file:
            return Response(file.read(), headers=headers)
    return _FileResponse(file, headers={**headers, "Content-Length": str(size)})


class _FileResponse(StreamingResponse):
    """Sends an open file and closes it, even if the client goes away."""

    def __init__(self, file: IO[bytes], headers: dict[str, str]) -> None:
        super().__init__(iter(functools.partial(file.read, BLOCK), b""), headers=headers)
        self._file = file

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            await super().__call__(scope, receive, send)
