"""The module portainer_environment against Portainer's stand-in."""

from __future__ import annotations

from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import portainer_environment
import pytest
import yaml
from portainer_harness import Run, Standin


@pytest.mark.usefixtures("standin")
def test_waits_for_a_portainer_that_starts_and_registers_the_engine(engine: str, run: Run) -> None:
    result = run(url=engine)
    assert result["changed"]
    assert result["diff"] == {"before": {}, "after": {"name": "local", "url": engine}}
    assert result["environment"] == {"id": 1, "name": "local", "url": engine}
    assert result["docker"] == {"name": "host1", "version": "28.5.2", "containers": 6}
    assert result["portainer_version"] == "2.45.2"


@pytest.mark.usefixtures("standin")
def test_second_run_changes_nothing(engine: str, run: Run) -> None:
    first = run(url=engine)
    second = run(url=engine)
    assert not second["changed"]
    assert second["environment"] == first["environment"]
    assert second["docker"] == first["docker"]


@pytest.mark.usefixtures("standin")
def test_check_mode_predicts_and_registers_nothing(engine: str, run: Run) -> None:
    run(url=engine)
    predicted = run(url=engine, name="second", check_mode=True)
    assert predicted["changed"]
    assert "environment" not in predicted
    assert run(url=engine, name="second")["diff"] == predicted["diff"]


@pytest.mark.usefixtures("stopped")
def test_check_mode_expects_nothing_of_a_portainer_that_does_not_run_yet(engine: str, run: Run) -> None:
    assert run(url=engine, check_mode=True)["diff"] == {"before": {}, "after": {"name": "local", "url": engine}}
    assert not run(state="absent", check_mode=True)["changed"]


@pytest.mark.usefixtures("standin")
def test_moves_the_environment_to_another_engine(engine: str, another_engine: str, run: Run) -> None:
    run(url=engine)
    predicted = run(url=another_engine, check_mode=True)
    assert predicted["environment"] == {"id": 1, "name": "local", "url": engine}
    moved = run(url=another_engine)
    assert moved["changed"]
    assert moved["diff"]["before"]["url"] == engine
    assert moved["environment"] == {"id": 1, "name": "local", "url": another_engine}
    assert not run(url=another_engine)["changed"]


@pytest.mark.usefixtures("standin")
def test_removes_the_environment(engine: str, run: Run) -> None:
    run(url=engine)
    assert run(state="absent", check_mode=True)["changed"]
    assert run(state="absent")["diff"] == {"before": {"name": "local", "url": engine}, "after": {}}
    assert not run(state="absent")["changed"]


def test_password_file_that_changed_later_is_refused_with_the_cure(standin: Standin, engine: str, run: Run) -> None:
    run(url=engine)
    standin.stop()
    standin.start(password="another password, too late")
    result = run(url=engine, password="another password, too late")
    assert result["failed"]
    assert result["msg"] == (
        f"{standin.url} refuses the password of 'admin'. A password file acts only while Portainer has "
        "no administrator; its data volume keeps the password that it got then, or that was set since. "
        "Give that one, or set a new one: stop Portainer, run the image portainer/helper-reset-password "
        "with the volume at /data, and start Portainer again."
    )
    assert not run(url=engine)["changed"]


def test_too_many_logins_are_named_as_such(stopped: Standin, run: Run) -> None:
    stopped.start(setup="standin.LOGINS_A_SECOND = 0")
    assert "refuses logins from this address for an hour" in run()["msg"]


def test_engine_that_cannot_be_reached_is_not_registered(standin: Standin, run: Run) -> None:
    result = run(url="unix:///nowhere/docker.sock")
    assert result["msg"] == (
        f"POST {standin.url}/api/endpoints: HTTP 500: Unable to initiate communications with environment: "
        "[Errno 2] No such file or directory"
    )
    assert not run(state="absent")["changed"]


@pytest.mark.usefixtures("standin")
def test_engine_that_went_away_fails_the_proof(engine: str, run: Run) -> None:
    run(url=engine)
    Path(engine.removeprefix("unix://")).unlink()
    message = run(url=engine)["msg"]
    assert message.startswith(
        f"Portainer has the environment 'local', but does not reach its Docker engine at {engine}: "
    )
    assert message.endswith("Check that the socket is mounted into Portainer's container.")


def test_certificate_is_verified_against_the_authority_that_is_given(standin: Standin, engine: str, run: Run) -> None:
    run(url=engine)
    refused = run(url=engine, validate_certs=True)
    assert "self-signed certificate: set ca_path to the authority" in refused["msg"]
    assert not run(url=engine, validate_certs=True, ca_path=str(standin.data / "certs/cert.pem")).get("failed")


def test_portainer_without_an_administrator_is_waited_for_and_then_named(stopped: Standin, run: Run) -> None:
    stopped.start(password=None)
    assert run(start_timeout=2)["msg"] == (
        f"{stopped.url} has no administrator: start Portainer with --admin-password-file (waited for 2 s)"
    )


def test_portainer_that_locked_itself_is_not_waited_for(stopped: Standin, run: Run) -> None:
    stopped.start(password=None, setup="standin.ADMINISTRATOR_DEADLINE = -1")
    assert f"{stopped.url} has locked itself" in run()["msg"]


def test_portainer_that_never_answers_is_named_with_its_url(stopped: Standin, run: Run) -> None:
    assert run(start_timeout=1)["msg"] == (
        f"GET {stopped.url}/api/users/admin/check: [Errno 111] Connection refused (waited for 1 s)"
    )


class Stranger(BaseHTTPRequestHandler):
    """A web server that is not Portainer."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"<html>hello</html>")


def test_another_server_in_portainers_place_is_found_out(run: Run) -> None:
    with HTTPServer(("127.0.0.1", 0), Stranger) as server:
        Thread(target=server.serve_forever).start()
        url = f"http://127.0.0.1:{server.server_port}"
        message = run(portainer_url=url)["msg"]
        server.shutdown()
    assert message == f"GET {url}/api/users/admin/check: the answer is not JSON: is this Portainer?"


def test_documentation_describes_the_arguments() -> None:
    documented = yaml.safe_load(portainer_environment.DOCUMENTATION)["options"]
    keys = ("type", "default", "choices", "required")
    expected = {
        name: {key: option[key] for key in keys if key in option}
        for name, option in portainer_environment.ARGUMENT_SPEC.items()
    }
    assert {
        name: {key: option[key] for key in keys if key in option} for name, option in documented.items()
    } == expected
