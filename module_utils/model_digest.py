"""The digest of a model's files: equal for models of equal content, whichever run trained them and whenever."""

from __future__ import annotations

import hashlib
import re
import tempfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from mlflow_api import Mlflow

MODEL_FILE = "MLmodel"
REGISTRATION_FILE = "registered_model_meta"  # left by MLflow in a directory that it downloaded a version to
VOLATILE_KEYS = ("artifact_path", "model_id", "model_size_bytes", "model_uuid", "run_id", "utc_time_created")
SKOPS_SCHEMA = "schema.json"
CHUNK = 1 << 20  # bytes


def content_digest(files: Iterable[tuple[str, IO[bytes]]]) -> str:
    """Digest of a model, `sha256:…`, from the sorted pairs of path and content of its files.

    Equal for models of equal content, whichever run trained them and whenever.
    """
    digest = hashlib.sha256()
    for path, content in files:
        digest.update(f"{path}\0{_file_digest(path, content)}\n".encode())
    return f"sha256:{digest.hexdigest()}"


def _file_digest(path: str, content: IO[bytes]) -> str:
    if path == MODEL_FILE:
        return hashlib.sha256(lasting_lines(content.read().decode()).encode()).hexdigest()
    if path.endswith(".skops") and zipfile.is_zipfile(content):
        return _skops_digest(content)
    return _sha256(content)


def _sha256(content: IO[bytes]) -> str:
    digest = hashlib.sha256()
    content.seek(0)
    while chunk := content.read(CHUNK):
        digest.update(chunk)
    return digest.hexdigest()


def lasting_lines(mlmodel: str) -> str:
    """The file MLmodel without the top-level keys that every training changes."""
    return re.sub(rf"^({'|'.join(VOLATILE_KEYS)}):.*\n?([ -].*\n?)*", "", mlmodel, flags=re.MULTILINE)


def _skops_digest(content: IO[bytes]) -> str:
    """Digest of a skops file by what it holds.

    Its schema.json names objects, and the files beside it, by their addresses in memory: here they are numbered in the
    order of their appearance. The times of the archive's members do not count.
    """
    with zipfile.ZipFile(content) as archive:
        numbers: dict[str, str] = {}
        schema = re.sub(
            r'(?<="__id__": )\d+|(?<="file": ")[^".]+',
            lambda name: numbers.setdefault(name[0], f"#{len(numbers)}"),
            archive.read(SKOPS_SCHEMA).decode(),
        )
        files = {numbers.get(name.split(".")[0], name): name for name in archive.namelist() if name != SKOPS_SCHEMA}
        digest = hashlib.sha256(schema.encode())
        for number in sorted(files):
            with archive.open(files[number]) as member:
                digest.update(f"\0{number}\0{_sha256(member)}".encode())
    return digest.hexdigest()


def directory_files(directory: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Pairs of relative path and open content, sorted by path; a file is closed when the next one is asked for."""
    paths = {path.relative_to(directory).as_posix(): path for path in directory.rglob("*") if path.is_file()}
    for name in sorted(paths.keys() - {REGISTRATION_FILE}):
        with paths[name].open("rb") as content:
            yield name, content


def remote_files(mlflow: Mlflow, uri: str) -> Iterator[tuple[str, IO[bytes]]]:
    """As directory_files, of artifacts; each file is held in a temporary one."""
    for path in mlflow.files(uri):
        with tempfile.TemporaryFile() as content:
            mlflow.download(uri, path, content)
            yield path, content
