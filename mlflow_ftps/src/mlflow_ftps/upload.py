"""One artifact on its way to the server: it appears there whole or not at all."""

import ftplib
import functools
import io
import posixpath
import secrets
import time
from collections.abc import Callable, Iterator
from typing import Protocol

from mlflow_ftps.connection import BLOCK, Connection, Entry, IncompleteError

# MLflow's own local store hides this prefix, too, so that the same directory can be served from disk. What follows is
# the time of the upload's start, by which one sees what a killed process has left behind.
TEMPORARY = ".artifact.uploading."


class Readable(Protocol):
    """A binary stream; ``read`` returns b"" at its end."""

    def read(self, size: int, /) -> bytes: ...


class Source:
    """The bytes of one upload: read once, or again from the same place if the stream can be rewound."""

    def __init__(self, stream: Readable) -> None:
        self._stream = stream
        self._touched = False
        self._rewind: Callable[[], object] | None = None
        if isinstance(stream, io.IOBase) and stream.seekable():
            self._rewind = functools.partial(stream.seek, stream.tell())

    @property
    def rewindable(self) -> bool:
        """Whether ``blocks`` can begin with the first byte any number of times."""
        return self._rewind is not None

    @property
    def complete(self) -> bool:
        """Whether ``blocks`` would begin with the first byte."""
        return self.rewindable or not self._touched

    def blocks(self) -> Iterator[bytes]:
        """All bytes, in blocks of about BLOCK."""
        if self._touched and self._rewind:
            self._rewind()
        self._touched = True
        while block := self._stream.read(BLOCK):
            yield block


class Upload:
    """Stores a source under a temporary name, checks the size, and renames it to ``directory``/``name``."""

    def __init__(self, source: Source, directory: str, name: str) -> None:
        self._source = source
        self._directory = directory
        self._target = posixpath.join(directory, name)
        self._stored: tuple[str, int] | None = None  # temporary name and size
        self.leftovers: list[str] = []  # temporary names that may exist

    @property
    def repeatable(self) -> bool:
        """Whether another ``attempt`` can succeed."""
        return self._stored is not None or self._source.complete

    def attempt(self, connection: Connection) -> None:
        """Store, unless an earlier attempt has done that, and rename."""
        temporary, size = self._stored = self._stored or self._store(connection)
        try:
            connection.publish(temporary, self._target, size)
        except IncompleteError:
            self._stored = None
            raise
        except ftplib.error_perm:
            if not self._is_published(connection, temporary, size):
                raise
        self.leftovers.remove(temporary)

    def _store(self, connection: Connection) -> tuple[str, int]:
        # A new name each time: a session that hangs may wake up and write on under the old one.
        temporary = posixpath.join(self._directory, f"{TEMPORARY}{int(time.time())}.{secrets.token_hex(8)}")
        self.leftovers.append(temporary)
        try:
            return temporary, self._store_as(connection, temporary)
        except ftplib.error_perm:  # most often, because the directory does not exist yet
            if not self._source.complete:
                raise
            connection.make_directories(self._directory)
            return temporary, self._store_as(connection, temporary)

    def _store_as(self, connection: Connection, path: str) -> int:
        return connection.store(path, self._source.blocks(), eagerly=self._source.rewindable)

    def _is_published(self, connection: Connection, temporary: str, size: int) -> bool:
        """Whether an earlier attempt has renamed it, and only the answer was lost."""
        entry = Entry(posixpath.basename(self._target), "file", size)
        return connection.find(temporary) is None and connection.find(self._target) == entry


def is_stale(name: str, seconds: float) -> bool:
    """Whether ``name`` is temporary, and its upload began more than ``seconds`` ago."""
    began = name.removeprefix(TEMPORARY).partition(".")[0]
    return name.startswith(TEMPORARY) and began.isdigit() and time.time() - int(began) > seconds
