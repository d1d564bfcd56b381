"""The client of MLflow's REST API: what it sends again, what it says of a failure, whom it trusts."""

from __future__ import annotations

import datetime
import io
import ipaddress
import ssl
from contextlib import nullcontext
from pathlib import Path
from threading import Timer

import pytest
from ansible.module_utils import mlflow_api
from ansible.module_utils.mlflow_api import Http, Mlflow, MlflowError, ParameterError
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from mlflow_harness import Answer, Models, Peer, free_port, listening

PATIENT = Http(timeout=10, patience=10)
IMPATIENT = Http(timeout=10, patience=0)


def failure(http: Http, url: str, method: str = "GET") -> str:
    with pytest.raises(MlflowError) as error:
        http.send(method, url)
    return str(error.value)


# What is sent again


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_status_that_may_pass_is_tried_again(peer: Peer, status: int) -> None:
    url = peer.says(Answer(status), Answer(status), Answer(200, b"at last"))
    assert PATIENT.send("GET", url) == b"at last"
    assert len(peer.asked) == 3


@pytest.mark.parametrize(("status", "asked"), [(429, 2), (503, 2), (500, 1), (502, 1), (504, 1)])
def test_what_must_not_happen_twice_is_sent_again_only_if_the_server_has_not_acted(
    peer: Peer, status: int, asked: int
) -> None:
    url = peer.says(Answer(status), Answer(200))
    with nullcontext() if asked == 2 else pytest.raises(MlflowError, match=f"HTTP {status}"):
        PATIENT.send("POST", url, body=b"{}", repeatable=False)
    assert len(peer.asked) == asked


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_a_status_that_stays_is_not_tried_again(peer: Peer, status: int) -> None:
    failure(PATIENT, peer.says(Answer(status)))
    assert len(peer.asked) == 1


def test_it_gives_up_when_its_patience_is_over(peer: Peer) -> None:
    url = peer.says(Answer(503, b"busy"))
    assert failure(Http(timeout=10, patience=0.5), url) == f"GET {url}: HTTP 503: busy"
    assert 2 <= len(peer.asked) <= 3


def test_a_server_that_is_about_to_start_is_waited_for() -> None:
    port = free_port()
    listeners = []

    def start() -> None:
        listeners.append(listening(port))
        listeners[0].__enter__().says(Answer(200, b"up"))

    timer = Timer(0.5, start)
    timer.start()
    try:
        assert PATIENT.send("POST", f"http://127.0.0.1:{port}", body=b"{}", repeatable=False) == b"up"
    finally:
        timer.join()
        listeners[0].__exit__(None, None, None)


@pytest.mark.parametrize("repeatable", [True, False])
def test_a_connection_that_breaks_is_tried_again_if_that_can_do_no_harm(peer: Peer, repeatable: bool) -> None:
    url = peer.says(Answer(200, hang_up=True), Answer(200, b"now"))
    if repeatable:
        assert PATIENT.send("POST", url, body=b"{}") == b"now"
    else:
        with pytest.raises(MlflowError, match="Remote end closed connection without response"):
            PATIENT.send("POST", url, body=b"{}", repeatable=False)
    assert len(peer.asked) == 1 + repeatable


def test_an_answer_that_breaks_off_is_asked_for_again(peer: Peer) -> None:
    part = Answer(200, b'{"a": 1', headers={"Content-Length": "8"})
    assert PATIENT.send("GET", peer.says(part, Answer(200, b'{"a": 1}'))) == b'{"a": 1}'
    assert len(peer.asked) == 2


def test_a_file_is_sent_whole_each_time(peer: Peer) -> None:
    url = peer.says(Answer(503), Answer(200))
    PATIENT.send("PUT", url, body=io.BytesIO(b"content"))
    assert [asked.body for asked in peer.asked] == [b"content", b"content"]


# What a failure says


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            Answer(404, {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "No model."}),
            "HTTP 404 RESOURCE_DOES_NOT_EXIST: No model",
        ),
        (
            Answer(403, b"Invalid Host header"),
            "HTTP 403: Invalid Host header; list HOST in the allowed hosts of the MLflow server",
        ),
        (Answer(403, b"Permission denied"), "HTTP 403: Permission denied"),
        (Answer(404, b"<h1>Not Found</h1>\n<p>It was not found.</p>"), "HTTP 404: Not Found It was not found"),
        (Answer(418), "HTTP 418: I'm a Teapot"),
        (Answer(400, {"message": "a" * 500 + "b" * 500}), f"HTTP 400: {'a' * 100} … {'b' * 300}"),
        (
            Answer(301, b"", {"Location": "https://other.example/"}),
            "HTTP 301: redirected to https://other.example/; expected the address of the server itself",
        ),
    ],
)
def test_an_answer_that_is_an_error(peer: Peer, answer: Answer, message: str) -> None:
    url = peer.says(answer)
    assert failure(IMPATIENT, url) == f"GET {url}: {message}".replace("HOST", url.removeprefix("http://"))


def test_no_server() -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert failure(IMPATIENT, url) == f"GET {url}: Connection refused"


def test_no_such_host() -> None:
    assert failure(IMPATIENT, "http://no-such-host.invalid").startswith("GET http://no-such-host.invalid: ")


def test_a_server_that_does_not_answer_in_time(peer: Peer) -> None:
    url = peer.says(Answer(200, seconds=0.5))
    assert failure(Http(timeout=0.1, patience=0), url) == f"GET {url}: no answer within 0.1 s"


def test_an_answer_that_is_no_json(peer: Peer) -> None:
    url = peer.says(Answer(200, b"<html>Please log in</html>"))
    with pytest.raises(MlflowError) as error:
        Mlflow(url, IMPATIENT).registered_model("m")
    assert str(error.value) == (
        f"GET {url}/api/2.0/mlflow/registered-models/get?name=m: expected MLflow's JSON, "
        "got '<html>Please log in</html>'; is it the URL of an MLflow server?"
    )


def test_a_wrong_password_is_named_but_not_shown(tracking_uri: str) -> None:
    http = Http(timeout=10, patience=0, username="admin", password="not the password")
    with pytest.raises(MlflowError) as error:
        Mlflow(tracking_uri, http).registered_model("m")
    assert error.value.status == 401
    assert str(error.value).startswith(
        f"GET {tracking_uri}/api/2.0/mlflow/registered-models/get?name=m: HTTP 401: You are not authenticated."
    )
    assert "not the password" not in f"{error.value!r} {vars(error.value)} {http!r}"


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        (
            "sqlite:///mlflow.db",
            "tracking_uri is 'sqlite:///mlflow.db'; expected the URL of a server, http://… or https://…",
        ),
        ("http://", "tracking_uri is 'http://'; expected the URL of a server, http://… or https://…"),
        ("http://me:secret@host", "tracking_uri holds credentials; expected a URL without them"),
    ],
)
def test_a_tracking_uri_that_cannot_be(uri: str, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        Mlflow(uri, IMPATIENT)
    assert str(error.value) == message


def test_artifacts_that_the_server_does_not_proxy(client: Mlflow) -> None:
    with pytest.raises(MlflowError) as error:
        client.files("s3://bucket/model")
    assert str(error.value) == (
        "GET s3://bucket/model: the tracking server does not proxy these artifacts (expected mlflow-artifacts:/…); "
        "start it with --artifacts-destination and without --default-artifact-root"
    )


# Whom it trusts


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the key and the certificate, signed by itself, of 127.0.0.1."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    file = tmp_path_factory.mktemp("tls") / "server.pem"
    file.write_bytes(private + certificate.public_bytes(pem))
    return file


def test_a_certificate_has_to_be_trusted(authority: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority)
    with listening(tls=context) as peer:
        url = peer.says(Answer(200, b"hello"))
        assert failure(IMPATIENT, url) == (
            f"GET {url}: self-signed certificate; "
            "set ca_path to the certificate of the authority that signed the server's, in PEM form"
        )
        assert Http(timeout=10, patience=0, ca_path=str(authority)).send("GET", url) == b"hello"
        assert Http(timeout=10, patience=0, validate_certs=False).send("GET", url) == b"hello"


def test_a_ca_file_that_is_none(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    for path, found in ((missing, "No such file or directory"), (empty, "no certificate or crl found")):
        with pytest.raises(ParameterError) as error:
            Http(timeout=10, patience=0, ca_path=str(path)).send("GET", "https://127.0.0.1:1")
        message = str(error.value)
        assert message.startswith(f"ca_path is '{path}': ")
        assert found in message
        assert message.endswith("; expected a file of certificates in PEM form")


def test_a_redirect_takes_no_credentials_along(peer: Peer) -> None:
    with listening() as other:
        location = {"Location": other.says(Answer(200, b"thanks"))}
        failure(Http(timeout=10, patience=0, username="u", password="p"), peer.says(Answer(302, b"", location)))
        assert "Authorization" in peer.asked[0].headers
        assert other.asked == []


def test_a_loopback_address_is_asked_without_the_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    assert IMPATIENT.send("GET", peer.says(Answer(200, b"direct"))) == b"direct"


def test_a_container_s_address_is_asked_without_the_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", peer.says(Answer(200, b"proxied")))
    failure(Http(timeout=0.1, patience=0), "http://172.31.255.254:8080/")
    assert peer.asked == []


def test_other_addresses_are_asked_through_the_proxy(peer: Peer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", peer.says(Answer(200, b"proxied")))
    assert IMPATIENT.send("GET", "http://mlflow.invalid/x") == b"proxied"
    assert peer.asked[0].path == "http://mlflow.invalid/x"


# What it makes of the server's answers


def test_versions_are_found_by_source_and_by_tag_on_all_pages(
    client: Mlflow, models: Models, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_api, "PAGE_SIZE", 2)
    name = f"{name}, the tester's"  # a quote, as names may have
    client.create_registered_model(name)
    for number in range(5):
        client.create_version(name, models.doubler, None, models.doubler[8:], {"even": str(number % 2 == 0)})
    assert [version.version for version in client.versions(name, source=models.doubler)] == [5, 4, 3, 2, 1]
    assert [version.version for version in client.versions(name, tags={"even": "True"})] == [5, 3, 1]
    assert client.versions(name, source=models.tripler) == []


def test_artifacts_go_there_and_back(client: Mlflow, models: Models) -> None:
    root = client.run(models.run).artifact_uri
    client.upload(root, "a directory/ü.txt", io.BytesIO(b"content"))
    back = io.BytesIO()
    client.download(root, "a directory/ü.txt", back)
    assert back.read() == b"content"
    assert list(client.files(f"{root}/a directory")) == ["ü.txt"]
    assert list(client.files(f"{root}/nothing")) == []
    assert "a directory/ü.txt" in client.files(root)
    assert client.files(f"{client.base}/api/2.0/mlflow-artifacts/artifacts{root.split(':', 1)[1]}")
