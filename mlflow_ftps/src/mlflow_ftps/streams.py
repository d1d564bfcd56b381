"""From an event loop, where the server receives, to a thread, where the upload runs."""

import asyncio
import queue
from collections.abc import AsyncIterable, AsyncIterator

from mlflow_ftps.connection import BLOCK

_DEPTH = 2  # blocks that may wait in a BlockPipe: with the ones being filled and sent, an upload needs 4 MiB


class BlockPipe:
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
