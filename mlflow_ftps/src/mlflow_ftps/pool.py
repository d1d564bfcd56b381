"""A bounded pool of connections: one for each server and account, shared by all threads and stores of a process."""

import ftplib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from mlflow_ftps.connection import Connection
from mlflow_ftps.settings import Settings

_FULL_SERVER_PAUSE = 0.25  # seconds between two looks whether a full server has a place again


class Pool:
    """At most ``settings.pool_size`` connections; the one used last is lent first, so that spare ones age and close."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.reset()

    def reset(self) -> None:
        """Start empty, as a forked child must: the connections are its parent's."""
        self._changed = threading.Condition()
        self._idle: list[tuple[Connection, float]] = []
        self._open = 0
        self._reaper: threading.Timer | None = None

    @property
    def exhausted(self) -> bool:
        """Whether all connections are in use."""
        return not self._has_place()

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection. It comes back to the pool unless an error may have left it in an unknown state.

        Raises what connecting raises, and TimeoutError if none gets free within ``settings.pool_timeout`` seconds.
        """
        connection = self._take()
        try:
            yield connection
        except (ftplib.error_perm, ftplib.error_temp) as answer:
            self._give_back(connection, intact=not _is_closing(answer))
            raise
        except BaseException:
            self._give_back(connection, intact=False)
            raise
        self._give_back(connection, intact=True)

    def _take(self) -> Connection:
        deadline = time.monotonic() + self._settings.pool_timeout
        while True:
            connection = self._wait_for_place(deadline)
            if connection is None:
                try:
                    return Connection(self._settings)
                except BaseException as fault:
                    self._free_place()
                    if not _is_full(fault) or time.monotonic() > deadline:
                        raise
                    self._pause()
            elif connection.usable():
                return connection
            else:
                connection.close()
                self._free_place()

    def _wait_for_place(self, deadline: float) -> Connection | None:
        """An idle connection, or None and with it the right to open one."""
        with self._changed:
            if not self._changed.wait_for(self._has_place, deadline - time.monotonic()):
                raise TimeoutError(
                    f"all {self._settings.pool_size} connections to {self._settings} were in use for "
                    f"{self._settings.pool_timeout:g} s; MLFLOW_FTPS_POOL_SIZE allows more"
                )
            if self._idle:
                return self._idle.pop()[0]
            self._open += 1
            return None

    def _has_place(self) -> bool:
        return bool(self._idle) or self._open < self._settings.pool_size

    def _pause(self) -> None:
        """The server is full: wait until one of our own connections gets free, or a little while."""
        with self._changed:
            self._changed.wait_for(lambda: self._idle, _FULL_SERVER_PAUSE)

    def _free_place(self) -> None:
        with self._changed:
            self._open -= 1
            self._changed.notify()

    def _give_back(self, connection: Connection, *, intact: bool) -> None:
        if intact and self._open == len(self._idle) + 1:
            # Transfers that come one by one are faster so; several at once fill each other's pauses, and might fill all
            # ports of the server.
            try:
                connection.reserve()
            except ftplib.all_errors:
                intact = False
        if not intact:
            connection.close()
            self._free_place()
            return
        with self._changed:
            self._idle.append((connection, time.monotonic()))
            self._changed.notify()
            self._schedule_reaper()

    def _schedule_reaper(self) -> None:
        if self._reaper is None:
            self._reaper = threading.Timer(self._settings.idle_timeout, self._reap)
            self._reaper.daemon = True
            self._reaper.start()

    def _reap(self) -> None:
        """Close what was not used for ``idle_timeout``: servers count idle connections against their limits, too."""
        oldest = time.monotonic() - self._settings.idle_timeout
        with self._changed:
            expired = [connection for connection, since in self._idle if since <= oldest]
            self._idle = [(connection, since) for connection, since in self._idle if since > oldest]
            self._open -= len(expired)
            self._changed.notify(len(expired))
            self._reaper = None
            if self._idle:
                self._schedule_reaper()
        for connection in expired:
            connection.close(politely=True)


_pools: dict[Settings, Pool] = {}
_pools_lock = threading.Lock()


def pool_for(settings: Settings) -> Pool:
    """The process's pool for these settings."""
    with _pools_lock:
        if settings not in _pools:
            _pools[settings] = Pool(settings)
        return _pools[settings]


def _is_closing(fault: BaseException) -> bool:
    """421: the server closes the connection, because it has no place for it or is going down."""
    return isinstance(fault, ftplib.error_temp) and str(fault).startswith("421")


def _is_full(fault: BaseException) -> bool:
    """Whether the server has no place for another connection; ProFTPD says so with the code of a refused login."""
    return _is_closing(fault) or (isinstance(fault, ftplib.error_perm) and "maximum number" in str(fault))
