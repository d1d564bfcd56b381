"""Who can reach the stack, and what its containers may do."""

from __future__ import annotations

import json

import pytest
from stack import Stack

SERVICES = {"postgres", "ftp", "mlflow", "jupyter", "portainer", "serving-wine-quality"}
MLFLOW, JUPYTER, PORTAINER = "http://127.0.0.1:5000", "http://127.0.0.1:8888", "https://127.0.0.1:9443"
# Prints what the server answers to the name of its user.
PLAIN_LOGIN = """
import ftplib
connection = ftplib.FTP()
connection.connect("127.0.0.1", 2121, timeout=10)
try:
    print(connection.sendcmd("USER mlflow"))
except ftplib.Error as refusal:
    print(refusal)
"""
SEARCH = "/api/2.0/mlflow/experiments/search?max_results=1"


def test_all_services_run_and_are_healthy(stack: Stack) -> None:
    assert set(stack.services()) == SERVICES
    stack.wait_until_healthy()


def test_only_ssh_listens_beyond_the_host(stack: Stack) -> None:
    """An address of `ss` is ADDRESS:PORT; the address may have brackets and a %interface."""
    sockets = [line.split() for line in stack.run("ss --no-header --listening --tcp --udp --numeric").splitlines()]
    addresses = [fields[4] for fields in sockets]

    assert "127.0.0.1:5000" in addresses  # else there would be nothing to see
    assert {
        address for address in addresses if not address.startswith(("127.", "[::1]")) and not address.endswith(":22")
    } == set()


@pytest.mark.parametrize(
    ("url", "status"),
    [
        (f"{MLFLOW}{SEARCH}", 401),
        (f"{MLFLOW}/api/2.0/mlflow-artifacts/artifacts", 401),
        (f"{MLFLOW}/api/2.0/mlflow-artifacts/artifacts/0/any/file", 401),
        (f"{MLFLOW}/metrics", 401),
        (f"{JUPYTER}/api/contents", 403),
        (f"{PORTAINER}/api/endpoints", 401),
    ],
)
def test_strangers_are_refused(stack: Stack, url: str, status: int) -> None:
    assert stack.request("GET", url).status == status


def test_mlflow_knows_its_accounts_by_their_passwords(stack: Stack) -> None:
    password = stack.secrets()["mlflow_admin_password"]

    assert stack.request("GET", MLFLOW + SEARCH, account=f"admin:{password}").status == 200
    assert stack.request("GET", MLFLOW + SEARCH, account=f"admin:{password}x").status == 401
    assert stack.request("GET", MLFLOW + SEARCH, account="admin:password1234").status == 401  # MLflow's own


def test_mlflow_refuses_other_host_names_and_origins(stack: Stack) -> None:
    """As a browser would send them that another site has tricked."""
    account = f"admin:{stack.secrets()['mlflow_admin_password']}"
    create = f"{MLFLOW}/api/2.0/mlflow/experiments/create"

    assert stack.request("GET", MLFLOW + SEARCH, account=account, headers={"Host": "evil.example"}).status == 403
    assert (
        stack.request(
            "POST", create, account=account, body={"name": "evil"}, headers={"Origin": "https://evil.example"}
        ).status
        == 403
    )


def test_the_ftp_server_asks_for_tls_before_it_hears_a_password(stack: Stack) -> None:
    assert "TLS required" in stack.execute("ftp", "python3", "-c", PLAIN_LOGIN)


@pytest.mark.parametrize("service", ["jupyter", "serving-wine-quality", "portainer"])
def test_the_stores_are_out_of_reach_of_all_but_mlflow(stack: Stack, service: str) -> None:
    """Issue line B7. By address, as a container that is not in their network cannot look up their names."""
    networks = stack.services()["postgres"]["NetworkSettings"]["Networks"]
    address = networks["mlflow-stack_stores"]["IPAddress"]
    pid = str(stack.services()[service]["State"]["Pid"])
    connect = "import socket, sys; socket.create_connection((sys.argv[1], 5432), timeout=3)"

    assert list(networks) == ["mlflow-stack_stores"]
    mlflow = str(stack.services()["mlflow"]["State"]["Pid"])
    stack.run("nsenter --net --target %s python3 -c %s %s", mlflow, connect, address)
    with pytest.raises(AssertionError, match=r"TimeoutError|timed out|Network is unreachable|refused"):
        stack.run("nsenter --net --target %s python3 -c %s %s", pid, connect, address)


def test_portainer_shows_the_docker_of_the_host(stack: Stack) -> None:
    credentials = {"Username": "admin", "Password": stack.secrets()["portainer_admin_password"]}
    token = json.loads(stack.request("POST", f"{PORTAINER}/api/auth", body=credentials).body)["jwt"]
    bearer = {"Authorization": f"Bearer {token}"}
    environment = json.loads(stack.request("GET", f"{PORTAINER}/api/endpoints", headers=bearer).body)[0]
    info = json.loads(
        stack.request("GET", f"{PORTAINER}/api/endpoints/{environment['Id']}/docker/info", headers=bearer).body
    )

    assert info["Name"] == stack.run("hostname").strip()


def test_containers_have_no_more_rights_than_they_need(stack: Stack) -> None:
    """Seen on their main processes. Portainer is root by its nature, its socket makes it root on the host anyhow."""
    for service, container in stack.services().items():
        lines = stack.run("cat /proc/%s/status", str(container["State"]["Pid"])).splitlines()
        status = {key: value.split() for key, value in (line.split(":", 1) for line in lines)}

        assert status["NoNewPrivs"] == ["1"], service
        assert set(status["CapEff"] + status["CapBnd"]) == {"0" * 16}, service
        assert "0" not in status["Uid"] or service == "portainer", service
