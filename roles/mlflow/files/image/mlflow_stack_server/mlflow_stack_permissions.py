"""Less work for what MLflow's authentication asks the database in each request.

MLflow reads the account and its permissions anew at each of its checks, several times in a request, each time in a
transaction and by way of SQLAlchemy's ORM. Here both are read once in a request, by one plain statement each. Nothing
outlives the request, so that a change holds from the next one on, through all workers and replicas, as it does anyway.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, TypeVar, cast

if TYPE_CHECKING:
    from flask import Response
    from mlflow.server.auth.entities import User
    from mlflow.server.auth.sqlalchemy_store import RoleGrantRow, SqlAlchemyStore
    from sqlalchemy.orm import Session

Answer = TypeVar("Answer")

_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


def begin_request() -> None:
    """Know nothing. What is read from here on is known in this context, and in those that are made from it."""
    _known.set({})


def ask_less() -> None:
    """Make MLflow's authentication, which is set up, read an account and its permissions once in a request."""
    from mlflow.server import auth

    reader = Reader(auth.store)
    auth.store.ManagedSessionMaker = _forgetting(auth.store.ManagedSessionMaker)
    auth.store.get_user = reader.get_user
    auth.store.list_grants = reader.list_grants
    auth._redact_run_response = _only_where_denied(auth._redact_run_response)


class Reader:
    """Two methods of MLflow's store of accounts that answer as its own do."""

    def __init__(self, store: SqlAlchemyStore) -> None:
        from mlflow.server.auth.db.models import SqlRole, SqlRolePermission, SqlUser, SqlUserRoleAssignment
        from mlflow.store.db.utils import _get_managed_session_maker
        from sqlalchemy import bindparam, select
        from sqlalchemy.orm import sessionmaker

        self._get_user = store.get_user
        # For one statement a transaction would only be two more.
        engine = store.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._session = _get_managed_session_maker(sessionmaker(engine), store.db_type)
        self._user = select(SqlUser.id, SqlUser.username, SqlUser.password_hash, SqlUser.is_admin).where(
            SqlUser.username == bindparam("username")
        )
        self._grants = (
            select(SqlRolePermission.resource_type, SqlRolePermission.resource_pattern, SqlRolePermission.permission)
            .join(SqlRole, SqlRole.id == SqlRolePermission.role_id)
            .join(SqlUserRoleAssignment, SqlRole.id == SqlUserRoleAssignment.role_id)
            .where(SqlUserRoleAssignment.user_id == bindparam("user_id"), SqlRole.workspace == bindparam("workspace"))
        )

    def get_user(self, username: str) -> User:
        """The account. Raises MlflowException if there is none."""
        return _once(("user", username), lambda: self._read_user(username))

    def list_grants(self, user_id: int, workspace: str, resource_types: Collection[str]) -> list[RoleGrantRow]:
        """The account's permissions on resources of these types, and on the workspace."""
        wanted = {*resource_types, "workspace"}
        grants = _once(("grants", user_id, workspace), lambda: self._read_grants(user_id, workspace))
        return [grant for grant in grants if grant.resource_type in wanted]

    def _read_user(self, username: str) -> User:
        from mlflow.server.auth.entities import User

        with self._session() as session:
            row = session.execute(self._user, {"username": username}).one_or_none()
        return User(*row) if row else self._get_user(username)  # which says what is wrong

    def _read_grants(self, user_id: int, workspace: str) -> list[RoleGrantRow]:
        from mlflow.server.auth.sqlalchemy_store import RoleGrantRow

        with self._session() as session:
            rows = session.execute(self._grants, {"user_id": user_id, "workspace": workspace})
            return [RoleGrantRow(*row) for row in rows]


def _once(question: tuple[Any, ...], ask: Callable[[], Answer]) -> Answer:
    """The answer to `question`, which `ask` finds out, once in a request."""
    if (known := _known.get()) is None:
        return ask()
    if question not in known:
        known[question] = ask()
    return cast(Answer, known[question])


def _forgetting(sessions: Callable[..., AbstractContextManager[Session]]) -> Callable[..., Any]:
    """`sessions`, but what this request knows is forgotten when one is for writing."""

    def session(read_only: bool = True) -> AbstractContextManager[Session]:
        if not read_only and (known := _known.get()):
            known.clear()
        return sessions(read_only=read_only)

    return session


def _only_where_denied(redact: Callable[..., None]) -> Callable[..., None]:
    """`redact`, which takes an answer apart to hide links to models, but only for accounts that those are denied to."""

    def redact_where_denied(response: Response, *arguments: Any) -> None:
        from mlflow.server import auth

        username = auth.authenticate_request().username
        if auth.store.get_user(username).is_admin or not auth._denied_sibling_tiers(username, ("logged_model",)):
            return
        redact(response, *arguments)

    return redact_where_denied
