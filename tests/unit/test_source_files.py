"""The files that an image is built from: same inputs, same identities; changed inputs, others."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from image_context import pack
from lookups import lookup


def identities(directory: Path) -> list[str]:
    """What identifies the files below a directory."""
    return [file["id"] for file in lookup("source_files", directory)]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A directory to build an image from."""
    directory = tmp_path / "image"
    (directory / "package").mkdir(parents=True)
    (directory / "Dockerfile").write_text("FROM base\n")
    (directory / "package" / "server.py").write_text("print()\n")
    return directory


def test_same_files_elsewhere_and_at_another_time(tree: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(tree, tmp_path / "copy")
    os.utime(copy / "Dockerfile", (0, 0))
    (copy / "package" / "server.py").chmod(0o600)
    assert identities(tree) == identities(copy)
    assert len(identities(tree)) == 2


CHANGES: dict[str, Callable[[Path], object]] = {
    "other contents": lambda tree: (tree / "Dockerfile").write_text("FROM other\n"),
    "a new file": lambda tree: (tree / "empty").touch(),
    "a file less": lambda tree: (tree / "Dockerfile").unlink(),
    "another name": lambda tree: (tree / "Dockerfile").rename(tree / "dockerfile"),
    "another place": lambda tree: (tree / "package" / "server.py").rename(tree / "server.py"),
    "executable": lambda tree: (tree / "package" / "server.py").chmod(0o755),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_is_seen(tree: Path, change: Callable[[Path], object]) -> None:
    before = identities(tree)
    change(tree)
    assert identities(tree) != before


@pytest.mark.parametrize(
    "name", ["tests/test_server.py", "package/__pycache__/server.pyc", ".mypy_cache/x", "package.egg-info/PKG-INFO"]
)
def test_what_does_not_go_into_an_image_does_not_count(tree: Path, name: str) -> None:
    before = identities(tree)
    (tree / name).parent.mkdir()
    (tree / name).write_text("x")
    assert identities(tree) == before


def test_files_are_found_by_name_and_source(tree: Path) -> None:
    files = {file["name"]: Path(file["src"]).read_text() for file in lookup("source_files", tree)}
    assert files == {"Dockerfile": "FROM base\n", "package/server.py": "print()\n"}


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError) as caught:
        identities(tmp_path / "nowhere")
    assert caught.value.message == f"The directory {tmp_path / 'nowhere'} does not exist."


def test_the_context_of_an_image_holds_all_of_them(tree: Path, tmp_path: Path) -> None:
    (tree / "package" / "server.py").chmod(0o700)
    (tree / "link").symlink_to(tree / "Dockerfile")

    pack(tmp_path / "context.tar", {".": str(tree), "more": str(tree / "package")})

    shutil.unpack_archive(tmp_path / "context.tar", tmp_path / "context")
    assert (tmp_path / "context/link").read_text() == "FROM base\n"
    assert (tmp_path / "context/more/server.py").read_text() == "print()\n"
    assert (tmp_path / "context/package/server.py").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "context/Dockerfile").stat().st_mode & 0o777 == 0o644
