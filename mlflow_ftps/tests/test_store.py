"""What an artifact repository does, on every server."""

import time
from pathlib import Path

import certificates
import pytest
from ftp_servers import PASSWORD, USER, Pyftpdlib6
from mlflow.exceptions import MlflowException

from mlflow_ftps.repository import FTPArtifactRepository

CONTENT = b"weights\0\r\n\xff" * 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(CONTENT)
    return path


def test_a_file_comes_back_as_it_went(store: FTPArtifactRepository, root: Path, file: Path, tmp_path: Path) -> None:
    store.log_artifact(str(file), "a/b")

    assert (root / "a" / "b" / "model.bin").read_bytes() == CONTENT
    (tmp_path / "back").mkdir()
    back = store.download_artifacts("a/b/model.bin", str(tmp_path / "back"))
    assert Path(back).read_bytes() == CONTENT


def test_files_go_and_come_back_over_ipv6(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    certificate = certificates.issue(tmp_path / "certificate", Pyftpdlib6.host)
    try:
        server = Pyftpdlib6(tmp_path / "server", certificate)
    except OSError:
        pytest.skip("this machine has no IPv6")
    (tmp_path / "netrc").write_text(f"machine {Pyftpdlib6.host} login {USER} password {PASSWORD}\n")
    monkeypatch.setenv("MLFLOW_FTPS_NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("MLFLOW_FTPS_CA_FILE", str(certificate.authority))
    server.start()
    try:
        store = FTPArtifactRepository(server.uri)
        for path in ("first", "second"):
            store.log_artifact(str(file), path)
            (tmp_path / path).mkdir()
            back = store.download_artifacts(f"{path}/model.bin", str(tmp_path / path))
            assert Path(back).read_bytes() == CONTENT
    finally:
        server.kill()


def test_an_artifact_replaces_the_one_of_its_name(store: FTPArtifactRepository, root: Path, file: Path) -> None:
    store.log_artifact(str(file))
    file.write_bytes(b"newer")
    store.log_artifact(str(file))

    assert {path.name: path.read_bytes() for path in root.iterdir()} == {"model.bin": b"newer"}


def test_a_tree_comes_back_with_dotfiles_and_empty_directories(
    store: FTPArtifactRepository, root: Path, tmp_path: Path
) -> None:
    tree = {".hidden": b"1", "sub/.dir/file": b"2", "sub/two words": b"", "sub/deep/er/-l": b"4", "sub/*?[x]": b"5"}
    local = tmp_path / "tree"
    for name, content in tree.items():
        (local / name).parent.mkdir(parents=True, exist_ok=True)
        (local / name).write_bytes(content)
    (local / "empty" / "inside").mkdir(parents=True)
    (tmp_path / "back").mkdir()

    store.log_artifacts(str(local), "run")
    store.download_artifacts("run", str(tmp_path / "back"))

    for place in (root / "run", tmp_path / "back" / "run"):
        assert {str(p.relative_to(place)): p.read_bytes() for p in place.rglob("*") if p.is_file()} == tree
        assert (place / "empty" / "inside").is_dir()


def test_lists_a_directory_sorted_with_sizes(store: FTPArtifactRepository, root: Path) -> None:
    (root / "d" / "sub").mkdir(parents=True)
    (root / "d" / "b").write_bytes(b"12345")
    (root / "d" / ".a").write_bytes(b"")

    listing = [(info.path, info.is_dir, info.file_size) for info in store.list_artifacts("d")]
    assert listing == [("d/.a", False, 0), ("d/b", False, 5), ("d/sub", True, None)]
    assert [info.path for info in store.list_artifacts()] == ["d"]


@pytest.mark.parametrize("path", [None, "missing", "missing/er", "d/file"])
def test_lists_nothing_for_a_file_and_for_what_is_missing(
    store: FTPArtifactRepository, root: Path, path: str | None
) -> None:
    if path == "d/file":
        (root / "d").mkdir(parents=True)
        (root / "d" / "file").write_bytes(b"1")
    assert store.list_artifacts(path) == []


def test_a_missing_artifact_is_a_404(store: FTPArtifactRepository, tmp_path: Path) -> None:
    with pytest.raises(MlflowException, match="No such artifact: 'no/such'") as error:
        store.download_artifacts("no/such", str(tmp_path))
    assert error.value.get_http_status_code() == 404


def test_deletes_a_file_and_a_tree_and_nothing_else(store: FTPArtifactRepository, root: Path) -> None:
    for name in ("keep/file", "gone/.hidden", "gone/sub/.dir/file", "file"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"1")

    store.delete_artifacts("gone")
    store.delete_artifacts("file")
    store.delete_artifacts("file")

    assert sorted(str(path.relative_to(root)) for path in root.rglob("*")) == ["keep", "keep/file"]
    store.delete_artifacts()
    assert not root.exists()


def test_deleting_a_link_leaves_its_target(store: FTPArtifactRepository, root: Path) -> None:
    (root / "target").mkdir(parents=True)
    (root / "target" / "file").write_bytes(b"1")
    (root / "tree").mkdir()
    (root / "tree" / "link").symlink_to("../target")

    store.delete_artifacts("tree")

    assert not (root / "tree").exists()
    assert (root / "target" / "file").exists()


@pytest.mark.parametrize("path", ["../escape", "a/../../escape", "/etc", "line\nbreak", "nul\0", "return\r"])
def test_refuses_paths_that_cannot_be(store: FTPArtifactRepository, file: Path, path: str) -> None:
    for operation in (lambda: store.log_artifact(str(file), path), lambda: store.list_artifacts(path)):
        with pytest.raises(MlflowException) as error:
            operation()
        assert error.value.get_http_status_code() in (400, 500)  # MLflow's own check of log_artifact's path says 500


def test_a_file_in_the_place_of_a_directory_is_refused_in_the_servers_words(
    store: FTPArtifactRepository, root: Path, file: Path
) -> None:
    root.mkdir()
    (root / "model.bin").write_bytes(b"in the way")

    with pytest.raises(MlflowException, match=r"upload 'model.bin/sub/model.bin' .*: it answered: 5\d\d ") as error:
        store.log_artifact(str(file), "model.bin/sub")
    assert error.value.get_http_status_code() == 403
    assert [path.name for path in root.iterdir()] == ["model.bin"]


def test_a_directory_in_the_place_of_a_file_is_refused_and_nothing_is_left(
    store: FTPArtifactRepository, root: Path, file: Path
) -> None:
    (root / "model.bin").mkdir(parents=True)

    with pytest.raises(MlflowException, match=r"it answered: 5\d\d "):
        store.log_artifact(str(file))
    assert [path.name for path in root.iterdir()] == ["model.bin"]


def test_temporary_files_are_hidden_and_deleted_when_stale(store: FTPArtifactRepository, root: Path) -> None:
    root.mkdir()
    fresh = root / f".artifact.uploading.{int(time.time())}.aa"
    stale = root / f".artifact.uploading.{int(time.time()) - 100_000}.bb"
    fresh.write_bytes(b"1")
    stale.write_bytes(b"1")

    assert store.list_artifacts() == []
    assert list(root.iterdir()) == [fresh]
