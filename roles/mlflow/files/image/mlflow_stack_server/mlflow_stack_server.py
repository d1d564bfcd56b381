"""MLflow's server as this platform runs it, by `mlflow-stack-server`; and what prepares its database.

It is MLflow's basic-auth app with mlflow_ftps' routes, keys from files, an address that tells whether the stores
answer, 401 for what is no login, refusals that MLflow lacks, and the experiment Default for every account.

Environment: MLFLOW_STACK_SECRETS, the directory of the files secret_key, crypto_passphrase, webhook_key and, for
`prepare`, accounts.json (/etc/mlflow-stack); MLFLOW_BACKEND_STORE_URI, MLFLOW_AUTH_CONFIG_PATH.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import math
import os
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict, cast
from weakref import WeakKeyDictionary

import mlflow_stack_page
import mlflow_stack_permissions
import mlflow_stack_refusals
import mlflow_stack_workers

if TYPE_CHECKING:
    from fastapi import FastAPI
    from mlflow.server.auth.entities import User
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy import Engine
    from starlette.types import ASGIApp, Receive, Scope, Send

SECRETS = Path(os.environ.get("MLFLOW_STACK_SECRETS", "/etc/mlflow-stack"))
# MLflow takes its keys from the environment alone. They are set here, in the process that uses them: variables of the
# container would show in every listing of it.
KEYS = {
    "secret_key": "MLFLOW_FLASK_SERVER_SECRET_KEY",
    "crypto_passphrase": "MLFLOW_CRYPTO_KEK_PASSPHRASE",
    "webhook_key": "MLFLOW_WEBHOOK_SECRET_ENCRYPTION_KEY",
}
STORES_ADDRESS = "/health/stores"
STORE_TIMEOUT = 3.0  # seconds that a store has to answer
DEFAULT_EXPERIMENT = "0"  # the number that MLflow gives it
CONNECTION_TRUSTED = 1.0  # seconds
REMEMBERED = 5.0  # seconds for which an answer is given again, so that asking costs the stores nothing

log = logging.getLogger("mlflow_stack_server")


class Account(TypedDict):
    """One account of accounts.json; one that only reads has no part in the experiment Default.

    Its own experiment is where its programs log by themselves. A generated password is a person's first one, which they
    may change; one that is absent has no password.
    """

    username: str
    password: NotRequired[str]
    admin: bool
    reads_only: NotRequired[bool]
    experiment: NotRequired[str]
    generated: NotRequired[bool]
    state: NotRequired[str]


def create_app() -> FastAPI:
    """The app for `mlflow server --app-name mlflow-stack`, made in each worker."""
    read_keys()
    from mlflow_ftps.server import create_basic_auth_app

    app = cast("FastAPI", create_basic_auth_app())  # under uvicorn, MLflow's default
    mlflow_stack_permissions.ask_less()
    mlflow_stack_permissions.pass_straight_on(app)
    app.add_middleware(Front)
    mlflow_stack_page.show()
    mlflow_stack_refusals.refuse()
    share_default_experiment_with_new_accounts()
    return app


def serve() -> None:
    """Run the server until it is told to stop: `mlflow server --app-name mlflow-stack`, with workers that share."""
    options = mlflow_stack_workers.options()
    mlflow_stack_workers.use_one_thread()  # nothing is calculated here
    os.environ.update(server_environment())
    read_keys()
    import mlflow.server

    log_config = str(Path(mlflow.server.__file__).with_name("uvicorn_log_config.yaml"))
    mlflow_stack_workers.serve(
        create_shared_app,
        lambda: options.workers,
        host=options.host,
        port=options.port,
        health=STORES_ADDRESS,
        log_config=log_config,
    )


def server_environment() -> dict[str, str]:
    """What `mlflow server` tells its workers, by variables of its own, of the same settings."""
    return {
        "_MLFLOW_SERVER_FILE_STORE": os.environ["MLFLOW_BACKEND_STORE_URI"],
        "_MLFLOW_SERVER_REGISTRY_STORE": os.environ["MLFLOW_BACKEND_STORE_URI"],
        "_MLFLOW_SERVER_ARTIFACT_ROOT": "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": os.environ["MLFLOW_ARTIFACTS_DESTINATION"],
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SERVER_BOOT_ID": uuid.uuid4().hex,
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "MLFLOW_SERVER_SECRETS_CACHE_TTL": "60",
        "MLFLOW_SERVER_SECRETS_CACHE_MAX_SIZE": "1000",
        **({"prometheus_multiproc_dir": path} if (path := os.environ.get("MLFLOW_EXPOSE_PROMETHEUS")) else {}),
    }


def create_shared_app() -> FastAPI:
    """The app, with what all its workers need loaded, and no connection."""
    app = create_app()
    from mlflow.server import auth, handlers

    handlers.initialize_backend_stores(os.environ["MLFLOW_BACKEND_STORE_URI"], None, "mlflow-artifacts:/")
    stores: list[Any] = [auth.store, handlers._get_tracking_store(), handlers._get_model_registry_store()]
    for store in stores:
        store.engine.dispose()  # a connection must not be used by two processes
        ask_less_often(store.engine)
    return app


def ask_less_often(engine: Engine) -> None:
    """Have a connection that was there within the last second be taken without being asked again whether it is.

    Each use of one begins with that question, an eighth of what a request asks the database. A database that has gone
    away within that second fails the request as it does one that is under way; clients repeat it.
    """
    dialect: Any = engine.dialect
    if dialect.name != "postgresql":
        return
    ask = dialect.do_ping
    answered_at: WeakKeyDictionary[object, float] = WeakKeyDictionary()

    def do_ping(connection: object) -> bool:
        now = time.monotonic()
        if now - answered_at.get(connection, -math.inf) < CONNECTION_TRUSTED:
            return True
        there: bool = ask(connection)
        answered_at[connection] = now
        return there

    dialect.do_ping = do_ping


def read_keys() -> None:
    """Set MLflow's variables from the files of its keys. Must come before MLflow's stores are imported."""
    for name, variable in KEYS.items():
        os.environ[variable] = (SECRETS / name).read_text().strip()


def share_default_experiment_with_new_accounts() -> None:
    """Let accounts that are made from now on log to the experiment Default, too."""
    from mlflow.server.auth import store

    create: Callable[..., User] = store.create_user

    def create_user(username: str, password: str, is_admin: bool = False) -> User:
        user = create(username, password, is_admin)
        share_default_experiment(store, username)
        return user

    store.create_user = create_user  # type: ignore[method-assign]


def share_default_experiment(store: SqlAlchemyStore, username: str) -> None:
    """Let the account log to the experiment Default, where MLflow's client goes by itself, and change what is there.

    Nothing is shared where accounts may do nothing with what is not theirs.
    """
    from mlflow.server.auth.config import read_auth_config

    if read_auth_config().default_permission != "NO_PERMISSIONS":
        permit(store, DEFAULT_EXPERIMENT, username, "EDIT")


def permit(store: SqlAlchemyStore, experiment: str, username: str, permission: str) -> None:
    """Give the account a permission on the experiment of this number.

    What an administrator has changed stays; what was deleted comes back when accounts are prepared.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_ALREADY_EXISTS, ErrorCode

    try:
        store.create_experiment_permission(experiment, username, permission)
    except MlflowException as error:
        if error.error_code != ErrorCode.Name(RESOURCE_ALREADY_EXISTS):
            raise


class Front:
    """In front of everything: tells whether the stores answer, and keeps from MLflow what is no login.

    MLflow ends in an error of its own over a header that is a login, but not by name and password.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._stores = Stores({"database": ask_database, "artifact store": ask_artifact_store})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            mlflow_stack_permissions.begin_request()
            if scope["path"] == STORES_ADDRESS:
                await self._tell(scope, receive, send)
                return
            if not scope["path"].startswith("/gateway/"):  # there it may be a provider's key
                scope = {**scope, "headers": without_odd_logins(scope["headers"])}
        await self._app(scope, receive, send)

    async def _tell(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.responses import PlainTextResponse

        fault = await self._stores.fault()
        await PlainTextResponse(fault or "The stores answer.", 503 if fault else 200)(scope, receive, send)


class Stores:
    """What users need of the stores, asked by one at a time. `questions` raise if a store does not answer."""

    def __init__(self, questions: dict[str, Callable[[], None]]) -> None:
        self._questions = questions
        self._lock = asyncio.Lock()
        self._threads = ThreadPoolExecutor(len(questions))  # a store that hangs takes one up, and no more
        self._asked_at = -REMEMBERED
        self._fault = ""

    async def fault(self) -> str:
        """A sentence for each store that does not answer; empty if all do."""
        async with self._lock:
            if time.monotonic() - self._asked_at >= REMEMBERED:
                answers = await asyncio.gather(*(self._ask(name) for name in self._questions))
                self._fault = " ".join(answer for answer in answers if answer)
                self._asked_at = time.monotonic()
            return self._fault

    async def _ask(self, name: str) -> str:
        try:
            async with asyncio.timeout(STORE_TIMEOUT):
                await asyncio.get_running_loop().run_in_executor(self._threads, self._questions[name])
        except Exception as fault:
            # The reason is for the log: this address is open to everybody.
            log.warning("The %s does not answer: %s", name, fault or f"nothing within {STORE_TIMEOUT:g} s")
            return f"The {name} does not answer."
        return ""


def ask_database() -> None:
    """Read from the database through the connections that requests use, those of the runs and those of the accounts."""
    from mlflow.server.auth import store
    from mlflow.server.handlers import _get_tracking_store
    from sqlalchemy import text

    tracking_store: Any = _get_tracking_store()
    for engine in (tracking_store.engine, store.engine):
        with engine.connect() as connection:
            connection.execute(text("SELECT 1"))


def ask_artifact_store() -> None:
    """Have the FTP server answer on a connection that transfers use; other stores are not asked."""
    from mlflow.server.handlers import _get_artifact_repo_mlflow_artifacts
    from mlflow_ftps.repository import FTPArtifactRepository

    repository = _get_artifact_repo_mlflow_artifacts()
    if isinstance(repository, FTPArtifactRepository):
        repository.ping()


def without_odd_logins(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """`headers` without Authorization, unless it is one login by name and password."""
    logins = [value for name, value in headers if name == b"authorization"]
    if len(logins) == 1 and is_login(logins[0]):
        return headers
    return [(name, value) for name, value in headers if name != b"authorization"]


def is_login(authorization: bytes) -> bool:
    """Whether this is a login by name and password (RFC 7617), in UTF-8, of characters that a database takes."""
    scheme, _, credentials = authorization.partition(b" ")
    try:
        login = base64.b64decode(credentials.strip(), validate=True).decode()
    except ValueError:
        return False
    return scheme.lower() == b"basic" and ":" in login and login.isprintable()


def health() -> None:
    """Exit with the server's own sentence and 1 if the stores do not answer, for the container's health check."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:5000{STORES_ADDRESS}", timeout=2 * STORE_TIMEOUT) as answer:
            print(answer.read().decode())
    except urllib.error.HTTPError as error:
        sys.exit(error.read().decode())
    except OSError as error:
        sys.exit(f"The server does not answer: {error}.")


def prepare() -> None:
    """Bring the schema up to this version and the accounts to what accounts.json says. Can be run again at any time."""
    read_keys()
    from mlflow.db import commands
    from mlflow.server.auth.config import read_auth_config
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

    commands.main(["upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]], standalone_mode=False)
    lock_with_own_passphrase()
    store = SqlAlchemyStore()
    store.init_db(read_auth_config().database_uri)
    accounts: list[Account] = json.loads((SECRETS / "accounts.json").read_text())
    for account in accounts:
        ensure_account(store, account)
    readers = {account["username"] for account in accounts if account.get("reads_only")}
    for user in store.list_users():
        if not user.is_admin and user.username not in readers:
            share_default_experiment(store, user.username)
    for account in accounts:
        if name := account.get("experiment"):
            ensure_experiment(store, account["username"], name)


def ensure_experiment(store: SqlAlchemyStore, username: str, name: str) -> None:
    """Make the account's own experiment, which would be whose who comes first, and would shut all others out."""
    from mlflow.server.handlers import _get_tracking_store

    tracking_store: Any = _get_tracking_store(os.environ["MLFLOW_BACKEND_STORE_URI"], "mlflow-artifacts:/")
    experiment = tracking_store.get_experiment_by_name(name)
    number = experiment.experiment_id if experiment else tracking_store.create_experiment(name)
    permit(store, number, username, "MANAGE")


def lock_with_own_passphrase() -> None:
    """Lock again what is locked with MLflow's public passphrase: secrets of its gateway, from before it had its own."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.dbmodels.models import SqlGatewaySecret
    from mlflow.utils.crypto import DEFAULT_KEK_PASSPHRASE, KEKManager, rotate_secret_encryption
    from sqlalchemy import create_engine
    from sqlalchemy.orm import Session

    with Session(create_engine(os.environ["MLFLOW_BACKEND_STORE_URI"])) as session, session.begin():
        secrets: list[Any] = session.query(SqlGatewaySecret).filter(SqlGatewaySecret.kek_version == 1).all()
        if not secrets:
            return  # deriving keys takes a second
        public, own = KEKManager(DEFAULT_KEK_PASSPHRASE, 1), KEKManager(kek_version=1)
        for secret in secrets:
            try:
                rotated = rotate_secret_encryption(secret.encrypted_value, secret.wrapped_dek, public, own)
            except MlflowException:
                continue  # it is locked with our own
            secret.wrapped_dek = rotated.wrapped_dek
            print(f"Locked the gateway's secret {secret.secret_name} with this deployment's passphrase.")


def ensure_account(store: SqlAlchemyStore, account: Account) -> None:
    """Create the account, set its password and role where they differ, or remove it."""
    username, admin = account["username"], account["admin"]
    if account.get("state") == "absent":
        if store.has_user(username):
            store.delete_user(username)
            print(f"Removed the account {username}.")
        return
    password = account["password"]
    if not store.has_user(username):
        store.create_user(username, password, is_admin=admin)
        print(f"Created the account {username}.")
    elif account.get("generated"):
        store.update_user(username, is_admin=admin)
    elif not store.authenticate_user(username, password) or store.get_user(username).is_admin != admin:
        store.update_user(username, password=password, is_admin=admin)
        print(f"Updated the account {username}.")
    else:
        print(f"The account {username} is as it should be.")
