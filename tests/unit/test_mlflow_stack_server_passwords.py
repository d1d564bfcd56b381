"""Odd passwords, from the role's variables to who reads its files: libpq, netrc, configparser (issue lines B7, C)."""

from __future__ import annotations

import configparser
import json
import netrc
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2  # type: ignore[import-untyped]
import pytest
import test_ftp_server
from mlflow_ftps.connection import Connection
from mlflow_ftps.settings import Settings, login
from mlflow_stack_rig import REPO, Postgres

ODD = [
    "plain-password",
    "two words",
    " blank first",
    "blank last ",
    "tab\tin it",
    'quote"quote',
    "single'quote",
    "back\\slash",
    "back\\slash at the end\\",
    "percent%s %(x)s 100%",
    "#hash # ;semicolon",
    "equals=a=b:colon",
    "$dollar {{ brace }} `tick`",
    "grüße-密码-💾",
    "machine x login y password z",
]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    """The files that the role writes, by odd password, by name."""
    here = tmp_path_factory.mktemp("files")
    play: list[dict[str, Any]] = [
        {
            "hosts": "localhost",
            "gather_facts": False,
            "vars": {
                "ansible_python_interpreter": sys.executable,
                "odd": [{"__ansible_unsafe": password} for password in ODD],
                "mlflow_backend_store_uri": "postgresql+psycopg2://odd%20user@db/x",
                "mlflow_backend_store_password": "{{ password }}",
                "mlflow_artifacts_destination": "ftps://files/",
                "mlflow_artifacts_user": "{{ password }}",
                "mlflow_artifacts_password": "{{ password }}",
                "mlflow_accounts": [{"username": "{{ password }}", "password": "x", "admin": True}],
                "mlflow_default_permission": "READ",
                "mlflow_auth_cache_seconds": 60,
                "mlflow_artifacts_authority": "",
                **dict.fromkeys(("mlflow_secret_key", "mlflow_crypto_passphrase", "mlflow_webhook_key"), "x"),
            },
            "tasks": [
                {"ansible.builtin.include_vars": f"{REPO}/roles/mlflow/vars/main.yml"},
                {
                    "ansible.builtin.copy": {
                        "content": "{{ (mlflow_secrets + mlflow_files)"
                        " | items2dict(key_name='name', value_name='content') | to_json }}",
                        "dest": f"{here}/{{{{ number }}}}.json",
                    },
                    "vars": {"password": "{{ odd[number] }}"},
                    "loop": list(range(len(ODD))),
                    "loop_control": {"loop_var": "number"},
                },
            ],
        }
    ]
    (here / "play.json").write_text(json.dumps(play))
    subprocess.run(
        ["ansible-playbook", "--inventory=localhost,", "--connection=local", "play.json"],  # noqa: S607
        cwd=here,
        env={**os.environ, "ANSIBLE_LOCALHOST_WARNING": "false"},
        check=True,
        capture_output=True,
    )
    result: dict[str, dict[str, Path]] = {}
    for number, password in enumerate(ODD):
        contents = json.loads((here / f"{number}.json").read_text())
        (here / str(number)).mkdir()
        result[password] = {}
        for name, content in contents.items():
            result[password][name] = here / str(number) / name
            result[password][name].write_text(content)
    return result


@pytest.mark.parametrize("password", ODD)
def test_netrc_gives_the_password_back(files: dict[str, dict[str, Path]], password: str) -> None:
    path = files[password]["netrc"]
    assert netrc.netrc(path).authenticators("files") == (password, "", password)
    assert login(Settings("files", 21, tls=True, user=None, netrc=str(path))) == (password, password)


@pytest.mark.parametrize("password", [password for password in ODD if password == password.strip()])
def test_the_accounts_configuration_gives_the_name_back(files: dict[str, dict[str, Path]], password: str) -> None:
    """What has a blank at its ends cannot be held."""
    configuration = configparser.ConfigParser()  # as MLflow reads it
    configuration.read(files[password]["auth.ini"])
    assert configuration["mlflow"]["admin_username"] == password
    assert configuration["mlflow"]["database_uri"] == "postgresql+psycopg2://odd%20user@db/x"


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """PostgreSQL, which asks the user "odd" for a password."""
    with Postgres.running() as server:
        rules = server.home / "data/pg_hba.conf"
        rules.write_text(f"host all odd 127.0.0.1/32 scram-sha-256\n{rules.read_text()}")
        with closing(psycopg2.connect(host="127.0.0.1", port=server.port, user="postgres")) as connection, connection:
            connection.cursor().execute("CREATE USER odd; SELECT pg_reload_conf()")
        yield server


@pytest.mark.parametrize("password", [password for password in ODD if password == password.rstrip()])
def test_postgresql_gets_the_password(
    files: dict[str, dict[str, Path]], postgres: Postgres, monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    """What has a blank at its end cannot be held."""
    with closing(psycopg2.connect(host="127.0.0.1", port=postgres.port, user="postgres")) as connection, connection:
        connection.cursor().execute("ALTER USER odd PASSWORD %s", (password,))
    monkeypatch.setenv("PGSERVICE", "mlflow")
    for name, fits in ((files[password]["pg_service.conf"], True), (files["plain-password"]["pg_service.conf"], False)):
        monkeypatch.setenv("PGSERVICEFILE", str(name))
        try:
            psycopg2.connect(host="127.0.0.1", port=postgres.port, user="odd", dbname="postgres").close()
        except psycopg2.OperationalError:
            assert not fits
        else:
            assert fits or password == "plain-password"


def test_the_ftp_server_gets_the_password(files: dict[str, dict[str, Path]], tmp_path: Path) -> None:
    """The whole way: the role's netrc, the store plugin, the image's server."""
    for number, password in enumerate(ODD):
        home = tmp_path / str(number)
        home.mkdir()
        with test_ftp_server.running(home, user=password, password=password) as server:
            netrc_file = home / "netrc"
            netrc_file.write_text(files[password]["netrc"].read_text().replace("machine files", "machine 127.0.0.1"))
            settings = Settings("127.0.0.1", server.port, tls=False, user=None, netrc=str(netrc_file))
            Connection(settings).close(politely=True)


def test_the_server_does_not_know_the_accounts_passwords(files: dict[str, dict[str, Path]]) -> None:
    """Issue line B7: accounts.json is for the container that prepares the database."""
    assert set(files[ODD[0]]) == {
        *("auth.ini", "crypto_passphrase", "netrc", "pg_service.conf", "secret_key", "webhook_key"),
    }
