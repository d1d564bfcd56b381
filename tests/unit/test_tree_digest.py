"""The digest that an image is tagged with: same inputs, same tag; changed inputs, another one."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from lookups import lookup


def digest(*directories: Path) -> str:
    """The digest over directories."""
    (value,) = lookup("tree_digest", *directories)
    return str(value)


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
    assert digest(tree) == digest(copy)
    assert len(digest(tree)) == 64


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
    before = digest(tree)
    change(tree)
    assert digest(tree) != before


@pytest.mark.parametrize(
    "name", ["tests/test_server.py", "package/__pycache__/server.pyc", ".mypy_cache/x", "package.egg-info/PKG-INFO"]
)
def test_what_does_not_go_into_an_image_does_not_count(tree: Path, name: str) -> None:
    before = digest(tree)
    (tree / name).parent.mkdir()
    (tree / name).write_text("x")
    assert digest(tree) == before


def test_directories_count_in_their_order(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "requirements.txt").write_text("mlflow\n")
    assert len({digest(tree), digest(other), digest(tree, other), digest(other, tree)}) == 4


def test_a_file_that_moves_to_the_next_directory_is_a_change(tree: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    before = digest(tree, other)
    (tree / "package" / "server.py").rename(tree / "server.py")
    (tree / "Dockerfile").rename(other / "Dockerfile")
    (tree / "server.py").rename(other / "server.py")
    after = digest(tree, other)
    (other / "server.py").rename(tree / "server.py")
    assert len({before, after, digest(tree, other)}) == 3


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(AnsibleLookupError) as caught:
        digest(tmp_path / "nowhere")
    assert caught.value.message == f"The directory {tmp_path / 'nowhere'} does not exist."
