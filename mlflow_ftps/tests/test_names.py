"""Whatever a file may be called, it comes back: properties of names and trees, on every server."""

import shutil
import uuid
from pathlib import Path

from ftp_servers import FtpServer
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from mlflow_ftps.repository import FTPArtifactRepository

_on_real_servers = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def _is_legal(name: str) -> bool:
    return name not in (".", "..") and len(name.encode()) <= 255 and not name.startswith(".artifact.uploading.")


names = st.text(st.characters(codec="utf-8", exclude_characters="/\0\r\n"), min_size=1, max_size=80).filter(_is_legal)
contents = st.binary(max_size=200)
names_for_all = names.filter(lambda name: "*" not in name)  # ProFTPD refuses it in the names of directories
trees = st.recursive(
    contents, lambda children: st.dictionaries(names_for_all, children, max_size=4), max_leaves=8
).filter(lambda tree: isinstance(tree, dict))


@given(name=names, content=contents)
@example(name=" ", content=b"")
@example(name=" both sides ", content=b"1")
@example(name="a -> b", content=b"1")
@example(name="-la", content=b"1")
@example(name="*?[a]{b,c}~", content=b"1")
@example(name="%20%s\\ \"'`$(x);&|#!", content=b"1")
@example(name="tab\tbell\x07escape\x1b[0m", content=b"1")
@example(name="\x85\u2028\x0b\x0c\x1c", content=b"1")
@example(name="\xff\xfe\xf4IAC", content=b"1")
@example(name="type=dir;size=5; name", content=b"1")
@example(name="f (5 bytes).", content=b"1")
@example(name="💾" * 20, content=b"1")
@_on_real_servers
def test_a_file_of_any_name_comes_back(server: FtpServer, tmp_path: Path, name: str, content: bytes) -> None:
    run = uuid.uuid4().hex
    store = FTPArtifactRepository(f"{server.uri}/{run}")
    local, back = tmp_path / run, tmp_path / f"{run}-back"
    local.mkdir()
    back.mkdir()
    (local / name).write_bytes(content)

    store.log_artifact(str(local / name))

    assert [(info.path, info.file_size) for info in store.list_artifacts()] == [(name, len(content))]
    assert Path(store.download_artifacts(name, str(back))).read_bytes() == content
    assert [path.name for path in (server.directory / run).iterdir()] == [name]
    store.delete_artifacts(name)
    assert store.list_artifacts() == []


@given(tree=trees)
@_on_real_servers
def test_a_tree_of_any_shape_comes_back(server: FtpServer, tmp_path: Path, tree: dict[str, object]) -> None:
    run = uuid.uuid4().hex
    store = FTPArtifactRepository(f"{server.uri}/{run}")
    local, back = tmp_path / run, tmp_path / f"{run}-back"
    _write(local, tree)
    back.mkdir()

    store.log_artifacts(str(local), "tree")
    store.download_artifacts("tree", str(back))

    assert _read(back / "tree") == tree
    store.delete_artifacts()
    assert not (server.directory / run).exists()
    shutil.rmtree(local)
    shutil.rmtree(back)


def _write(path: Path, tree: object) -> None:
    if isinstance(tree, bytes):
        path.write_bytes(tree)
    elif isinstance(tree, dict):
        path.mkdir()
        for name, child in tree.items():
            _write(path / name, child)


def _read(path: Path) -> object:
    return {child.name: _read(child) for child in path.iterdir()} if path.is_dir() else path.read_bytes()
