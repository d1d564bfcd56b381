"""The artifact repository that MLflow's servers and clients call."""

import asyncio
import ftplib
import io
import logging
import os
import posixpath
import random
import time
import weakref
from collections.abc import AsyncIterable, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO, TypeVar

from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    BAD_REQUEST,
    INTERNAL_ERROR,
    RESOURCE_DOES_NOT_EXIST,
    ErrorCode,
)
from mlflow.store.artifact.artifact_repo import ArtifactRepository, StreamUploadMixin, verify_artifact_path

from mlflow_ftps.connection import Connection, LocalError, Target
from mlflow_ftps.faults import as_mlflow_exception, is_transient
from mlflow_ftps.pool import pool_for
from mlflow_ftps.settings import parse, without_password
from mlflow_ftps.streams import DownloadPipe, UploadPipe, in_blocks
from mlflow_ftps.upload import TEMPORARY, Source, Upload, is_stale

_BACKOFF = 0.2  # seconds before the second attempt, doubled before each further one
_BLOCK_TIMEOUTS = 10  # data timeouts for a client to take 1 MiB: by default 300 s, for those on a slow line

_T = TypeVar("_T")
_logger = logging.getLogger(__name__)


class FTPArtifactRepository(ArtifactRepository, StreamUploadMixin):
    """Artifacts as files on an FTP server, at ``ftps://USER@HOST:PORT/PATH`` or ``ftp://USER@HOST:PORT/PATH``.

    All methods are thread-safe and raise MlflowException with one of these codes: RESOURCE_DOES_NOT_EXIST;
    PERMISSION_DENIED for what the server refuses, with its answer; ABORTED, with HTTP status 507, if it cannot write;
    INVALID_PARAMETER_VALUE for paths that cannot be; TEMPORARILY_UNAVAILABLE if it stays out of reach through all
    attempts, refuses the login or has a wrong certificate.
    """

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        self._settings, self._root = parse(artifact_uri)
        super().__init__(without_password(artifact_uri), tracking_uri, registry_uri)
        self._pool = pool_for(self._settings)
        self._server_threads = self._create_server_threads()
        _repositories.add(self)

    @property
    def max_workers(self) -> int:
        """Number of threads for the transfers of one directory: no more than there are connections."""
        return min(super().max_workers, self._settings.pool_size)

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Upload ``local_file`` into the directory ``artifact_path``."""
        with Path(local_file).open("rb") as stream:
            self._upload(Source(stream), Path(local_file).name, artifact_path)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Upload the content of ``local_dir``, empty directories included, several files at a time.

        If some files fail, the others are still uploaded, and one error names all that failed.
        """
        uploads: dict[str, Future[None]] = {}
        for directory, _, names in os.walk(local_dir):
            relative = Path(directory).relative_to(local_dir).as_posix()
            remote = posixpath.normpath(posixpath.join(artifact_path or "", relative))
            if not names:
                self._make_directory(remote)
            for name in names:
                local_file = str(Path(directory, name))
                if Path(local_file).is_file():
                    target = None if remote == "." else remote
                    uploads[local_file] = self.thread_pool.submit(self.log_artifact, local_file, target)
        _raise_failures(uploads)

    def log_artifact_from_stream(
        self, stream: BinaryIO, artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """Upload what ``stream`` yields as ``artifact_file_name`` into the directory ``artifact_path``."""
        self._upload(Source(stream), posixpath.basename(artifact_file_name), artifact_path)

    async def log_artifact_from_async_stream(
        self, chunks: AsyncIterable[bytes], artifact_file_name: str, artifact_path: str | None = None
    ) -> None:
        """As ``log_artifact_from_stream``. Holds at most a few MiB in memory and nothing on disk.

        A connection is taken only when the first MiB is there, so that slow clients do not hold up others.
        """
        name = posixpath.basename(artifact_file_name)
        blocks = in_blocks(chunks, self._settings.data_timeout)
        loop = asyncio.get_running_loop()
        try:
            first = await anext(blocks, b"")
            second = await anext(blocks, None)
            if second is None:
                whole = Source(io.BytesIO(first))
                await loop.run_in_executor(self._server_threads, self._upload, whole, name, artifact_path)
                return
            pipe = UploadPipe()
            upload = loop.run_in_executor(self._server_threads, self._upload, Source(pipe), name, artifact_path)
            upload.add_done_callback(lambda _: pipe.abandon())
            try:
                await pipe.write(first)
                await pipe.write(second)
                # If the upload fails, the rest is read all the same, or the client sees a broken pipe, not the answer.
                async for block in blocks:
                    await pipe.write(block)
            except BaseException as fault:
                pipe.close(fault)
                await asyncio.gather(upload, return_exceptions=True)
                raise
            pipe.close()
            await upload
        except TimeoutError:
            raise MlflowException(
                f"Could not upload {name!r}: the client sent nothing for {self._settings.data_timeout:g} s.",
                error_code=BAD_REQUEST,
            ) from None

    def download_artifacts(self, artifact_path: str | None, dst_path: str | None = None) -> str:
        """As MLflow defines it; but what turns out to be a file is fetched at once, without being looked up first."""
        if artifact_path and dst_path and Path(dst_path).is_dir():
            local_path: str = self._create_download_destination(artifact_path, dst_path)
            if self._download(artifact_path, local_path):
                return local_path
        downloaded: str = super().download_artifacts(artifact_path, dst_path)
        return downloaded

    def download_to_async_stream(self, artifact_path: str) -> DownloadPipe:
        """Begin to download the file ``artifact_path``, and return where to read it.

        Needs a running event loop, and at most a few MiB in memory. The first ``read`` raises what is wrong with the
        file or the store, and NOT_IMPLEMENTED if the server does not tell sizes. From then on a fault of the server
        cannot be repaired, and is raised by a later ``read``.
        """
        pipe = DownloadPipe(_BLOCK_TIMEOUTS * self._settings.data_timeout)
        asyncio.get_running_loop().run_in_executor(self._server_threads, self._feed, pipe, artifact_path)
        return pipe

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What is directly in the directory ``path``; empty if ``path`` is a file or does not exist.

        Temporary files are not shown, and those left behind by a killed process are deleted.
        """
        directory = self._remote(path)

        def visit(connection: Connection) -> list[FileInfo]:
            try:
                entries = connection.entries(directory)
            except ftplib.error_perm:
                entry = connection.find(directory)
                if entry and entry.kind == "dir":  # which may not be entered
                    raise
                return []
            infos = []
            for entry in entries:
                child = posixpath.join(directory, entry.name)
                if entry.name.startswith(TEMPORARY):
                    if is_stale(entry.name, self._settings.stale_after):
                        with suppress(ftplib.error_perm):
                            connection.delete(child)
                    continue
                is_dir = entry.kind == "dir" or (entry.kind == "link" and connection.is_directory(child))
                shown = (
                    posixpath.join(path or "", entry.name).encode("utf-8", "surrogateescape").decode("utf-8", "replace")
                )
                infos.append(FileInfo(shown, is_dir, None if is_dir else entry.size))
            return sorted(infos, key=lambda info: info.path)

        return self._run(f"list {path or '/'!r}", visit)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete the file or directory ``artifact_path``, with all that is in it. What does not exist is no error."""
        path = self._remote(artifact_path)

        def delete(connection: Connection) -> None:
            try:
                connection.delete_tree(path)
            except ftplib.error_perm:
                if connection.find(path):
                    raise

        self._run(f"delete {artifact_path or '/'!r}", delete)

    def ping(self) -> None:
        """Have the server answer on a connection of the pool, once; nothing is asked while all of them are in use.

        Raises what connecting and an answer that fails raise (``Connection``).
        """
        if not self._pool.exhausted:
            with self._pool.connection() as connection:
                connection.is_directory(self._root)

    def _is_directory(self, artifact_path: str | None) -> bool:
        path = self._remote(artifact_path)
        return self._run(f"look up {artifact_path or '/'!r}", lambda connection: connection.is_directory(path))

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        if not self._download(remote_file_path, local_path):
            raise _is_a_directory(remote_file_path)

    def _download(self, artifact_path: str, local_path: str) -> bool:
        """As ``_fetch``; what cannot be fetched leaves no file."""
        fetched = False
        try:
            with Path(local_path).open("wb") as target:
                fetched = self._fetch(artifact_path, _LocalFile(target))
        finally:
            if not fetched:
                Path(local_path).unlink(missing_ok=True)
        return fetched

    def _fetch(self, artifact_path: str, target: Target, may_repeat: Callable[[], bool] = lambda: True) -> bool:
        """Download the file ``artifact_path`` into ``target``; or return False if it is a directory."""
        path = self._remote(artifact_path)

        def fetch(connection: Connection) -> str:
            try:
                connection.retrieve(path, target)
            except ftplib.error_perm:
                if connection.is_directory(path):
                    return "directory"
                if connection.find(path):
                    raise
                return "nothing"
            return "file"

        found = self._run(f"download {artifact_path!r}", fetch, may_repeat)
        if found == "nothing":
            raise MlflowException(f"No such artifact: {artifact_path!r}", error_code=RESOURCE_DOES_NOT_EXIST)
        return found == "file"

    def _feed(self, pipe: DownloadPipe, artifact_path: str) -> None:
        try:
            if not self._fetch(artifact_path, pipe, may_repeat=lambda: not pipe.begun):
                raise _is_a_directory(artifact_path)  # noqa: TRY301 -- as what _fetch raises
            pipe.close()
        except BaseException as fault:
            if pipe.begun and not isinstance(fault, BrokenPipeError):  # else the client can be told, or is gone
                _logger.error("A client's download of %r breaks off: %s", artifact_path, fault)  # noqa: TRY400
            pipe.close(fault)

    def _upload(self, source: Source, name: str, artifact_path: str | None) -> None:
        verify_artifact_path(artifact_path)
        if name.startswith(TEMPORARY):
            raise MlflowException.invalid_parameter_value(f"Names that begin with {TEMPORARY!r} are reserved: {name!r}")
        path = self._remote(posixpath.join(artifact_path or "", name))
        upload = Upload(source, posixpath.dirname(path), posixpath.basename(path))
        try:
            action = f"upload {posixpath.join(artifact_path or '', name)!r}"
            self._run(action, upload.attempt, may_repeat=lambda: upload.repeatable)
        finally:
            for leftover in upload.leftovers:
                with suppress(Exception), self._pool.connection() as connection:
                    connection.delete(leftover)

    def _make_directory(self, artifact_path: str) -> None:
        path = self._remote(artifact_path)
        self._run(f"make the directory {artifact_path!r}", lambda connection: connection.make_directories(path))

    def _remote(self, artifact_path: str | None) -> str:
        """The absolute path on the server of what MLflow calls ``artifact_path``."""
        path = artifact_path or ""
        if path.startswith("/") or ".." in path.split("/") or any(character in path for character in "\0\r\n"):
            raise MlflowException.invalid_parameter_value(
                f"Invalid artifact path: {path!r}. Expected a relative path without '..', line breaks and NUL."
            )
        return posixpath.normpath(posixpath.join(self._root, path))

    def _run(self, action: str, work: Callable[[Connection], _T], may_repeat: Callable[[], bool] = lambda: True) -> _T:
        """Do ``work`` on a connection of the pool, again if a fault is transient and ``may_repeat``.

        Raises MlflowException, or what this side's file or stream has raised.
        """
        last_start = time.monotonic() + self._settings.retry_window
        attempt = 0
        while True:
            attempt += 1
            try:
                with self._pool.connection() as connection:
                    return work(connection)
            except MlflowException:
                raise
            except LocalError as fault:
                raise fault.__cause__ or fault from None
            except Exception as fault:
                error = as_mlflow_exception(fault, action, str(self._settings))
                final = attempt == self._settings.attempts or time.monotonic() > last_start
                if final or not is_transient(fault) or not may_repeat():
                    raise error from fault
                _logger.warning("%s; attempt %d of %d", error.message, attempt, self._settings.attempts)
            time.sleep(_BACKOFF * 2 ** (attempt - 1) * random.uniform(0.5, 1.5))  # noqa: S311 -- no secret

    def _create_server_threads(self) -> ThreadPoolExecutor:
        """Threads of their own, so that transfers that wait for a connection do not use up the event loop's.

        More than there are connections, so that they wait in the pool, where waiting has a limit.
        """
        return ThreadPoolExecutor(4 * self._settings.pool_size, thread_name_prefix="mlflow-ftps")


class _LocalFile:
    """A file of this machine as the target of a download."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.write = file.write

    def begin(self, _size: int | None) -> None:
        self._file.seek(0)
        self._file.truncate()


def _raise_failures(uploads: dict[str, Future[None]]) -> None:
    faults = {local_file: fault for local_file, upload in uploads.items() if (fault := upload.exception())}
    if len(faults) == 1:
        raise next(iter(faults.values()))
    if faults:
        codes = {getattr(fault, "error_code", "INTERNAL_ERROR") for fault in faults.values()}
        raise MlflowException(
            f"{len(faults)} of {len(uploads)} files failed:\n"
            + "\n".join(f"{name}: {fault}" for name, fault in faults.items()),
            error_code=ErrorCode.Value(codes.pop()) if len(codes) == 1 else INTERNAL_ERROR,
        )


def _is_a_directory(artifact_path: str) -> MlflowException:
    error: MlflowException = MlflowException.invalid_parameter_value(f"The artifact {artifact_path!r} is a directory.")
    return error


_repositories: weakref.WeakSet[FTPArtifactRepository] = weakref.WeakSet()


def _after_fork() -> None:
    """Neither connections nor threads survive a fork, and an executor that had threads would wait for them for ever."""
    for repository in _repositories:
        repository._pool.reset()
        repository.thread_pool = repository._create_thread_pool()
        repository._server_threads = repository._create_server_threads()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
