"""Servers and stores for the tests."""

from collections.abc import Callable, Iterator
from pathlib import Path

import certificates
import pytest
from ftp_servers import PASSWORD, SERVERS, USER, Certificate, FtpServer

from mlflow_ftps.repository import FTPArtifactRepository

StartServer = Callable[..., FtpServer]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A valid certificate for 127.0.0.1."""
    return certificates.issue(tmp_path_factory.mktemp("certificate"))


PLAIN = [f"{name}-plain" for name in SERVERS]
TLS = [f"{name}-tls" for name in SERVERS]
only_plain = pytest.mark.parametrize("kind", PLAIN, indirect=True, scope="session")
only_tls = pytest.mark.parametrize("kind", TLS, indirect=True, scope="session")


@pytest.fixture(scope="session", params=PLAIN + TLS)
def kind(request: pytest.FixtureRequest) -> str:
    """Which server, with TLS or without: every test of behaviour runs on all six."""
    return str(request.param)


@pytest.fixture(scope="session")
def start_server(
    kind: str, certificate: Certificate, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[StartServer]:
    """Starts a server of the kind, with the options of FtpServer; all end with the tests of the kind."""
    name, tls = kind.split("-")
    if not SERVERS[name].is_installed():
        pytest.skip(f"{name} is not installed: no such program in PATH")
    servers = []

    def start(certificate: Certificate | None = certificate, **options: int) -> FtpServer:
        server = SERVERS[name](tmp_path_factory.mktemp(name), certificate if tls == "tls" else None, **options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="session")
def server(start_server: StartServer) -> FtpServer:
    """The server that all tests share which do it no harm."""
    return start_server()


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, certificate: Certificate, monkeypatch: pytest.MonkeyPatch) -> None:
    """The login and the authority's certificate, as a deployment gives them, and short limits."""
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("MLFLOW_FTPS_NETRC", str(netrc))
    monkeypatch.setenv("MLFLOW_FTPS_CA_FILE", str(certificate.authority))
    for variable in ("CONNECT_TIMEOUT", "REPLY_TIMEOUT", "DATA_TIMEOUT"):
        monkeypatch.setenv(f"MLFLOW_FTPS_{variable}", "5")


@pytest.fixture
def root(server: FtpServer, tmp_path: Path) -> Path:
    """The directory on the server's disk in which ``store`` keeps its files. It does not exist yet."""
    return server.directory / tmp_path.name


@pytest.fixture
def store(server: FtpServer, root: Path) -> FTPArtifactRepository:
    """A store of its own for each test."""
    return FTPArtifactRepository(f"{server.uri}/{root.name}")
