"""Less to ask the database of accounts and permissions in each request.

MLflow asks at each of its checks, three times and more in a request, each time in a transaction. Here each account, and
each set of permissions, is read once in a request, and without a transaction, which for one statement changes nothing.
A change holds from the next request on, as it does anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.server.auth.sqlalchemy_store import SqlAlchemyStore
    from sqlalchemy.orm import Session

_known: ContextVar[dict[Any, Any] | None] = ContextVar("known", default=None)


def begin_request() -> None:
    """Know nothing. What is read from here on is known in this context, and in those that are made from it."""
    _known.set({})


def read_once(store: SqlAlchemyStore) -> None:
    """Let `store` read an account, and its permissions, once in a request; after it has written, it reads again."""
    from mlflow.store.db.utils import _get_managed_session_maker
    from sqlalchemy.orm import sessionmaker

    write = store.ManagedSessionMaker
    without_transactions = store.engine.execution_options(isolation_level="AUTOCOMMIT")
    read = _get_managed_session_maker(sessionmaker(without_transactions), store.db_type)

    def session(read_only: bool = True) -> AbstractContextManager[Session]:
        if read_only:
            return read()  # type: ignore[no-any-return]
        if known := _known.get():
            known.clear()
        return write(read_only=False)  # type: ignore[no-any-return]

    store.ManagedSessionMaker = session
    store.get_user = _once(store.get_user)
    store.list_grants = _once(store.list_grants)


def _once(ask: Callable[..., Any]) -> Callable[..., Any]:
    """`ask`, but in a request the same question once. Its arguments are hashable, or sets of what is."""

    def ask_once(*arguments: Any) -> Any:
        if (known := _known.get()) is None:
            return ask(*arguments)
        question = (ask.__name__, *(frozenset(part) if isinstance(part, set) else part for part in arguments))
        if question not in known:
            known[question] = ask(*arguments)
        return known[question]

    return ask_once
