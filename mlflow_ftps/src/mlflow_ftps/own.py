"""Which addresses of the store a server of MLflow may be led to: its own, and nothing that a client names."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import PERMISSION_DENIED

SCHEMES = ("ftp", "ftps")
# By these MLflow marks its server processes and tells them their own stores (mlflow.store.artifact.host_policy).
_ROOT, _DESTINATION = "_MLFLOW_SERVER_ARTIFACT_ROOT", "_MLFLOW_SERVER_ARTIFACT_DESTINATION"

_sealed = False
_by_the_server: ContextVar[bool] = ContextVar("by_the_server", default=False)


def seal() -> None:
    """From now on, in this process, the artifacts' destination is what ``by_the_server`` makes of it, and no address.

    MLflow asks for a repository in the same way whether the server or one of its clients has named the address.
    """
    global _sealed
    _sealed = True


@contextmanager
def by_the_server() -> Iterator[None]:
    """Within, it is the server itself that names addresses, not a client."""
    token = _by_the_server.set(True)
    try:
        yield
    finally:
        _by_the_server.reset(token)


def check(uri: str, environ: Mapping[str, str] = os.environ) -> None:
    """Raise MlflowException PERMISSION_DENIED if this is a server and ``uri``, of our schemes, not for its clients.

    A server's clients may name what lies in its ``--default-artifact-root``, as they log in there themselves.
    """
    if environ.get(_ROOT) is None and environ.get(_DESTINATION) is None:
        return  # no server
    if _contains(environ.get(_ROOT, ""), uri):
        return
    if (_by_the_server.get() or not _sealed) and _contains(environ.get(_DESTINATION, ""), uri):
        return
    raise MlflowException(
        "A location in the artifact store of this server cannot be named: artifacts are reached through the run, "
        "model or trace that they belong to.",
        error_code=PERMISSION_DENIED,
    )


def _contains(root: str, uri: str) -> bool:
    """Whether ``uri`` names ``root`` or something below it, in the same words but for a slash at the end."""
    outer, inner = urlsplit(root), urlsplit(uri)
    segments = [segment for segment in unquote(outer.path).split("/") if segment]
    return (
        outer.scheme in SCHEMES
        and (outer.scheme, outer.netloc) == (inner.scheme, inner.netloc)
        and [segment for segment in unquote(inner.path).split("/") if segment][: len(segments)] == segments
    )
