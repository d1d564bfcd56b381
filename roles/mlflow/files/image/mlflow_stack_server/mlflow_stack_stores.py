"""Find out whether stores that run elsewhere can be used, before a server is to use them.

Runs in the server's container, with its settings:

    mlflow-stack-check-stores

Says what is wrong, a line for each store, and ends with status 1 then. What it writes to the artifact store it removes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import uuid
from collections.abc import Callable
from pathlib import Path

OLDEST_POSTGRESQL = 14  # the oldest that its developers mend
ANSWERS_WITHIN = 10  # seconds
PROBE = b"Written by mlflow-stack to find out whether it can be. It can be removed.\n"


class UnusableStoreError(Exception):
    """A store that cannot be used: the message says what was found and what is needed."""


def check_database() -> None:
    """Raises UnusableStoreError, and SQLAlchemyError where nobody answers or lets us in."""
    from sqlalchemy import create_engine, text

    engine = create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"], connect_args={"connect_timeout": ANSWERS_WITHIN})
    with engine.connect() as connection:
        version, encoding, read_only = (
            str(connection.scalar(text(f"SHOW {setting}")))
            for setting in ("server_version_num", "server_encoding", "transaction_read_only")
        )
        may_create = connection.scalar(text("SELECT has_schema_privilege(current_schema(), 'CREATE')"))
    if int(version) < OLDEST_POSTGRESQL * 10_000:
        raise UnusableStoreError(
            f"it is PostgreSQL {int(version) // 10_000}, and {OLDEST_POSTGRESQL} or later is needed"
        )
    if encoding != "UTF8":
        raise UnusableStoreError(f"its encoding is {encoding}, and UTF8 is needed")
    if read_only == "on":
        raise UnusableStoreError("it can only be read from, as a standby: name the server that writes")
    if not may_create:
        raise UnusableStoreError(
            "the role may not create tables in the schema that it uses: make it the owner of a database of its own"
        )


def check_artifacts() -> None:
    """Writes, reads and removes a file. Raises UnusableStoreError, and what the store's own library raises."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(os.environ["MLFLOW_ARTIFACTS_DESTINATION"])
    directory = f"mlflow-stack-{uuid.uuid4().hex}"
    with tempfile.TemporaryDirectory() as temporary:
        probe = Path(temporary) / "probe"
        probe.write_bytes(PROBE)
        repository.log_artifact(str(probe), directory)
        try:
            read = Path(repository.download_artifacts(f"{directory}/probe", temporary)).read_bytes()
        finally:
            repository.delete_artifacts(directory)
    if read != PROBE:
        raise UnusableStoreError("it answers with something else than what was written to it")


def problem(check: Callable[[], None]) -> str:
    """What is wrong, in one line; empty if nothing is."""
    try:
        check()
    except Exception as error:  # of libraries of all kinds
        cause = getattr(error, "orig", None) or error  # SQLAlchemy's own sentence is about SQLAlchemy
        return " ".join(str(cause).split()) or type(cause).__name__
    return ""


def main() -> None:
    """Check those that MLFLOW_STACK_ELSEWHERE names, database or artifacts, separated by a blank."""
    checks = {"database": check_database, "artifacts": check_artifacts}
    found = {name: problem(checks[name]) for name in os.environ["MLFLOW_STACK_ELSEWHERE"].split()}
    sys.exit("\n".join(f"The store for {name} cannot be used: {what}" for name, what in found.items() if what) or 0)
