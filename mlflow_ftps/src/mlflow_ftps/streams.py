"""Between the event loop, where the server talks to its client, and a thread, where the transfer runs."""

import asyncio
import queue
import threading
from collections.abc import AsyncIterable, AsyncIterator

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import NOT_IMPLEMENTED

from mlflow_ftps.connection import BLOCK

_DEPTH = 2  # blocks that may wait in a pipe: with the ones being filled and sent, a transfer needs 4 MiB


class UploadPipe:
    """A bounded pipe from a coroutine, which calls ``write`` and ``close``, to a thread, which calls ``read``."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._room = asyncio.Semaphore(_DEPTH)
        self._blocks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        self._abandoned = False

    async def write(self, block: bytes) -> None:
        """Hand ``block`` over as soon as there is room; once the reader is gone, drop it."""
        if not self._abandoned:
            await self._room.acquire()
            self._blocks.put(block)

    def close(self, fault: BaseException | None = None) -> None:
        """End the stream; with a ``fault``, ``read`` raises it."""
        self._blocks.put(fault or b"")

    def abandon(self) -> None:
        """The reader is gone: let the writer come to its end."""
        self._abandoned = True
        self._room.release()

    def read(self, _size: int = BLOCK, /) -> bytes:
        """The next block, whatever its size; waits for it."""
        block = self._blocks.get()
        if isinstance(block, BaseException):
            raise block
        self._loop.call_soon_threadsafe(self._room.release)
        return block


class DownloadPipe:
    """A bounded pipe from a thread, a download's target, which calls ``close`` at its end, to a coroutine's ``read``.

    What fits into one block is not handed over before it is complete. ``begun`` tells that a block was handed over;
    from then on, ``size`` is the number of bytes that there will be in all.
    """

    def __init__(self, timeout: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._timeout = timeout
        self._blocks: asyncio.Queue[bytes | BaseException] = asyncio.Queue()
        self._room = threading.Semaphore(_DEPTH)
        self._gathered = bytearray()
        self._abandoned = False
        self.begun = False
        self.size = 0

    def begin(self, size: int | None) -> None:
        """Forget what an earlier attempt has gathered. Raises MlflowException NOT_IMPLEMENTED without a ``size``."""
        if size is None:
            # MLflow's web server ends a response of unknown length in the same way whether it is whole or not.
            raise MlflowException(
                "The artifact store's FTP server does not tell the size of files (SIZE, RFC 3659), without which a "
                "download cannot stream safely. Start MLflow's server without an app of mlflow_ftps.",
                error_code=NOT_IMPLEMENTED,
            )
        self._gathered.clear()
        self.size = size

    def write(self, data: bytes | memoryview) -> None:
        """Hand ``data`` over, in blocks.

        Raises TimeoutError if the reader takes nothing for ``timeout`` seconds, BrokenPipeError if it is gone.
        """
        self._gathered += data
        if len(self._gathered) >= BLOCK:
            self._hand_over()

    def close(self, fault: BaseException | None = None) -> None:
        """Hand the rest over and end the stream; with a ``fault``, ``read`` raises it."""
        if not fault and self._gathered:
            self._hand_over()
        self._loop.call_soon_threadsafe(self._blocks.put_nowait, fault or b"")

    async def read(self) -> bytes:
        """The next block; empty at the end of the stream."""
        block = await self._blocks.get()
        if isinstance(block, BaseException):
            raise block
        self._room.release()
        return block

    def abandon(self) -> None:
        """The reader is gone: let the writer come to its end."""
        self._abandoned = True
        self._room.release()

    def _hand_over(self) -> None:
        if not self._room.acquire(timeout=self._timeout):
            raise TimeoutError(f"the client took nothing for {self._timeout:g} s")
        if self._abandoned:
            raise BrokenPipeError("the client is gone")
        self.begun = True
        self._loop.call_soon_threadsafe(self._blocks.put_nowait, bytes(self._gathered))
        self._gathered.clear()


async def in_blocks(chunks: AsyncIterable[bytes], timeout: float) -> AsyncIterator[bytes]:
    """``chunks`` gathered into blocks of at least BLOCK bytes; the last one may be smaller.

    Raises TimeoutError if no chunk arrives within ``timeout`` seconds.
    """
    gathered: list[bytes] = []
    size = 0
    iterator = aiter(chunks)
    while True:
        async with asyncio.timeout(timeout):
            chunk = await anext(iterator, None)
        if chunk is None:
            break
        gathered.append(chunk)
        size += len(chunk)
        if size >= BLOCK:
            yield b"".join(gathered)
            gathered, size = [], 0
    if gathered:
        yield b"".join(gathered)
