"""Which faults may pass by themselves, and how each one reads to an MLflow client."""

import ftplib
import ssl
from http import HTTPStatus

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    ABORTED,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
)

from mlflow_ftps.connection import IncompleteError

# The server could not write: 451 local error, 452 full disk, 552 quota. This does not pass by itself, though 4xx may.
_STORAGE_FAILED = ("451", "452", "552")
_NO_SPACE = ("no space", "disk quota")  # what the system says of it; some servers put it behind another code


class StorageError(MlflowException):
    """The server could not write, most often as its disk is full: HTTP 507, which MLflow's clients do not repeat."""

    def __init__(self, message: str) -> None:
        super().__init__(message, error_code=ABORTED)

    def get_http_status_code(self) -> int:
        return HTTPStatus.INSUFFICIENT_STORAGE


def is_transient(fault: BaseException) -> bool:
    """Whether the same operation may succeed on a new connection."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return False
    if isinstance(fault, ftplib.error_temp):
        return not _is_storage_failed(str(fault))
    return isinstance(fault, (OSError, EOFError, ftplib.error_reply, ftplib.error_proto, IncompleteError))


def as_mlflow_exception(fault: BaseException, action: str, store: str) -> MlflowException:
    """``fault`` in the words of MLflow. ``action`` is what was tried, "upload 'a/b'"; ``store`` names the server.

    Only what a repetition can cure gets a code that MLflow's clients repeat by themselves, for up to four minutes. A
    refused login and a wrong certificate are such: a server's client can do nothing about them, and while an operator
    changes passwords or certificates they pass.
    """
    answer = " ".join(_text(fault).split())
    attempt = f"Could not {action} on the artifact store {store}"
    if isinstance(fault, ssl.SSLCertVerificationError):
        return MlflowException(
            f"{attempt}: its certificate is not valid: {fault.verify_message}. MLFLOW_FTPS_CA_FILE names the PEM "
            "file of the authority that must have signed it, and it must be made out to the host in the URI.",
            error_code=TEMPORARILY_UNAVAILABLE,
        )
    if answer.startswith("530"):
        return MlflowException(
            f"{attempt}: it refused the login: {answer}. Check the user in the artifact URI and the password in the "
            "netrc file that MLFLOW_FTPS_NETRC names.",
            error_code=TEMPORARILY_UNAVAILABLE,
        )
    if isinstance(fault, ftplib.Error) and _is_storage_failed(answer):
        return StorageError(f"{attempt}: its storage is full or broken: {answer}")
    if isinstance(fault, ftplib.error_perm):
        return MlflowException(f"{attempt}: it answered: {answer}", error_code=PERMISSION_DENIED)
    if isinstance(fault, ValueError):
        return MlflowException(f"{attempt}: {answer}", error_code=INVALID_PARAMETER_VALUE)
    if isinstance(fault, EOFError):
        answer = "the server closed the connection"
    return MlflowException(f"{attempt}: {answer or type(fault).__name__}", error_code=TEMPORARILY_UNAVAILABLE)


def _is_storage_failed(answer: str) -> bool:
    return answer.startswith(_STORAGE_FAILED) or any(words in answer.lower() for words in _NO_SPACE)


def _text(fault: BaseException) -> str:
    if isinstance(fault, ftplib.Error):
        return str(fault).encode("latin-1").decode("utf-8", "replace")  # names in it are UTF-8
    return str(fault)
