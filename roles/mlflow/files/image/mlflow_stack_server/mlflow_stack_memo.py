"""Accounts and permissions are read from the database once in each request.

MLflow asks for them at each of its checks, three times and more in a request. Within one request nothing is lost by
remembering them: a change holds from the next request on, as it does anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore

_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


def begin_request() -> None:
    """Know nothing. What is read from here on is remembered in this context and those that are made from it."""
    _known.set({})


def remember_reads(store: SqlAlchemyStore) -> None:
    """Let `store` read each account, and its permissions, once in a request; what it writes makes it read again."""
    store.get_user = _remembering(store.get_user)
    store.list_grants = _remembering(store.list_grants)
    make_session = store.ManagedSessionMaker

    def make_session_and_forget(read_only: bool = True) -> Any:
        if not read_only and (known := _known.get()) is not None:
            known.clear()
        return make_session(read_only=read_only)

    store.ManagedSessionMaker = make_session_and_forget


def _remembering(read: Callable[..., Any]) -> Callable[..., Any]:
    def read_once(*arguments: Any) -> Any:
        if (known := _known.get()) is None:
            return read(*arguments)
        key = (read.__name__, *(frozenset(a) if isinstance(a, set) else a for a in arguments))
        if key not in known:
            known[key] = read(*arguments)
        return known[key]

    return read_once
