"""The artifact URI, the environment and the netrc file: what they mean, and what is said of mistakes in them."""

from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from mlflow_ftps.settings import Settings, login, parse, tls_context, without_password

SERVER = {
    "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
    "_MLFLOW_SERVER_ARTIFACT_DESTINATION": "ftps://own/store",
}


@pytest.fixture
def netrc(tmp_path: Path) -> Path:
    path = tmp_path / "netrc"
    path.write_text('machine files login mlflow password "two words"\n')
    return path


@pytest.mark.parametrize(
    ("uri", "settings", "root"),
    [
        ("ftps://files", Settings("files", 21, tls=True, user=None), "/"),
        ("ftp://files/a/b/", Settings("files", 21, tls=False, user=None), "/a/b"),
        ("ftps://mlflow@FILES:2121/a", Settings("files", 2121, tls=True, user="mlflow"), "/a"),
        ("ftps://m%40x@files/two%20words%3F", Settings("files", 21, tls=True, user="m@x"), "/two words?"),
        ("ftps://[::1]:990/%25", Settings("::1", 990, tls=True, user=None), "/%"),
        ("ftps://files//a", Settings("files", 21, tls=True, user=None), "/a"),
    ],
)
def test_reads_the_uri(uri: str, settings: Settings, root: str) -> None:
    assert parse(uri, {}) == (settings, root)


@pytest.mark.parametrize(
    "uri", ["ftps:///path", "ftps://files:port/", "ftps://files:99999/", "ftps://files/?a", "ftps://f/#a"]
)
def test_refuses_a_malformed_uri(uri: str) -> None:
    with pytest.raises(MlflowException, match=r"Expected: |is not of the form") as error:
        parse(uri, {})
    assert error.value.error_code == "INVALID_PARAMETER_VALUE"


@pytest.mark.parametrize("path", ["a/../b", "line%0Abreak", "%2e%2e"])
def test_refuses_a_root_that_cannot_be(path: str) -> None:
    with pytest.raises(MlflowException, match=r"has a path with '\.\.' or a control character"):
        parse(f"ftps://files/{path}", {})


def test_reads_every_limit_from_the_environment() -> None:
    environment = {
        "MLFLOW_FTPS_NETRC": "/netrc",
        "MLFLOW_FTPS_CA_FILE": "/ca",
        "MLFLOW_FTPS_POOL_SIZE": "3",
        "MLFLOW_FTPS_POOL_TIMEOUT": "1.5",
        "MLFLOW_FTPS_IDLE_TIMEOUT": "2",
        "MLFLOW_FTPS_CONNECT_TIMEOUT": "3",
        "MLFLOW_FTPS_REPLY_TIMEOUT": "4",
        "MLFLOW_FTPS_DATA_TIMEOUT": "5",
        "MLFLOW_FTPS_ATTEMPTS": "6",
        "MLFLOW_FTPS_RETRY_WINDOW": "7",
        "MLFLOW_FTPS_STALE_AFTER": "8",
    }
    settings, _ = parse("ftp://files", environment)
    assert settings == Settings("files", 21, False, None, "/netrc", "/ca", 3, 1.5, 2, 3, 4, 5, 6, 7, 8)


@pytest.mark.parametrize("value", ["many", "0", "-1", "nan"])
def test_names_the_variable_that_is_no_limit(value: str) -> None:
    with pytest.raises(MlflowException, match=f"MLFLOW_FTPS_DATA_TIMEOUT is '{value}', expected a number"):
        parse("ftp://files", {"MLFLOW_FTPS_DATA_TIMEOUT": value})


def test_a_client_may_connect_anywhere_and_a_server_to_its_own_stores_only() -> None:
    """Issue line B1."""
    parse("ftps://elsewhere/x", {})
    for uri in ("ftps://own/store", "ftps://own/store/", "ftps://own/store/1/traces/2/artifacts"):
        parse(uri, SERVER)
    for uri in (
        "ftps://elsewhere/store",
        "ftps://own:2121/store",
        "ftps://own:21/store",
        "ftps://user@own/store",
        "ftps://OWN/store",
        "ftp://own/store",
        "FTP://own/store",
        "ftps://own/storehouse",
        "ftps://own/",
        "ftps://own/other",
    ):
        with pytest.raises(MlflowException, match=r"A location in the artifact store of this server cannot") as error:
            parse(uri, SERVER)
        assert error.value.error_code == "PERMISSION_DENIED"


def test_a_server_without_a_proxy_reads_what_its_clients_store_directly() -> None:
    environment = {"_MLFLOW_SERVER_ARTIFACT_ROOT": "ftps://own/store"}
    parse("ftps://own/store/1/run/artifacts", environment)
    with pytest.raises(MlflowException, match="cannot be named"):
        parse("ftps://own/other/1/run/artifacts", environment)


def test_the_list_of_allowed_hosts_is_where_a_client_may_connect() -> None:
    environment = {"MLFLOW_FTPS_ALLOWED_HOSTS": " Files, other:2121 "}
    for uri in ("ftps://files/x", "ftps://files:990/x", "ftp://other:2121/x"):
        parse(uri, environment)
    for uri in ("ftps://own/store", "ftp://other/x"):
        with pytest.raises(MlflowException, match=r"is not allowed here\. Allowed: files, other:2121"):
            parse(uri, environment)


def test_a_password_in_the_uri_is_refused_and_not_shown(netrc: Path) -> None:
    for uri, environment in (
        ("ftps://mlflow:s3cret@files/a", {"MLFLOW_FTPS_NETRC": str(netrc)}),
        ("ftp://mlflow:s3cret@files/a", {}),
        ("ftp://other:s3cret@files/a", {"MLFLOW_FTPS_NETRC": str(netrc)}),
    ):
        with pytest.raises(MlflowException, match=r"must not contain a password.*MLFLOW_FTPS_NETRC") as error:
            parse(uri, {"MLFLOW_FTPS_NETRC": "/nowhere", **environment})
        assert "s3cret" not in str(error.value)


def test_runs_of_the_stock_store_stay_readable_by_the_netrc_files_login(
    netrc: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings, root = parse("ftp://mlflow:s3cret@files/a", {"MLFLOW_FTPS_NETRC": str(netrc)})
    assert (login(settings), root) == (("mlflow", "two words"), "/a")
    assert "ftp://mlflow@files/a is not used" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_login_comes_from_the_netrc_file(netrc: Path) -> None:
    for user in (None, "mlflow"):
        assert login(Settings("files", 21, tls=True, user=user, netrc=str(netrc))) == ("mlflow", "two words")
    assert login(Settings("public", 21, tls=True, user=None, netrc=str(netrc))) == ("anonymous", "anonymous@")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("machine other login mlflow password s3cret", "has no password for 'mlflow' on files. Expected a line"),
        ("machine files login other password s3cret", "has no password for 'mlflow' on files. Expected a line"),
        ("machine files login mlflow password s3cret and more", "is malformed near line 1. Expected: machine HOST"),
        ("machine files login mlflow password s3cret\n\xff", "is malformed"),
    ],
)
def test_says_what_is_wrong_with_the_netrc_file_without_showing_it(netrc: Path, content: str, message: str) -> None:
    netrc.write_bytes(content.encode("latin-1"))
    with pytest.raises(MlflowException, match=message) as error:
        login(Settings("files", 21, tls=True, user="mlflow", netrc=str(netrc)))
    assert "s3cret" not in str(error.value)
    assert error.value.__cause__ is None


def test_names_the_netrc_file_that_does_not_exist() -> None:
    with pytest.raises(MlflowException, match="MLFLOW_FTPS_NETRC names /nowhere, which does not exist"):
        login(Settings("files", 21, tls=True, user="mlflow", netrc="/nowhere"))


@pytest.mark.parametrize("content", [None, b"not a certificate"])
def test_names_the_authoritys_file_that_is_none(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_bytes(content)
    with pytest.raises(MlflowException, match=f"MLFLOW_FTPS_CA_FILE names {path}, from which no certificate"):
        tls_context(Settings("files", 21, tls=True, user=None, ca_file=str(path)))


def test_leaves_the_password_out() -> None:
    assert without_password("ftp://u:p@h:21/a") == "ftp://u@h:21/a"
    assert without_password("ftp://u:p@ss@h/a") == "ftp://u@h/a"
    assert without_password("ftp://h/a") == "ftp://h/a"
