"""Where the store is, how to log in and within which limits to use it: from the artifact URI and the environment."""

import logging
import netrc
import os
import ssl
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, PERMISSION_DENIED

from mlflow_ftps import own

_logger = logging.getLogger(__name__)

_DEFAULT_PORT = 21
_PREFIX = "MLFLOW_FTPS_"
_ALLOWED_HOSTS = f"{_PREFIX}ALLOWED_HOSTS"


@dataclass(frozen=True)
class Settings:
    """One FTP server and account, and the limits within which to use it. Times are in seconds.

    Each field that has a default is set by the environment variable MLFLOW_FTPS_<NAME>.
    """

    host: str
    port: int
    tls: bool
    user: str | None  # None: the one that the netrc file gives for the host
    netrc: str = "~/.netrc"
    ca_file: str = ""  # empty: the system's certificate authorities
    pool_size: int = 16
    pool_timeout: float = 60.0  # for a free connection
    idle_timeout: float = 30.0  # after which an unused connection is closed
    connect_timeout: float = 10.0  # for each step of connecting and logging in
    reply_timeout: float = 30.0  # for the answer to a command
    data_timeout: float = 30.0  # in which a transfer must move at least one byte
    attempts: int = 3
    retry_window: float = 30.0  # after which no new attempt begins
    stale_after: float = 86400.0  # age at which a temporary file counts as left behind

    def __str__(self) -> str:
        return f"{'ftps' if self.tls else 'ftp'}://{self.host}:{self.port}"


def parse(uri: str, environ: Mapping[str, str] = os.environ) -> tuple[Settings, str]:
    """The settings for the server that ``uri`` names, and the absolute path there of the store's root.

    Raises MlflowException INVALID_PARAMETER_VALUE if the URI, a variable or the netrc file is wrong,
    PERMISSION_DENIED if the host is not allowed, or the URI in this server not (``own.check``).
    """
    own.check(uri, environ)
    parts = urlsplit(uri)
    host, port = _address(parts)
    _check_allowed(host, port, environ)
    settings = Settings(
        host=host,
        port=port,
        tls=parts.scheme == "ftps",
        user=unquote(parts.username) if parts.username else None,
        **_limits(environ),
    )
    if parts.password is not None:
        _check_password_is_superfluous(settings, uri)
    path = unquote(parts.path)
    if not path.isprintable() or ".." in path.split("/"):
        raise _invalid(f"The artifact URI {without_password(uri)} has a path with '..' or a control character in it.")
    return settings, "/" + path.strip("/")


def login(settings: Settings) -> tuple[str, str]:
    """User and password from the netrc file, read anew each time, so that a changed password needs no restart.

    Without a user in the URI and an entry in the file, the login is anonymous.
    Raises MlflowException INVALID_PARAMETER_VALUE if the file cannot be read or has no password for the user.
    """
    path = Path(settings.netrc).expanduser()
    try:
        entry = netrc.netrc(path).authenticators(settings.host)
    except FileNotFoundError:
        if settings.netrc != Settings.netrc:
            raise _invalid(f"{_PREFIX}NETRC names {path}, which does not exist.") from None
        entry = None
    except OSError as fault:
        raise _invalid(f"The netrc file {path} cannot be read: {fault.strerror}.") from None
    except (netrc.NetrcParseError, UnicodeDecodeError) as fault:
        # The parser's message quotes what it stumbled over, which may be the password.
        line = getattr(fault, "lineno", None)
        raise _invalid(
            f"The netrc file {path} is malformed{f' near line {line}' if line else ''}. "
            "Expected: machine HOST login USER password PASSWORD, a value with blanks in double quotes."
        ) from None
    if entry is None and settings.user is None:
        return "anonymous", "anonymous@"
    if entry is None or settings.user not in (None, entry[0]):
        raise _invalid(
            f"The netrc file {path} has no password for {settings.user!r} on {settings.host}. Expected a line "
            f"'machine {settings.host} login {settings.user} password PASSWORD'; {_PREFIX}NETRC names the file."
        )
    return entry[0], entry[2]


def tls_context(settings: Settings) -> ssl.SSLContext:
    """TLS 1.2 or newer that verifies the server's certificate and host name.

    Raises MlflowException INVALID_PARAMETER_VALUE if the CA file cannot be read.
    """
    try:
        return ssl.create_default_context(cafile=settings.ca_file or None)
    except OSError as fault:
        raise _invalid(
            f"{_PREFIX}CA_FILE names {settings.ca_file}, from which no certificate can be read: {fault}. "
            "Expected: a PEM file with the authority that signed the FTP server's certificate."
        ) from None


def without_password(uri: str) -> str:
    """``uri`` with any password left out."""
    parts = urlsplit(uri)
    if parts.password is None:
        return uri
    user, _, address = parts.netloc.rpartition("@")
    return parts._replace(netloc=f"{user.partition(':')[0]}@{address}").geturl()


def _invalid(message: str) -> MlflowException:
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def _address(parts: SplitResult) -> tuple[str, int]:
    uri = without_password(parts.geturl())
    try:
        port = parts.port or _DEFAULT_PORT
    except ValueError:
        raise _invalid(f"The artifact URI {uri} has no valid port. Expected: ftps://USER@HOST:PORT/PATH") from None
    if not parts.hostname or parts.query or parts.fragment:
        raise _invalid(
            f"The artifact URI {uri} is not of the form ftps://USER@HOST:PORT/PATH; '?' and '#' in the path "
            "are written %3F and %23."
        )
    return parts.hostname, port


def _limits(environ: Mapping[str, str]) -> dict[str, Any]:
    limits: dict[str, Any] = {}
    for field in fields(Settings):
        variable = f"{_PREFIX}{field.name.upper()}"
        text = environ.get(variable, "")
        if field.default is MISSING or not text:
            continue
        try:
            limits[field.name] = type(field.default)(text)
        except ValueError:
            raise _invalid(f"{variable} is {text!r}, expected a number.") from None
        if not isinstance(field.default, str) and not limits[field.name] > 0:
            raise _invalid(f"{variable} is {text!r}, expected a number above zero.")
    return limits


def _check_allowed(host: str, port: int, environ: Mapping[str, str]) -> None:
    named = [entry.strip().lower() for entry in environ.get(_ALLOWED_HOSTS, "").split(",") if entry.strip()]
    if named and host not in named and f"{host}:{port}" not in named:
        raise MlflowException(
            f"The artifact store's host {host}:{port} is not allowed here. Allowed: {', '.join(named)}. "
            f"Add it to {_ALLOWED_HOSTS} (HOST or HOST:PORT, separated by commas) if it should be.",
            error_code=PERMISSION_DENIED,
        )


def _check_password_is_superfluous(settings: Settings, uri: str) -> None:
    """Runs of MLflow's own FTP store have a password in their URI: they stay readable, by the netrc file's login."""
    try:
        known = not settings.tls and login(settings)[0] != "anonymous"
    except MlflowException:
        known = False
    if not known:
        raise _invalid(
            f"The artifact URI {without_password(uri)} must not contain a password: MLflow stores the URI with every "
            f"run and shows it. Take the password out of it and write 'machine {settings.host} login USER password "
            f"PASSWORD' into the netrc file that {_PREFIX}NETRC names (now {settings.netrc})."
        )
    _logger.warning(
        "The password in %s is not used; the netrc file's is. Take it out of the URI.", without_password(uri)
    )
