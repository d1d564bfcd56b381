"""MLflow's basic-auth app with mlflow_ftps' downloads and a secret key from a file; and what prepares its database.

Environment: MLFLOW_STACK_SECRET_KEY_FILE, MLFLOW_BACKEND_STORE_URI, MLFLOW_AUTH_CONFIG_PATH.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Flask
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

SECRETS = Path(os.environ.get("MLFLOW_STACK_SECRETS", "/etc/mlflow-stack"))


class Account(TypedDict):
    """One account of accounts.json."""

    username: str
    password: str
    admin: bool


def create_app() -> Flask | FastAPI:
    """The app for `mlflow server --app-name mlflow-stack`, made in each worker.

    MLflow takes its secret key from the environment alone. It is set here, in the process that uses it: a variable of
    the container would show in every listing of it.
    """
    os.environ["MLFLOW_FLASK_SERVER_SECRET_KEY"] = (SECRETS / "secret_key").read_text().strip()
    from mlflow_ftps.server import create_basic_auth_app

    return create_basic_auth_app()


def prepare() -> None:
    """Bring the schema up to this version and the accounts to what accounts.json says. Can be run again at any time."""
    from mlflow.db import commands
    from mlflow.server.auth.config import read_auth_config
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    commands.main(["upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]], standalone_mode=False)
    store = SqlAlchemyStore()
    store.init_db(read_auth_config().database_uri)
    accounts: list[Account] = json.loads((SECRETS / "accounts.json").read_text())
    for account in accounts:
        ensure_account(store, account)


def ensure_account(store: SqlAlchemyStore, account: Account) -> None:
    """Create the account, or set its password and role where they differ."""
    username, password, admin = account["username"], account["password"], account["admin"]
    if not store.has_user(username):
        store.create_user(username, password, is_admin=admin)
        print(f"Created the account {username}.")
    elif not store.authenticate_user(username, password) or store.get_user(username).is_admin != admin:
        store.update_user(username, password=password, is_admin=admin)
        print(f"Updated the account {username}.")
    else:
        print(f"The account {username} is as it should be.")
