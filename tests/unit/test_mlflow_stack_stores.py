"""Whether stores that run elsewhere can be used is found out from them themselves."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from mlflow_stack_rig import FTP_LOGIN, PACKAGE, Postgres, Pyftpdlib
from moto.server import ThreadedMotoServer

KEYS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}


def check(what: str, **environment: str) -> str:
    """What the check says; empty if it is content."""
    command = [sys.executable, "-c", "import mlflow_stack_stores as stores; stores.main()"]
    variables = os.environ | environment | {"MLFLOW_STACK_ELSEWHERE": what}
    run = subprocess.run(command, cwd=PACKAGE, env=variables, capture_output=True, text=True)
    assert run.returncode == bool(run.stderr)
    return run.stderr.strip()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    with Postgres.running() as server:
        server.execute(
            "CREATE ROLE mlflow LOGIN",
            "CREATE ROLE guest LOGIN",
            "CREATE DATABASE mlflow OWNER mlflow",
            "CREATE DATABASE standby OWNER mlflow",
            "ALTER DATABASE standby SET default_transaction_read_only = on",
            "CREATE DATABASE odd OWNER mlflow TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'",
        )
        yield server


@pytest.mark.parametrize(
    ("role", "database", "fault"),
    [
        ("mlflow", "mlflow", ""),
        ("guest", "mlflow", "the role may not create tables in the schema that it uses"),
        ("mlflow", "standby", "it can only be read from, as a standby"),
        ("mlflow", "odd", "its encoding is SQL_ASCII, and UTF8 is needed"),
        ("mlflow", "missing", 'database "missing" does not exist'),
        ("nobody", "mlflow", 'role "nobody" does not exist'),
    ],
)
def test_a_database(postgres: Postgres, role: str, database: str, fault: str) -> None:
    uri = f"postgresql+psycopg2://{role}@127.0.0.1:{postgres.port}/{database}"
    said = check("database", MLFLOW_BACKEND_STORE_URI=uri)
    assert said.startswith("The store for database cannot be used: " if fault else "")
    assert fault in said
    assert bool(said) == bool(fault)
    assert "\n" not in said


def test_a_database_that_does_not_answer() -> None:
    said = check("database", MLFLOW_BACKEND_STORE_URI="postgresql+psycopg2://mlflow@127.0.0.1:1/mlflow")
    assert "Connection refused" in said


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    server = ThreadedMotoServer(port=0)
    server.start()
    address, port = server.get_host_and_port()
    url = f"http://{'127.0.0.1' if address == '0.0.0.0' else address}:{port}"
    client = boto3.client(
        "s3", endpoint_url=url, region_name="us-east-1", aws_access_key_id="key", aws_secret_access_key="secret"
    )
    client.create_bucket(Bucket="artifacts")
    yield url
    server.stop()


def test_s3(s3: str) -> None:
    at = {"MLFLOW_S3_ENDPOINT_URL": s3, **KEYS}
    assert check("artifacts", MLFLOW_ARTIFACTS_DESTINATION="s3://artifacts/mlflow", **at) == ""
    client = boto3.client("s3", endpoint_url=s3, aws_access_key_id="key", aws_secret_access_key="secret")
    assert "Contents" not in client.list_objects_v2(Bucket="artifacts")  # nothing is left
    assert "NoSuchBucket" in check("artifacts", MLFLOW_ARTIFACTS_DESTINATION="s3://other/mlflow", **at)
    nowhere = at | {"MLFLOW_S3_ENDPOINT_URL": "http://127.0.0.1:1"}
    assert "127.0.0.1:1" in check("artifacts", MLFLOW_ARTIFACTS_DESTINATION="s3://artifacts/mlflow", **nowhere)


def test_ftp(tmp_path: Path) -> None:
    server = Pyftpdlib(tmp_path / "ftp", None)
    server.start()
    netrc = tmp_path / "netrc"
    netrc.touch(0o600)
    at = {"MLFLOW_ARTIFACTS_DESTINATION": server.uri, "MLFLOW_FTPS_NETRC": str(netrc)}
    try:
        netrc.write_text(f"machine 127.0.0.1 {FTP_LOGIN}\n")
        assert check("artifacts", **at) == ""
        netrc.write_text(f"machine 127.0.0.1 {FTP_LOGIN}-wrong\n")
        assert "530" in check("artifacts", **at)
    finally:
        server.kill()
