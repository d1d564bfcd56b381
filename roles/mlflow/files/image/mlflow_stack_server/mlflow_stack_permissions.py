"""Less work for MLflow's authentication in each request.

MLflow reads the account and its permissions anew at each of its checks, several times in a request, each time in a
transaction of several statements, by way of SQLAlchemy's ORM. Here both are read once in a request, by one statement.
Nothing outlives the request, so that a change holds from the next one on, through all workers and replicas, as it does
anyway. And a request that MLflow's middleware would only pass on goes straight through.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

from starlette.middleware.base import BaseHTTPMiddleware

if TYPE_CHECKING:
    from fastapi import FastAPI
    from flask import Response
    from mlflow.server.auth.entities import User
    from mlflow.server.auth.sqlalchemy_store import RoleGrantRow, SqlAlchemyStore
    from sqlalchemy import Select
    from sqlalchemy.orm import Session
    from starlette.middleware.base import DispatchFunction
    from starlette.types import ASGIApp, Receive, Scope, Send


class Known(NamedTuple):
    """What a request has read: accounts by name, and the permissions of those that are no administrators, by id."""

    users: dict[str, User]
    grants: dict[int, list[tuple[str, RoleGrantRow]]]  # each with its workspace


# MLflow's middlewares that do nothing to a request for Flask: that has the same checks of its own.
FOR_FASTAPI = {"fastapi_permission_middleware", "gateway_timing_middleware", "workspace_context_middleware"}
THEIRS = "mlflow_stack.for_fastapi"  # key of a request's scope

_known: ContextVar[Known | None] = ContextVar("known", default=None)


def begin_request() -> None:
    """Know nothing. What is read from here on is known in this context, and in those that are made from it."""
    _known.set(Known({}, {}))


def ask_less() -> None:
    """Make MLflow's authentication, which is set up, read an account and its permissions once in a request."""
    from mlflow.server import auth

    store: Any = auth.store
    reader = Reader(store)
    store.ManagedSessionMaker = _forgetting(store.ManagedSessionMaker)
    store.get_user = reader.get_user
    store.list_grants = reader.list_grants
    auth._redact_run_response = _only_where_denied(auth._redact_run_response)


def pass_straight_on(app: FastAPI) -> None:
    """Have what is for Flask, which asks for the login itself, go around the middlewares that would only pass it on.

    Through each of them it takes a task and two queues.
    """
    from mlflow.server import auth

    native_routes = auth._native_fastapi_routes(app)

    def is_theirs(scope: Scope) -> bool:
        return auth._find_fastapi_validator(
            scope["path"], scope["method"]
        ) is not None or auth._scope_matches_native_route(native_routes, scope)

    middlewares: list[Any] = app.user_middleware
    for middleware in middlewares:
        if middleware.cls is BaseHTTPMiddleware and middleware.kwargs["dispatch"].__name__ in FOR_FASTAPI:
            middleware.cls = Around
            middleware.kwargs["is_theirs"] = is_theirs


class Around(BaseHTTPMiddleware):
    """A middleware that a request goes around unless `is_theirs` says that it is for the routes of FastAPI."""

    def __init__(self, app: ASGIApp, dispatch: DispatchFunction, is_theirs: Callable[[Scope], bool]) -> None:
        super().__init__(app, dispatch)
        self._is_theirs = is_theirs

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and THEIRS not in scope:
            scope[THEIRS] = self._is_theirs(scope)
        if scope.get(THEIRS):
            await super().__call__(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class Reader:
    """Two methods of MLflow's store of accounts that answer as its own do."""

    def __init__(self, store: SqlAlchemyStore) -> None:
        from mlflow.server.auth.db.models import SqlRole, SqlRolePermission, SqlUser, SqlUserRoleAssignment
        from mlflow.store.db.utils import _get_managed_session_maker
        from sqlalchemy import and_, bindparam, select
        from sqlalchemy.orm import sessionmaker

        self._get_user = store.get_user
        self._list_grants = store.list_grants
        # Around one statement a transaction would only be two more.
        engine = store.engine.execution_options(isolation_level="AUTOCOMMIT")
        self._session = _get_managed_session_maker(sessionmaker(engine), store.db_type)
        permission = (SqlRolePermission.resource_type, SqlRolePermission.resource_pattern, SqlRolePermission.permission)
        # Administrators may do everything: their permissions, of which they have as many as others, are not asked for.
        assigned = and_(SqlUserRoleAssignment.user_id == SqlUser.id, SqlUser.is_admin.is_not(True))
        self._question: Select[Any] = (
            select(SqlUser.id, SqlUser.is_admin, SqlRole.workspace, *permission)
            .outerjoin(SqlUserRoleAssignment, assigned)
            .outerjoin(SqlRole, SqlRole.id == SqlUserRoleAssignment.role_id)
            .outerjoin(SqlRolePermission, SqlRolePermission.role_id == SqlRole.id)
            .where(SqlUser.username == bindparam("username"))
        )

    def get_user(self, username: str) -> User:
        """The account, without its password's digest. Raises MlflowException if there is none."""
        if (known := _known.get()) is None:
            return self._get_user(username)
        if username not in known.users:
            self._read(username, known)
        return known.users[username]

    def list_grants(self, user_id: int, workspace: str, resource_types: Collection[str]) -> list[RoleGrantRow]:
        """The account's permissions on resources of these types, and on the workspace."""
        known = _known.get()
        if known is None or user_id not in known.grants:
            return self._list_grants(user_id, workspace, resource_types)
        types = {*resource_types, "workspace"}
        return [grant for place, grant in known.grants[user_id] if place == workspace and grant.resource_type in types]

    def _read(self, username: str, known: Known) -> None:
        from mlflow.server.auth.entities import User
        from mlflow.server.auth.sqlalchemy_store import RoleGrantRow

        with self._session() as session:
            rows = session.execute(self._question, {"username": username}).all()
        if not rows:
            known.users[username] = self._get_user(username)  # which says that there is none
            return
        user_id, is_admin = rows[0][:2]
        known.users[username] = User(user_id, username, "REDACTED", is_admin)
        if not is_admin:
            known.grants[user_id] = [(place, RoleGrantRow(*grant)) for _, _, place, *grant in rows if grant[0]]


def _forgetting(sessions: Callable[..., AbstractContextManager[Session]]) -> Callable[..., Any]:
    """`sessions`, but what this request knows is forgotten when one is for writing."""

    def session(read_only: bool = True) -> AbstractContextManager[Session]:
        if not read_only and (known := _known.get()):
            known.users.clear()
            known.grants.clear()
        return sessions(read_only=read_only)

    return session


def _only_where_denied(redact: Callable[..., None]) -> Callable[..., None]:
    """`redact`, which takes an answer apart to hide links to models, but only for accounts that those are denied to."""

    def redact_where_denied(response: Response, *arguments: object) -> None:
        from mlflow.server import auth

        login: Any = auth.authenticate_request()
        username = login.username
        if auth.store.get_user(username).is_admin or not auth._denied_sibling_tiers(username, ("logged_model",)):
            return
        redact(response, *arguments)

    return redact_where_denied
