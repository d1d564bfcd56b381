"""The gateway, as people, programs and strangers meet it from another host: this machine."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPSConnection
from pathlib import Path

import acme
import journeys
import pytest
from cryptography import x509
from door import DOORS, SEARCH, Door, Load, basic, opened
from stack import PROJECT, Answer, Stack, changes, wait_until
from test_example import MOVE, served_version

pytestmark = pytest.mark.once(where="bare")

# Logs a run with many artifacts by MLflow's own client, finds it again, and reads one back.
CLIENT = """
import pathlib, sys, tempfile
import mlflow
mlflow.set_experiment("through the gateway")
with tempfile.TemporaryDirectory() as directory, mlflow.start_run() as run:
    for number in range(200):
        (pathlib.Path(directory) / f"{number}.txt").write_text(str(number))
    mlflow.log_artifacts(directory, "many")
    mlflow.log_metric("loss", 0.5)
found = mlflow.search_runs(experiment_names=["through the gateway"], output_format="list")
back = mlflow.artifacts.load_text(f"runs:/{run.info.run_id}/many/199.txt")
print(len(found), back, len(mlflow.artifacts.list_artifacts(f"runs:/{run.info.run_id}/many")))
"""
# Sends a trace, whose spans go to /v1/traces, and finds it again.
TRACE = """
import time
import mlflow
experiment = mlflow.set_experiment("through the gateway").experiment_id
mlflow.trace(lambda: 1, name="seen through the gateway")()
mlflow.flush_trace_async_logging()
traces = mlflow.search_traces(locations=[experiment], return_type="list")
print(*(span.name for trace in traces for span in trace.data.spans))
"""
# Stores a file of 2 GiB, fetches it, and compares.
LARGE = """
import hashlib, pathlib, secrets, sys, tempfile
import mlflow
mlflow.set_experiment("through the gateway")
def digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
with tempfile.TemporaryDirectory() as directory, mlflow.start_run() as run:
    path = pathlib.Path(directory) / "large"
    with path.open("wb") as file:
        for _ in range(2048):
            file.write(secrets.token_bytes(2**20))
    mlflow.log_artifact(path)
    back = mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/large", dst_path=directory + "/back")
    print(digest(path) == digest(back))
"""
# Registers the champion's model once more, and prints its version and the new one.
AGAIN = """
import json, mlflow
champion = mlflow.MlflowClient().get_model_version_by_alias("wine-quality", "champion")
again = mlflow.register_model(champion.source, "wine-quality")
print(json.dumps([int(champion.version), int(again.version)]))
"""


@pytest.fixture(scope="module")
def door(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The deployment with a gateway, whose authority a client has fetched and compared."""
    with opened(stack, tmp_path_factory.mktemp("gateway")) as door:
        run = door.deploy()
        assert run.returncode == 0, run.stdout
        fetched = ssl._create_unverified_context()  # noqa: S323 (it is compared)
        with urllib.request.urlopen(f"https://{door.address}/authority.pem", context=fetched) as answer:
            door.authority.write_bytes(answer.read())
        assert hashlib.sha256(door.authority.read_bytes()).hexdigest() in run.stdout
        yield door
    assert changes(stack.deploy().stdout) == 0


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a browser, which has imported the authority."""
    return tmp_path_factory.mktemp("browser")


@pytest.fixture(scope="module")
def at_work(door: Door, home: Path) -> Iterator[Future[list[str]]]:
    """Somebody in Jupyter, whose kernel is idle for six minutes, while the tests go on."""
    with ThreadPoolExecutor() as threads:
        yield threads.submit(journeys.work_in_jupyter, door, home, 360)


@pytest.mark.usefixtures("at_work")
def test_a_second_run_changes_nothing(door: Door) -> None:
    run = door.deploy()
    assert (run.returncode, changes(run.stdout)) == (0, 0), run.stdout
    assert f"https://{door.address}:8443/wine-quality/invocations" in run.stdout
    assert "not reached" not in run.stdout


async def is_open(address: str, port: int, gate: asyncio.Semaphore) -> bool:
    async with gate:
        try:
            _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 5)
        except OSError:
            return False
        writer.close()
        return True


async def scan(address: str) -> set[int]:
    """The ports that are open."""
    gate = asyncio.Semaphore(500)
    answers = await asyncio.gather(*(is_open(address, port, gate) for port in range(1, 65536)))
    return {port for port, opened in enumerate(answers, start=1) if opened}


def test_nothing_else_listens(door: Door) -> None:
    assert asyncio.run(scan(door.address)) - {22} == {80, *DOORS.values()}


def test_plain_http_only_leads_to_the_start_page(door: Door) -> None:
    class Stay(urllib.request.HTTPRedirectHandler):
        def redirect_request(self, *_: object) -> None:
            return None

    with pytest.raises(urllib.error.HTTPError) as redirect:
        urllib.request.build_opener(Stay).open(f"http://{door.address}/a?b=c", timeout=10)
    assert (redirect.value.code, redirect.value.headers["Location"]) == (308, f"https://{door.address}/a?b=c")


@pytest.mark.parametrize("port", DOORS.values(), ids=DOORS)
def test_old_tls_and_other_names_are_refused(door: Door, port: int) -> None:
    old = ssl.create_default_context(cafile=str(door.authority))
    old.minimum_version, old.maximum_version = ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1
    old.set_ciphers("ALL:@SECLEVEL=0")  # or this side would refuse
    with (
        pytest.raises(ssl.SSLError, match="alert protocol version"),
        socket.create_connection((door.address, port), timeout=10) as connection,
    ):
        old.wrap_socket(connection, server_hostname=door.address)
    stranger = HTTPSConnection(door.address, port, context=door.tls, timeout=10)
    stranger.request("GET", "/", headers={"Host": "evil.example"})
    answer = stranger.getresponse()
    assert answer.status == 421
    for header in ("Strict-Transport-Security", "X-Content-Type-Options", "Referrer-Policy"):
        assert answer.headers[header]


def test_services_hear_who_asks_and_not_who_is_claimed(door: Door) -> None:
    assert door.ask("jupyter", "/api/contents", headers={"X-Forwarded-For": "192.0.2.77"}).status == 403
    asked = door.stack.run(f"docker logs --tail 100 {PROJECT}-gateway 2>&1 | grep ' jupyter/' | tail -n 1").split()[0]
    logged = door.stack.run(f"docker logs --tail 100 {PROJECT}-jupyter 2>&1 | grep 'GET /api/contents'")
    assert asked in logged
    assert "192.0.2.77" not in logged


def test_start_page_is_whole_and_tells_no_more_than_states(door: Door) -> None:
    page = door.ask("start")
    assert page.status == 200
    addresses = re.findall(r"""(?:src|href)=["'](?:https?:)?//([^:/"']+)""", page.body)
    assert set(addresses) == {door.address}
    for service in ("mlflow", "jupyter", "portainer"):
        assert f"https://{door.address}:{DOORS[service]}/" in page.body
    states = json.loads(door.ask("start", "/state.json").body)
    assert set(states) == {"mlflow", "jupyter", "portainer", "model-wine-quality", "since"}
    assert states["mlflow"]["up"] is True
    assert set(states["mlflow"]) == {"up", "ms"}
    assert door.ask("start", "/stats").status == 404


@pytest.mark.parametrize("width", [1280, 390])
def test_start_page_is_for_desks_and_phones(door: Door, home: Path, width: int) -> None:
    assert journeys.look_at_start_page(door, home, width) == []


def test_mlflow_is_worked_with_in_a_browser(door: Door, home: Path) -> None:
    assert journeys.work_in_mlflow(door, home, f"by-port-{secrets.token_hex(3)}") == []


def test_strangers_are_refused(door: Door) -> None:
    assert door.ask("mlflow", SEARCH).status == 401
    assert door.ask("mlflow", "/api/3.0/mlflow/server-info").status == 401
    assert door.ask("jupyter", "/api/contents").status == 403
    assert door.ask("portainer", "/api/endpoints").status == 401
    for path in ("/metrics", "//metrics", "/%6detrics", "/metrics/"):
        assert (
            door.ask("mlflow", path, headers=basic("admin", door.stack.secrets()["mlflow_admin_password"])).status
            == 404
        )


def ask_by_client(door: Door, program: str, home: Path) -> list[str]:
    """What MLflow's own client prints."""
    client = subprocess.run([sys.executable, "-c", program], env=door.settings(home), capture_output=True, text=True)
    assert client.returncode == 0, client.stderr
    return client.stdout.split()


def test_what_is_large_and_no_file_is_not_taken_from_strangers(door: Door) -> None:
    """MLflow would keep it in memory before it asks who it is."""
    for path in ("/api/2.0/mlflow/runs/create", "/api/2.0/mlflow-artifacts/artifacts/x"):
        for headers, status in (
            ({"Content-Length": "100000"}, 401),
            ({"Transfer-Encoding": "chunked"}, 411),
            ({"Content-Length": "40000000", **basic("admin", "x")}, 413),
        ):
            assert door.ask("mlflow", path, method="POST", headers=headers).status == status


def test_a_connection_has_one_request_at_a_time_and_a_request_one_login(door: Door) -> None:
    """HTTP/2 begins with this, whatever the handshake said; and of two logins MLflow could take the other one."""
    login = f"Authorization: {basic('admin', 'x')['Authorization']}\r\n"
    for sent in ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", f"GET / HTTP/1.1\r\nHost: {door.address}\r\n{login}{login}\r\n"):
        with socket.create_connection((door.address, DOORS["mlflow"]), timeout=30) as connection:
            tls = door.tls.wrap_socket(connection, server_hostname=door.address)
            tls.sendall(sent.encode())
            assert tls.recv(1 << 12).startswith(b"HTTP/1.1 400 ")


def test_mlflows_own_client_needs_the_authority_only(door: Door, tmp_path: Path) -> None:
    assert ask_by_client(door, CLIENT, tmp_path)[-2:] == ["199", "200"]


def test_traces_come_through(door: Door, tmp_path: Path) -> None:
    assert "seen through the gateway" in " ".join(ask_by_client(door, TRACE, tmp_path))
    assert re.search(r" POST /v1/traces ", door.stack.run(f"docker logs {PROJECT}-gateway"))


def test_a_large_file_comes_through_and_stays_nowhere(door: Door, tmp_path: Path) -> None:
    assert "True" in ask_by_client(door, LARGE, tmp_path)
    peaks = door.stack.run(
        "sh -c %s",
        f"docker top {PROJECT}-gateway -eo pid | grep -v PID | sed 's,.*,/proc/&/status,' | xargs grep VmHWM",
    )
    assert sum(int(kib) for kib in re.findall(r"VmHWM:\s+(\d+) kB", peaks)) < 100 * 1024, peaks


def test_a_model_answers_who_has_its_token(door: Door) -> None:
    token = door.stack.secrets()[f"token_wine-quality_{PROJECT}"]
    assert list(json.loads(door.predict(token).body)) == ["predictions"]
    for wrong in (token[:-1], token.upper(), "", "x" * 3000):
        answer = door.predict(wrong)
        assert (answer.status, json.loads(answer.body)["error_code"]) == (401, "UNAUTHENTICATED")
    assert door.ask("models", "/wine-quality/ping", headers={"Authorization": f"Bearer {token}"}).status == 200
    assert door.ask("models", "/other/ping", headers={"Authorization": f"Bearer {token}"}).status == 401
    assert door.ask("models", "/wine-quality/ping").status == 401


def test_a_model_answers_so_many_requests_at_a_time(door: Door) -> None:
    """The one that it answers is still being sent; the next one is told so, until that has ended."""
    run = door.deploy("site.yml", "gateway", gateway_model_requests=1)
    assert run.returncode == 0, run.stdout
    token = door.stack.secrets()[f"token_wine-quality_{PROJECT}"]
    with contextlib.closing(door.connect("models")) as connection:
        connection.putrequest("POST", "/wine-quality/invocations")
        for header, value in (("Authorization", f"Bearer {token}"), ("Content-Length", "100000")):
            connection.putheader(header, value)
        connection.endheaders(b" " * 50_000)  # more than the gateway keeps before it passes it on
        wait_until(lambda: door.predict(token).status == 429, 20)
        assert "1 requests at a time" in door.predict(token).body
    wait_until(lambda: door.predict(token).status == 200, 20)
    assert door.deploy("site.yml", "gateway").returncode == 0


def ask_until_refused(door: Door, token: str) -> set[int]:
    """What a program hears that keeps its connection."""
    heard: set[int] = set()
    with contextlib.closing(door.connect("models")) as connection:
        for _ in range(600):
            connection.request("GET", "/wine-quality/ping", headers={"Authorization": f"Bearer {token}"})
            answer = connection.getresponse()
            answer.read()
            heard.add(answer.status)
            if answer.status == 401:
                break
            time.sleep(1)
    return heard


def test_people_and_programs_come_and_go_without_a_failed_request(door: Door) -> None:
    """A program's own token and a colleague's account, given and taken back, while others go on."""
    token = "a-token-of-the-tests-for-ci"
    clients = [{"name": "ci", "model": "wine-quality", "token": token}]
    model = {"model": "wine-quality", "alias": "champion"}
    models = [model | {"name": "wine-quality", "port": 5002}, model | {"name": "wine-too", "port": 5003}]
    started = {service: door.stack.started_at()[service] for service in ("gateway", "mlflow", "serving-wine-quality")}
    with Load(door) as load, ThreadPoolExecutor() as threads:
        given = door.deploy(gateway_clients=clients, mlflow_users=[{"name": "ada"}], serving_models=models)
        assert given.returncode == 0, given.stdout
        assert door.predict(token).status == 200
        own = {"Authorization": f"Bearer {door.stack.secrets()[f'token_wine-too_{PROJECT}']}"}
        assert door.ask("models", "/wine-too/ping", headers=own).status == 200
        ada = basic("ada", door.stack.secrets()["mlflow_user_ada"])
        body = json.dumps({"name": f"of ada {secrets.token_hex(4)}"}).encode()
        headers = ada | {"Content-Type": "application/json"}
        made = door.ask("mlflow", "/api/2.0/mlflow/experiments/create", method="POST", headers=headers, body=body)
        assert made.status == 200
        told = threads.submit(ask_until_refused, door, token)
        taken = door.deploy(mlflow_users=[{"name": "ada", "state": "absent"}])
        assert taken.returncode == 0, taken.stdout
        assert door.predict(token).status == 401
        assert told.result(60) == {200, 401}
        assert door.ask("mlflow", SEARCH, headers=ada).status in (401, 404)  # it remembers passwords for a minute
    assert list(load.answers) == ["200"], load.answers
    assert {service: door.stack.started_at()[service] for service in started} == started


def test_what_is_served_changes_without_a_failed_request(door: Door) -> None:
    """Issue line 13.6: another version is promoted, then the one before is by hand, in a container of another size."""
    champion, again = door.stack.python(AGAIN)
    with Load(door) as load:
        promoted = door.deploy("playbooks/promote.yml", model="wine-quality", version=again)
        assert promoted.returncode == 0, promoted.stdout
        assert served_version(door.stack) == str(again)
        door.stack.python(MOVE, str(champion))
        larger = door.deploy(serving_memory_mb=800)
        assert larger.returncode == 0, larger.stdout
        assert served_version(door.stack) == str(champion)
    assert list(load.answers) == ["200"], load.answers
    names = door.stack.run("docker ps --all --format '{{.Names}}'").split()
    assert not [name for name in names if name.endswith(("-candidate", "-previous"))]


def test_jupyter_is_worked_with_in_a_browser(at_work: Future[list[str]]) -> None:
    """From top to bottom, and on after six minutes in which nothing was said."""
    assert at_work.result() == []


def test_what_haproxy_refuses_is_not_taken_over(door: Door) -> None:
    """Written by another hand; the next run writes it as it shall be, and all the while the gateway answers."""
    path = f"/etc/{PROJECT}/gateway/current/haproxy.cfg"
    with Load(door) as load:
        door.stack.run("sh -c %s", f"echo nonsense >> {path}")
        wait_until(lambda: "refuses" in door.stack.run(f"docker exec {PROJECT}-gateway gateway health || true"), 20)
        run = door.deploy("site.yml", "gateway")
        assert run.returncode == 0, run.stdout
        assert "nonsense" not in door.stack.run(f"cat {path}")
        door.stack.execute("gateway", "gateway", "health")
    assert list(load.answers) == ["200"], load.answers


def test_it_begins_with_what_has_worked(door: Door) -> None:
    """As after a run that was killed once the link led to what HAProxy refuses, and a restart of the host."""
    directory, known = f"/etc/{PROJECT}/gateway", door.stack.secrets()["jupyter_mlflow_password"]
    door.stack.run("sh -c %s", f"cd {directory} && cp --archive --dereference worked 00112233445566aa")
    door.stack.run("sh -c %s", f"cd {directory} && echo nonsense >> 00112233445566aa/haproxy.cfg")
    door.stack.run(f"ln --symbolic --force --no-dereference 00112233445566aa {directory}/current")
    door.stack.run(f"docker restart {PROJECT}-gateway")
    wait_until(lambda: "refuses" in door.stack.run(f"docker exec {PROJECT}-gateway gateway health || true"), 20)
    assert door.ask("mlflow", SEARCH, headers=basic("jupyter", known)).status == 200
    run = door.deploy("site.yml", "gateway")
    assert run.returncode == 0, run.stdout
    door.stack.execute("gateway", "gateway", "health")
    assert "00112233445566aa" not in door.stack.run(f"ls {directory}").split()
    assert changes(door.deploy("site.yml", "gateway").stdout) == 0


def test_who_says_nothing_is_not_waited_for(door: Door) -> None:
    with socket.create_connection((door.address, 443), timeout=20) as connection:
        assert connection.recv(1) == b""


@pytest.fixture(scope="module")
def by_name(door: Door) -> Iterator[Door]:
    """The same door by names, which the host does not know yet."""
    door.stack.run("cp /etc/hosts /etc/hosts.before")
    yield replace(door, domain="platform.test")
    door.stack.run("cp /etc/hosts.before /etc/hosts")


def test_each_service_has_a_name_of_its_own_in_the_form_names(door: Door, by_name: Door) -> None:
    refused = by_name.deploy()
    assert refused.returncode != 0
    assert "does not know all of platform.test" in refused.stdout
    assert "Nothing was changed" in refused.stdout
    names = ["platform.test", *(f"{service}.platform.test" for service in DOORS)]
    door.stack.run("sh -c %s", f"echo {door.address} {' '.join(names)} >> /etc/hosts")
    run = by_name.deploy()
    assert run.returncode == 0, run.stdout
    assert "https://models.platform.test/wine-quality/invocations" in run.stdout
    assert changes(by_name.deploy().stdout) == 0
    account = basic("jupyter", door.stack.secrets()["jupyter_mlflow_password"])
    assert by_name.ask("mlflow", SEARCH, headers=account).status == 200
    assert by_name.ask("jupyter", "/api").status == 200
    assert by_name.ask("start").status == 200
    assert by_name.predict(door.stack.secrets()[f"token_wine-quality_{PROJECT}"]).status == 200
    assert asyncio.run(scan(door.address)) - {22} == {80, 443}


def test_browsers_work_by_names(by_name: Door, home: Path) -> None:
    assert journeys.look_at_start_page(by_name, home, 1280) == []
    assert journeys.work_in_mlflow(by_name, home, f"by-name-{secrets.token_hex(3)}") == []
    assert journeys.work_in_jupyter(by_name, home) == []


def test_who_guesses_has_to_wait(door: Door) -> None:
    door = replace(door, domain="platform.test")  # as the test before has left it
    known = basic("jupyter", door.stack.secrets()["jupyter_mlflow_password"])
    assert door.ask("mlflow", SEARCH, headers=known).status == 200
    asked_first = {"Origin": door.url("mlflow"), "Access-Control-Request-Method": "POST"} | basic("admin", "wrong-12")
    assert door.ask("mlflow", SEARCH, method="OPTIONS", headers=asked_first).status == 200  # which lets nobody in
    answers = [door.ask("mlflow", SEARCH, headers=basic("admin", f"wrong-{number}")).status for number in range(13)]
    assert answers[:9] == [401] * 9
    assert answers[-1] == 429
    assert door.ask("mlflow", SEARCH, headers=basic("admin", "x") | {"X-Forwarded-For": "192.0.2.1"}).status == 429
    assert door.ask("mlflow", "/health").status == 200  # not a login
    assert door.ask("mlflow", SEARCH, headers=known).status == 200  # a colleague behind the same address
    other = {"X-MLflow-Authorization": basic("admin", "y")["Authorization"]}
    for headers in (basic("admin", "y"), other, known | other):  # nor does who is let in carry a guess of another
        assert door.ask("mlflow", SEARCH, headers=headers).status == 429
    page = door.ask("mlflow", "/", headers=known)
    assert page.status == 200
    assert [door.predict(f"wrong-{number}").status for number in range(13)][-1] == 429
    assert door.predict(door.stack.secrets()[f"token_wine-quality_{PROJECT}"]).status == 200
    assert door.ask("start").status == 200


def test_who_guesses_at_jupyter_has_to_wait(door: Door) -> None:
    """As its page does it, and by a header."""
    door = replace(door, domain="platform.test")
    connection = door.connect("jupyter")
    connection.request("GET", "/login")
    page = connection.getresponse()
    page.read()
    xsrf = re.findall(r"_xsrf=([^;]+)", page.headers["Set-Cookie"])[0]
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Cookie": f"_xsrf={xsrf}"}
    answers = [
        door.ask(
            "jupyter", "/login", method="POST", headers=headers, body=f"_xsrf={xsrf}&password=wrong-{number}".encode()
        ).status
        for number in range(13)
    ]
    assert answers[:9] == [401] * 9
    assert answers[-1] == 429
    assert door.ask("jupyter", "/api/contents", headers={"Authorization": "token wrong"}).status == 429
    assert door.ask("jupyter", "/api").status == 200  # not a login


def test_who_guesses_at_portainer_has_to_wait(door: Door) -> None:
    """One by one; and a burst is nothing that Portainer would shut the gateway out for, with everybody behind it."""
    door = replace(door, domain="platform.test")
    headers = {"Content-Type": "application/json"}
    body = json.dumps({"username": "admin", "password": "wrong"}).encode()

    def guess(path: str = "/api/auth") -> Answer:
        return door.ask("portainer", path, method="POST", headers=headers, body=body)

    for path, status in (("/api/auth", 422), ("/api/auth/oauth/validate", 404)):
        wait_until(lambda p=path, s=status: guess(p).status == s, 20)  # type: ignore[misc]
        with ThreadPoolExecutor(8) as threads:
            burst = {answer.status for answer in threads.map(guess, [path] * 40)}
        assert burst == {status, 429}
    wait_until(lambda: "were refused" in guess().body, 20)
    assert door.ask("portainer", "/api/system/status").status == 200


def certificate(door: Door) -> x509.Certificate:
    """What the gateway shows, as a client that verifies it sees it."""
    with socket.create_connection((door.address, 443), timeout=30) as connection:
        tls = door.tls.wrap_socket(connection, server_hostname=door.domain)
        return x509.load_der_x509_certificate(tls.getpeercert(binary_form=True) or b"")


def processes(door: Door) -> str:
    """Those of HAProxy; a reload makes a new one."""
    return door.stack.run(f"docker top {PROJECT}-gateway -eo pid,args | grep -w haproxy")


def test_certbot_obtains_a_certificate_and_renews_it_without_a_failed_request(by_name: Door, tmp_path: Path) -> None:
    with acme.running(tmp_path, by_name.address) as authority:
        settings = {
            "gateway_tls": "acme",
            "gateway_authority_file": str(authority.root),
            "certbot_email": "ops@platform.test",
            "certbot_server": authority.directory,
            "certbot_authority_file": str(authority.own),
            "gateway_refused_logins": 1000,  # the test before has guessed
        }
        run = by_name.deploy(**settings)
        assert run.returncode == 0, run.stdout
        door = replace(by_name, authority=authority.root)
        first = certificate(door)
        names = first.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert {*names.get_values_for_type(x509.DNSName)} >= {"platform.test", "mlflow.platform.test"}
        ran = processes(door)
        with Load(door) as load:
            wait_until(lambda: certificate(door).serial_number != first.serial_number, acme.LIFETIME)
            wait_until(lambda: load.answers.total() > 1000, 30)
        assert list(load.answers) == ["200"], load.answers
        assert processes(door) == ran
        again = by_name.deploy("site.yml", "gateway", **settings)
        assert (again.returncode, changes(again.stdout)) == (0, 0), again.stdout
        door.stack.run(f"docker restart {PROJECT}-gateway")
        door.stack.wait_until_healthy()
        known = basic("jupyter", door.stack.secrets()["jupyter_mlflow_password"])
        assert door.ask("mlflow", SEARCH, headers=known).status == 200

        door.stack.run(f"docker stop {PROJECT}-certbot")
        with pytest.raises(urllib.error.HTTPError) as away:
            urllib.request.urlopen(f"http://{door.address}/.well-known/acme-challenge/x", timeout=30)
        assert away.value.code == 503

    refused = by_name.deploy("site.yml", "gateway", **settings | {"certbot_email": "others@platform.test"})
    assert refused.returncode != 0
    assert "certbot" in refused.stdout
    assert "Connection refused" in refused.stdout
