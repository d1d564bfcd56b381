"""Images in a directory of archives that `docker save` has written."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any, Literal

import pytest
from ansible.errors import AnsibleLookupError
from lookups import lookup


def archives(directory: Path | str) -> dict[str, str]:
    """The images in a directory."""
    (found,) = lookup("image_archives", directory)
    return dict(found)


def add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Put a file into an archive."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def save(archive: Path, *images: list[str] | None, mode: Literal["w", "w:gz"] = "w") -> Path:
    """Write an archive as docker save does; each image is the list of its tags, None if it was saved by its id."""
    entries: list[dict[str, Any]] = []
    with tarfile.open(archive, mode) as tar:
        for number, tags in enumerate(images):
            add(tar, f"{number}/VERSION", b"1.0")
            add(tar, f"{number}/layer.tar", bytes(10240))
            add(tar, f"{number}.json", b'{"architecture":"amd64","os":"linux"}')
            entries.append({"Config": f"{number}.json", "RepoTags": tags, "Layers": [f"{number}/layer.tar"]})
        add(tar, "manifest.json", json.dumps(entries).encode())
    return archive


def error(directory: Path) -> str:
    """The message that a directory is refused with."""
    with pytest.raises(AnsibleLookupError) as caught:
        archives(directory)
    return str(caught.value.message)


def test_images_are_known_by_their_tags_not_by_the_names_of_files(tmp_path: Path) -> None:
    plain = save(tmp_path / "b.tar", ["portainer/portainer-ce:2.45.0"])
    several = save(tmp_path / "a.tar", ["postgres:17.4", "postgres:17"], ["quay.io/jupyter/base:1"])
    zipped = save(tmp_path / "c.tar.gz", ["python:3.13-slim"], mode="w:gz")
    short = save(tmp_path / "d.tgz", ["vsftpd:3"], mode="w:gz")
    assert archives(tmp_path) == {
        "portainer/portainer-ce:2.45.0": str(plain),
        "postgres:17.4": str(several),
        "postgres:17": str(several),
        "quay.io/jupyter/base:1": str(several),
        "python:3.13-slim": str(zipped),
        "vsftpd:3": str(short),
    }


def test_other_files_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "SHA256SUMS").write_text("no archive")
    (tmp_path / "image.tar.part").write_text("a download that goes on")
    assert archives(tmp_path) == {}


def test_image_without_a_tag_is_not_found(tmp_path: Path) -> None:
    save(tmp_path / "id.tar", None)
    assert archives(tmp_path) == {}


def test_no_directory_is_asked_for() -> None:
    assert archives("") == {}


def test_missing_directory(tmp_path: Path) -> None:
    missing = tmp_path / "images"
    assert error(missing) == (
        f"image_archives_dir is {missing}, which is no directory on the control node: "
        "make it and put archives written by docker save there, or unset it."
    )


def test_archive_of_something_else(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "backup.tar", "w") as tar:
        add(tar, "etc/hosts", b"127.0.0.1 localhost\n")
    assert error(tmp_path) == (
        f"{tmp_path}/backup.tar is broken or none of docker save's (\"filename 'manifest.json' not found\"): "
        "write it with docker save -o FILE IMAGE:TAG, or take it out of image_archives_dir."
    )


def test_file_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "image.tar").write_text("<html>404 Not Found</html>")
    assert " (file could not be opened successfully): write it " in error(tmp_path)


@pytest.mark.parametrize("manifest", [b"not JSON", b'["layer"]', b'[{"src": "icon.png"}]'])
def test_manifest_of_something_else(tmp_path: Path, manifest: bytes) -> None:
    with tarfile.open(tmp_path / "web.tar", "w") as tar:
        add(tar, "manifest.json", manifest)
    assert error(tmp_path).startswith(f"{tmp_path}/web.tar is broken or none of docker save's (")


@pytest.mark.parametrize("suffix", [".tar", ".tar.gz"])
def test_broken_download(tmp_path: Path, suffix: str) -> None:
    archive = save(tmp_path / f"image{suffix}", ["postgres:17"], mode="w:gz" if suffix == ".tar.gz" else "w")
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert error(tmp_path).startswith(f"{archive} is broken or none of docker save's (")
