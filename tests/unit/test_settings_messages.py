"""What the preflight says of settings that cannot work, word for word, and what it lets pass."""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import datetime, tzinfo
from pathlib import Path
from typing import Any, Self

import pytest
import yaml
from lookups import REPO, lookup
from settings_harness import OPTIONS, Inventory
from validate_settings import HANDED_OVER, KINDS, KINDS_OF_TYPES, TYPES, nearest, refuse_names

ADMIN = {"username": "admin", "password": "a good password", "admin": True}
MODEL = {"name": "wine-quality", "model": "wine-quality", "alias": "champion", "port": 5002}


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"))


def accounts(inventory: Inventory, *others: dict[str, Any], without: str = "") -> list[dict[str, Any]]:
    """The accounts that there are by default, but one, and more."""
    return [account for account in inventory.values["mlflow_accounts"] if account["username"] != without] + [*others]


@pytest.fixture(scope="module")
def with_gateway(tmp_path_factory: pytest.TempPathFactory) -> Inventory:
    return Inventory(tmp_path_factory.mktemp("inventory"), gateway=True)


def test_public_urls_are_as_browsers_say_them(with_gateway: Inventory) -> None:
    """MLflow and Portainer compare them with what a browser says a page is of: no port where it is the usual one."""
    given = {"stack_public_name": "ml.example.org", "gateway_port": 8000, "gateway_mlflow_port": 443}
    urls = with_gateway.compute(["stack_public_urls"], given)["stack_public_urls"]
    assert (urls["start"], urls["mlflow"]) == ("https://ml.example.org:8000", "https://ml.example.org")
    assert with_gateway.compute(["mlflow_cors_allowed_origins"], given) == {
        "mlflow_cors_allowed_origins": ["https://ml.example.org"]
    }


def test_the_defaults_pass(inventory: Inventory) -> None:
    assert inventory.refusals({}) == []


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("mlflow_port", 0, "mlflow_port is 0: it must be a port from 1 to 65535."),
        ("mlflow_port", -1, "mlflow_port is -1: it must be a port from 1 to 65535."),
        ("mlflow_port", "70000", "mlflow_port is 70000: it must be a port from 1 to 65535."),
        ("mlflow_port", "5000 ", 'mlflow_port is "5000 ": it must be a whole number, without quotes.'),
        ("mlflow_port", None, "mlflow_port is null: it must be a whole number."),
        ("mlflow_port", True, "mlflow_port is true: it must be a whole number."),
        ("mlflow_port", 5000.0, "mlflow_port is 5000.0: it must be a whole number."),
        ("jupyter_port", 5000, "jupyter_port is 5000, and so is mlflow_port: give each a port of its own."),
        (
            "serving_models",
            [MODEL, MODEL | {"name": "other"}],
            "the port of other in serving_models is 5002, and so is the port of wine-quality in serving_models: "
            "give each a port of its own.",
        ),
        (
            "serving_models",
            [MODEL, MODEL | {"port": 5003}],
            "serving_models has 2 entries with the name wine-quality: give each its own.",
        ),
        (
            "serving_models",
            [MODEL | {"model": "wine/quality"}],
            'serving_models, entry 1, model, is "wine/quality": it must be the name of a registered model, '
            "of letters, digits, blanks and _ . - + ( ).",
        ),
        (
            "serving_models",
            [MODEL | {"prot": 1}],
            'serving_models, entry 1, has "prot", which is unknown (did you mean port?): '
            "it may have name, model, alias, port.",
        ),
        (
            "serving_models",
            [{key: MODEL[key] for key in ("name", "model", "alias")}],
            "serving_models, entry 1, lacks port: Port on the host.",
        ),
        (
            "serving_models",
            [MODEL | {"port": "5002"}],
            'serving_models, entry 1, port, is "5002": it must be a whole number, without quotes.',
        ),
        ("ftp_password", 123456789012, "ftp_password is a number: it must be text, so put it in quotes."),
        ("ftp_password", True, "ftp_password is true or false: it must be text, so put it in quotes."),
        ("ftp_password", None, "ftp_password is null: it must be text, so put it in quotes."),
        ("ftp_password", "", "ftp_password is empty: set it, or leave it out."),
        ("ftp_password", "short", "ftp_password has 5 characters and needs 12: set a longer one."),
        ("ftp_password", "x" * 257, "ftp_password has 257 bytes and must not have more than 256: set a shorter one."),
        ("ftp_password", "twelve\tletters", "ftp_password has a character that cannot be seen (U+0009): take it out."),
        ("ftp_password", "twelve\nletters", "ftp_password has a character that cannot be seen (U+000A): take it out."),
        (
            "ftp_password",
            " twelve letters",
            "ftp_password begins or ends with a blank, which not all programs keep: take it away.",
        ),
        (
            "portainer_admin_password",
            "ü" * 40,
            "portainer_admin_password has 80 bytes and must not have more than 72: set a shorter one.",
        ),
        ("mlflow_workers", "many", 'mlflow_workers is "many": it must be a whole number, without quotes.'),
        ("mlflow_workers", 99, "mlflow_workers is 99: it must be a whole number from 1 to 16."),
        (
            "mlflow_workers",
            16,
            "mlflow_memory_mb is 2048 and 16 processes (mlflow_workers) need 2304: raise it, or lower mlflow_workers.",
        ),
        (
            "mlflow_metrics_enabled",
            "never",
            'mlflow_metrics_enabled is "never": it must be true or false, without quotes.',
        ),
        ("mlflow_allowed_hosts", "localhost", 'mlflow_allowed_hosts is "localhost": it must be a list, as [one, two].'),
        (
            "mlflow_allowed_hosts",
            ["mlflow.example.org:5000"],
            'mlflow_allowed_hosts, entry 1, is "mlflow.example.org:5000": it must be a host\'s name or address in '
            "small letters, without a port, as browsers send it (xn--… for other letters).",
        ),
        ("image_origin", "elsewhere", 'image_origin is "elsewhere": it must be one of auto, upstream, distro.'),
        (
            "mlflow_bind_address",
            "localhost",
            'mlflow_bind_address is "localhost": it must be an IPv4 address, as 127.0.0.1 or 0.0.0.0.',
        ),
        ("postgres_settings", [], "postgres_settings is []: it must be a mapping, as {name: value}."),
        (
            "postgres_settings",
            {"work-mem": 1},
            'postgres_settings has "work-mem": it must have names of settings as in postgresql.conf, in lower case.',
        ),
        (
            "postgres_settings",
            {"work_mem": None},
            "postgres_settings has work_mem as null: it must be text on one line, a number, true or false.",
        ),
        (
            "postgres_settings",
            {"port": 5433},
            "postgres_settings has port, which the deployment sets itself: take it out.",
        ),
        (
            "stack_name",
            "My Stack",
            'stack_name is "My Stack": it must be 1 to 40 small letters, digits, _ or -, with a letter or digit first.',
        ),
        (
            "ftp_passive_ports",
            [30000],
            "ftp_passive_ports is [30000]: it must be two ports, the first and the last, as [30000, 30099].",
        ),
        (
            "image_archives_dir",
            "/nowhere",
            'image_archives_dir is "/nowhere", which is no directory on the control node: make it, or unset it.',
        ),
        (
            "container_project",
            "other",
            "container_project is other and stack_name is mlflow-stack: set stack_name alone.",
        ),
        (
            "docker_firewall_project",
            "other",
            "docker_firewall_project is other and stack_name is mlflow-stack: set stack_name alone.",
        ),
        (
            "jupyter_mlflow_password",
            "mlflow_accounts has another",
            "",
        ),
    ],
)
def test_what_is_said_of_one_setting(inventory: Inventory, name: str, value: object, sentence: str) -> None:
    """Issue line C."""
    assert inventory.refusals({name: value}) == [sentence] * bool(sentence)


def test_a_name_that_nobody_could_look_up_is_refused(inventory: Inventory) -> None:
    given = {
        "stack_name": "a-platform-of-many-words",
        "serving_models": [MODEL | {"name": "the-quality-of-wine-in-many-words"}],
    }
    assert inventory.refusals(given) == [
        "serving_models has the-quality-of-wine-in-many-words, which is asked as a-platform-of-many-words-serving-the-"
        "quality-of-wine-in-many-words, and a host's name has at most 63 characters: shorten it, or stack_name."
    ]


SHARED = "/ /etc /srv /home /var /usr /opt /root /tmp /mlflow-stack /home/anna /var/lib /usr/local"
FOREIGN = "/tmp/x /run/x /proc/1 /etc/docker /var/lib/docker /var/lib/docker/volumes"  # noqa: S108 (none is used)
NO_PATH = [
    "",
    " ",
    "etc/mlflow-stack",
    "/etc/mlflow-stack/",
    "//etc/x",
    "/etc/../srv/x",
    "/etc/./x",
    "/srv/a b",
    "/srv/a:b",
]


@pytest.mark.parametrize("root", [*SHARED.split(), *FOREIGN.split(), *NO_PATH])
def test_a_root_that_is_not_the_deployments_own(inventory: Inventory, root: str) -> None:
    """Issue line B4."""
    refusals = inventory.refusals({"stack_config_root": root})
    assert [refusal.split()[0] for refusal in refusals] == ["stack_config_root"]


@pytest.mark.parametrize(
    "root", ["/etc/mlflow-stack", "/srv/mlflow", "/opt/ml/config", "/home/anna/mlflow", "/var/lib/mlflow"]
)
def test_a_root_of_its_own(inventory: Inventory, root: str) -> None:
    assert inventory.refusals({"stack_config_root": root}) == []


def test_accounts(inventory: Inventory) -> None:
    """Issue line C: no administrator, alike, short or missing passwords, admin: "no", without those of services."""

    def said(accounts: object) -> list[str]:
        return inventory.refusals({"mlflow_accounts": accounts})

    assert said(accounts(inventory, {"username": "anna", "password": 'it\'s "100%" \\o/ #;', "admin": False})) == []
    assert said([]) == ["mlflow_accounts is empty: set it, or leave it out."]
    assert said(accounts(inventory, without="admin")) == [
        "mlflow_accounts has no administrator: give one account admin: true."
    ]
    assert said(accounts(inventory, ADMIN)) == ["mlflow_accounts has 2 entries for admin: leave one."]
    assert said(accounts(inventory, without="serving")) == [
        "mlflow_accounts lacks serving, the account of serving_mlflow_user: "
        "add it, or set serving_mlflow_user to one that is there."
    ]
    assert said(
        accounts(inventory, {"username": "jupyter", "password": "another password", "admin": False}, without="jupyter")
    ) == [
        "jupyter_mlflow_password is not the password that mlflow_accounts has for jupyter: set both alike.",
        "example_mlflow_password is not the password that mlflow_accounts has for jupyter: set both alike.",
    ]
    assert said([ADMIN | {"password": "x"}]) == [
        "mlflow_accounts, entry 1, password, has 1 characters and needs 12: set a longer one."
    ]
    assert said([ADMIN | {"password": 123456789012}]) == [
        "mlflow_accounts, entry 1, password, is a number: it must be text, so put it in quotes."
    ]
    assert said([ADMIN | {"password": "zwölf Buchstaben"}]) == [
        "mlflow_accounts, entry 1, password, has letters beyond ASCII, "
        "which MLflow refuses on its routes for artifacts: use others."
    ]
    assert said([{"username": "admin", "admin": True}]) == [
        "mlflow_accounts, entry 1, lacks password: Its password, of at least 12 characters."
    ]
    assert said([ADMIN | {"admin": "no"}]) == [
        "mlflow_accounts, entry 1, admin, is text: it must be true or false, without quotes."
    ]
    assert said([ADMIN | {"username": "a:b"}]) == [
        "mlflow_accounts, entry 1, username, is not as it should be: "
        "it must be an account's name in ASCII, without a colon and blanks at its ends."
    ]


def test_a_fault_is_told_once(inventory: Inventory) -> None:
    """What is computed from a bad setting is not refused too; all bad ones are told at once."""
    assert inventory.refusals({"mlflow_port": 70000, "ftp_password": "short", "mlflow_workers": 0}) == [
        "ftp_password has 5 characters and needs 12: set a longer one.",
        "mlflow_port is 70000: it must be a port from 1 to 65535.",
        "mlflow_workers is 0: it must be a whole number from 1 to 16.",
    ]


def test_ports_alike_on_addresses_of_their_own(inventory: Inventory) -> None:
    assert inventory.refusals({"jupyter_port": 5000, "jupyter_bind_address": "127.0.0.2"}) == []
    assert len(inventory.refusals({"jupyter_port": 5000, "jupyter_bind_address": "0.0.0.0"})) == 1


def test_secrets_that_are_open_to_others(tmp_path: Path) -> None:
    """Issue line C: a world-writable secrets directory."""
    inventory = Inventory(tmp_path)
    secrets = tmp_path / "secrets"
    assert inventory.refusals({}) == []
    secrets.chmod(0o777)
    (secrets / "ftp_password.txt").chmod(0o640)
    assert inventory.refusals({}) == [
        f"{secrets} (stack_secrets_dir) is open to others than its owner (mode 0777): chmod 700 {secrets}",
        f"{secrets}/ftp_password.txt (stack_secrets_dir) is open to others than its owner (mode 0640): "
        f"chmod 600 {secrets}/ftp_password.txt",
    ]


def test_no_secret_is_told(inventory: Inventory) -> None:
    """A bad value of a variable with no_log is in none of the sentences."""
    secret = "Xyzzy\n"
    for name, option in OPTIONS.items():
        if option.get("no_log") and name not in HANDED_OVER:
            values = [secret, [secret], {"password": secret}, [{"username": "x", "password": secret, "admin": secret}]]
            assert [s for value in values for s in inventory.refusals({name: value}) if "Xyzzy" in s] == []


def test_names_that_nothing_knows() -> None:
    """Issue line C: a misspelt variable."""
    given = ["mlflow_prot", "ansible_host", "my_port", "mlflow_port", "docker_users", "image_name", "__mlflow_x"]
    assert list(refuse_names(given, ["mlflow_port", "mlflow_workers"], ["mlflow", "docker"], ["docker_users"])) == [
        "image_name is set, and is no setting, roles hand it to each other: take it away.",
        "mlflow_prot is set, and nothing knows it (did you mean mlflow_port?): correct its name, or, if it is one of "
        "your own, put it into the list stack_other_variables.",
    ]
    assert nearest("docker_compose_version", ["mlflow_port"]) == ""


def test_every_type_and_every_kind_is_in_use() -> None:
    """An option of a type that is not checked would be let pass, and a kind that nothing has would be dead."""
    from fnmatch import fnmatchcase

    names = {*OPTIONS, *(f"{name}.{key}" for name, option in OPTIONS.items() for key in option.get("options", {}))}
    assert {option["type"] for option in OPTIONS.values()} <= set(TYPES)
    assert {option["elements"] for option in OPTIONS.values() if option["type"] == "list"} <= set(KINDS_OF_TYPES)
    assert [kind for kind in KINDS if not any(fnmatchcase(name, kind) for name in names)] == []


PLAYBOOK = """
- hosts: all
  gather_facts: false
  tasks:
    - validate_settings:
"""


def preflight(inventory: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run the action in a play of the project, with a group for each service."""
    playbook = REPO / "playbooks" / f".{inventory.name}.yml"
    (inventory / "hosts.yml").write_text(
        yaml.safe_dump(
            {"all": {"hosts": {"here": {"ansible_connection": "local"}}, "children": {"ours": {"hosts": {"here": {}}}}}}
        )
    )
    playbook.write_text(PLAYBOOK)
    try:
        command = [sys.executable, "-m", "ansible.cli.playbook", "-i", str(inventory), *options, str(playbook)]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, check=False)
    finally:
        playbook.unlink()


def test_in_a_playbook(tmp_path: Path) -> None:
    """Variables of files, of the inventory itself and of the command line are looked at; nothing is generated."""
    (tmp_path / "group_vars").mkdir()
    (tmp_path / "host_vars").mkdir()
    (tmp_path / "group_vars/ours.yml").write_text("mlflow_prot: 1\nmlflow_memory_mb: none\n")
    (tmp_path / "host_vars/here.yml").write_text("jupyter_prot: 1\n")
    (tmp_path / "secrets").mkdir(mode=0o700)
    (tmp_path / "secrets/ftp_password.txt").write_text("one\ntwo\n")
    (tmp_path / "secrets/ftp_password.txt").chmod(0o600)

    answer = preflight(tmp_path, "-e", "serving_mdoels=1", "-e", '{"ftp_usr": "x"}', "-e", "jupyter_password='a{{b}}c'")

    words = " ".join((answer.stdout + answer.stderr).split())
    assert answer.returncode == 2
    for part in (
        "mlflow_prot is set, and nothing knows it (did you mean mlflow_port?)",
        "jupyter_prot is set, and nothing knows it (did you mean jupyter_port?)",
        "serving_mdoels is set, and nothing knows it (did you mean serving_models?)",
        "ftp_usr is set, and nothing knows it (did you mean ftp_user?)",
        'mlflow_memory_mb is "none": it must be a whole number, without quotes.',
        f"The secret {tmp_path}/secrets/ftp_password.txt has several lines",
        "jupyter_password cannot be computed: 'b' is undefined. Text with {{ or {% in it is written with the tag",
    ):
        assert part in words
    assert len({line for line in answer.stdout.splitlines() if line.lstrip().startswith("- ")}) == 7
    assert [path.name for path in (tmp_path / "secrets").iterdir()] == ["ftp_password.txt"]


def test_a_first_deployment_passes_and_generates_nothing(tmp_path: Path) -> None:
    answer = preflight(tmp_path, "-e", '{"stack_other_variables": ["docker_users"], "docker_users": []}')
    assert answer.returncode == 0, answer.stdout
    assert not (tmp_path / "secrets").exists()


CI = {"name": "ci", "model": "wine-quality", "token": "a-token-of-the-tests-for-ci"}
ADA = {"name": "ada"}


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            {"stack_public_name": "no name"},
            'stack_public_name is "no name": it must be a host\'s name or address in small letters, without a port '
            "(xn--… for other letters).",
        ),
        (
            {"gateway_form": "names", "stack_public_name": "192.0.2.1"},
            "gateway_form is names, and stack_public_name is 192.0.2.1, below which there are no names: set it to a "
            "name whose names below it (mlflow.NAME, …) lead to the gateway, or gateway_form to ports.",
        ),
        (
            {"gateway_tls": "acme", "stack_public_name": "ml.example.org"},
            "certbot_email is empty, and gateway_tls is acme: set it to where the authority may write to.",
        ),
        (
            {"gateway_tls": "acme", "stack_public_name": "192.0.2.1", "certbot_email": "ops@example.org"},
            "gateway_tls is acme, and stack_public_name is 192.0.2.1: set it to a name that the authority can look up, "
            "or gateway_tls to own or files.",
        ),
        (
            {"certbot_email": "ops"},
            'certbot_email is "ops": it must be an e-mail address.',
        ),
        (
            {"certbot_authority_file": __file__},
            "certbot_authority_file is not in PEM form: it must be -----BEGIN …----- to -----END …-----, with its line "
            "breaks.",
        ),
        (
            {"gateway_clients": [CI, CI | {"name": "shop"}]},
            "gateway_clients has one token twice: give each program its own.",
        ),
        *(
            (
                {"stack_public_name": number},
                f'stack_public_name is "{number}": it must be a host\'s name or address in small letters, without a '
                "port (xn--… for other letters).",
            )
            for number in ("10.0.0.999", "1.2.3", "010.1.1.1", "2130706433", "0x7f.1")
        ),
        (
            {"gateway_max_connections": 8_000},
            "gateway_memory_mb is 256 and 8000 connections (gateway_max_connections) need 814: raise it, or lower "
            "gateway_max_connections.",
        ),
        (
            {"stack_public_name": "224.0.0.1"},
            "stack_public_name is 224.0.0.1, which leads nowhere: set it to a name or address of the gateway's host.",
        ),
        (
            {"stack_public_name": "0.0.0.0"},
            "stack_public_name is 0.0.0.0, which leads nowhere: set it to a name or address of the gateway's host.",
        ),
        (
            {"mlflow_users": [{"name": "Admin"}]},
            "mlflow_users has admin, and so has mlflow_accounts, for services: choose another name.",
        ),
        ({"gateway_form": "paths"}, 'gateway_form is "paths": it must be one of ports, names.'),
        ({"gateway_tls": "none"}, 'gateway_tls is "none": it must be one of own, files, acme.'),
        (
            {"gateway_mlflow_port": 443},
            "gateway_mlflow_port is 443, and so is gateway_port: give each a port of its own.",
        ),
        (
            {"jupyter_bind_address": "127.0.0.1", "jupyter_port": 5000},
            "gateway_mlflow_port is 5000, and so is jupyter_port: give each a port of its own.",
        ),
        (
            {"gateway_clients": [CI | {"token": "short"}]},
            "gateway_clients, entry 1, token, is not as it should be: it must be 20 or more letters, digits and "
            ". _ ~ + / -.",
        ),
        ({"gateway_clients": [CI, CI]}, "gateway_clients has 2 entries for ci and wine-quality: leave one."),
        (
            {"gateway_clients": [CI | {"model": "iris"}]},
            "gateway_clients has ci for iris, which is not in serving_models: it has wine-quality.",
        ),
        ({"mlflow_users": [ADA, ADA]}, "mlflow_users has 2 entries for ada: leave one."),
        (
            {"mlflow_users": [{"name": "jupyter"}]},
            "mlflow_users has jupyter, and so has mlflow_accounts, for services: choose another name.",
        ),
    ],
)
def test_what_is_said_of_a_gateway_and_its_users(with_gateway: Inventory, given: dict[str, Any], sentence: str) -> None:
    assert with_gateway.refusals(given) == [sentence]


def test_without_a_gateway_services_are_published(inventory: Inventory) -> None:
    assert inventory.refusals({"mlflow_bind_address": ""}) == [
        "mlflow_bind_address is empty, and the inventory has no group gateway: leave it out, or add the group."
    ]


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Any]:
    """Settings with a certificate in files, for localhost."""
    pair = lookup("certificate", "files", directory=str(tmp_path / "authority"), names=["localhost", "*.localhost"])[0]
    for name in ("certificate", "key", "authority"):
        (tmp_path / f"{name}.pem").write_text(pair[name])
    return {
        "gateway_tls": "files",
        "gateway_certificate_file": str(tmp_path / "certificate.pem"),
        "gateway_certificate_key_file": str(tmp_path / "key.pem"),
        "gateway_authority_file": str(tmp_path / "authority.pem"),
    }


def test_a_certificate_of_ones_own_passes(with_gateway: Inventory, files: dict[str, Any]) -> None:
    assert with_gateway.refusals(files) == []
    assert with_gateway.refusals(files | {"gateway_form": "names"}) == []


def test_a_certificate_for_other_names_is_refused(with_gateway: Inventory, files: dict[str, Any]) -> None:
    assert with_gateway.refusals(files | {"stack_public_name": "ml.example.org"}) == [
        "gateway_certificate_file is not for ml.example.org: get one for all of ml.example.org."
    ]


def test_a_key_of_another_certificate_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    other = lookup("certificate", "other", directory=str(tmp_path / "authority"), names=["localhost"])[0]
    (tmp_path / "key.pem").write_text(other["key"])
    assert with_gateway.refusals(files) == [
        "gateway_certificate_key_file is not the key of gateway_certificate_file: the chain begins with your own "
        "certificate."
    ]


def test_a_certificate_of_another_authority_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    other = lookup("certificate", "other", directory=str(tmp_path / "other"), names=["localhost"])[0]
    (tmp_path / "authority.pem").write_text(other["authority"])
    (sentence,) = with_gateway.refusals(files)
    assert sentence.startswith("gateway_authority_file has not signed what is in gateway_certificate_file, which ends ")
    (tmp_path / "certificate.pem").write_text((tmp_path / "certificate.pem").read_text() + other["authority"])
    (sentence,) = with_gateway.refusals(files)
    assert sentence.endswith("next one that did not sign it: put them in order, your own first.")


NEW_KEY = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout"


def openssl(command: str, directory: Path) -> None:
    subprocess.run(["openssl", *command.split()], cwd=directory, check=True, capture_output=True)  # noqa: S607


def test_a_certificate_that_is_not_for_servers_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    extensions = "-addext subjectAltName=DNS:localhost -addext extendedKeyUsage="
    for usage, refused in (("clientAuth", True), ("serverAuth", False)):
        request = f"req -x509 {NEW_KEY} key.pem -days 9 -subj /CN=localhost -out certificate.pem {extensions}{usage}"
        openssl(request, tmp_path)
        (tmp_path / "authority.pem").write_text((tmp_path / "certificate.pem").read_text())
        expected = (
            "gateway_certificate_file is not for servers (its extended key usage lacks serverAuth): get one that is."
        )
        assert with_gateway.refusals(files) == [expected] * refused


def test_a_certificate_that_has_ended_is_refused(
    with_gateway: Inventory, files: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls(2126, 1, 1, tzinfo=tz)

    monkeypatch.setattr("validate_settings.datetime", Later)
    sentence, of_the_authority = with_gateway.refusals(files)
    assert re.fullmatch(
        r"gateway_certificate_file holds from \d{4}-\d\d-\d\d to \d{4}-\d\d-\d\d, and not today: renew it\.", sentence
    )
    assert of_the_authority.startswith("gateway_authority_file has CN=")


def test_a_certificate_that_programs_do_not_take_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    """HAProxy would not start with it, when services were no longer published."""
    request = "req -x509 -newkey rsa:1024 -nodes -keyout key.pem -days 9 -subj /CN=localhost -out certificate.pem"
    openssl(f"{request} -addext subjectAltName=DNS:localhost", tmp_path)
    (tmp_path / "authority.pem").write_text((tmp_path / "certificate.pem").read_text())
    sentence = "has a key of 1024 bits, and programs take 2048 or more: get another."
    assert with_gateway.refusals(files)[0] == f"gateway_certificate_file {sentence}"


NOT_ALL = (
    "gateway_certificate_file has a key that not all browsers take: get one of RSA, or of ECDSA on P-256 or P-384."
)
UNREADABLE = "gateway_certificate_file or gateway_certificate_key_file cannot be read: "


@pytest.mark.parametrize(
    ("key", "begins"),
    [
        ("rsa:2048", None),
        ("ec -pkeyopt ec_paramgen_curve:secp384r1", None),
        ("ec -pkeyopt ec_paramgen_curve:secp521r1", NOT_ALL),
        ("ec -pkeyopt ec_paramgen_curve:secp256k1", NOT_ALL),
        ("ec -pkeyopt ec_paramgen_curve:secp112r1", UNREADABLE),
        ("ed25519", NOT_ALL),
        ("dsa:dsa.pem", NOT_ALL),
    ],
)
def test_a_key_that_browsers_do_not_take_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path, key: str, begins: str | None
) -> None:
    openssl("dsaparam -out dsa.pem 2048", tmp_path) if key.startswith("dsa") else None
    request = f"req -x509 -newkey {key} -nodes -keyout key.pem -days 9 -subj /CN=localhost -out certificate.pem"
    openssl(f"{request} -addext subjectAltName=DNS:localhost", tmp_path)
    sentences = with_gateway.refusals(files | {"gateway_authority_file": ""})
    assert [sentence.startswith(begins or "-") for sentence in sentences] == [True] * bool(begins), sentences


def test_a_key_that_may_not_sign_is_refused(with_gateway: Inventory, files: dict[str, Any], tmp_path: Path) -> None:
    for usage, refused in (("keyEncipherment", True), ("digitalSignature,keyEncipherment", False)):
        request = f"req -x509 {NEW_KEY} key.pem -days 9 -subj /CN=localhost -out certificate.pem"
        openssl(f"{request} -addext subjectAltName=DNS:localhost -addext keyUsage={usage}", tmp_path)
        expected = (
            "gateway_certificate_file may not sign what a server has to (its key usage lacks digitalSignature): get "
            "one that may."
        )
        assert with_gateway.refusals(files | {"gateway_authority_file": ""}) == [expected] * refused


def test_what_tools_write_around_pem_passes_and_what_is_none_does_not(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "certificate.pem"
    certificate = file.read_text()
    file.write_text(f"# ours\nCertificate:\n    Data: …\n{certificate}")
    assert with_gateway.refusals(files) == []
    file.write_text(certificate.replace("\n", ""))
    assert with_gateway.refusals(files) == [
        "gateway_certificate_file is not in PEM form: it must be -----BEGIN …----- to -----END …-----, with its line "
        "breaks."
    ]


def test_a_chain_whose_middle_has_ended_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    openssl(f"req -x509 {NEW_KEY} root.key -subj /CN=root -days 9 -out authority.pem", tmp_path)
    openssl(f"req {NEW_KEY} middle.key -subj /CN=middle -out middle.csr", tmp_path)
    openssl(f"req {NEW_KEY} key.pem -subj /CN=localhost -addext subjectAltName=DNS:localhost -out own.csr", tmp_path)
    middle = "x509 -req -in middle.csr -CA authority.pem -CAkey root.key -out middle.pem -days"
    for days, refused in ((9, False), (-1, True)):
        openssl(f"{middle} {days}", tmp_path)
        openssl("x509 -req -in own.csr -copy_extensions copy -CA middle.pem -CAkey middle.key -out own.pem", tmp_path)
        chain = [(tmp_path / name).read_text() for name in ("own.pem", "middle.pem")]
        (tmp_path / "certificate.pem").write_text("".join(chain))
        sentences = with_gateway.refusals(files)
        assert [sentence.split(" holds from ")[0] for sentence in sentences] == [
            "gateway_certificate_file has CN=middle, which"
        ] * refused


def test_a_private_key_among_what_everybody_may_see_is_refused(
    with_gateway: Inventory, files: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "authority.pem").write_text(
        (tmp_path / "authority.pem").read_text() + (tmp_path / "key.pem").read_text()
    )
    sentence = "has a private key in it, which is nobody's to see: it must have certificates alone."
    assert with_gateway.refusals(files)[0] == f"gateway_authority_file {sentence}"


def test_files_that_are_not_there_are_refused(with_gateway: Inventory, files: dict[str, Any]) -> None:
    missing = files | {"gateway_certificate_file": "/nowhere/cert.pem"}
    assert with_gateway.refusals(missing) == [
        'gateway_certificate_file is "/nowhere/cert.pem", which is no file on the control node: set its path.'
    ]
    assert with_gateway.refusals({"gateway_tls": "files"}) == [
        "gateway_certificate_file is empty, and gateway_tls is files: set it to the path of a PEM file.",
        "gateway_certificate_key_file is empty, and gateway_tls is files: set it to the path of a PEM file.",
    ]
