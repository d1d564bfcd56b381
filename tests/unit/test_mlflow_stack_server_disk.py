"""A full artifact disk, as a data scientist meets it: through MLflow's client, its server and the store's."""

from __future__ import annotations

import os
import time
from pathlib import Path

import mlflow
import mlflow_stack_rig
import pytest
import test_ftp_server
from mlflow_stack_rig import ADMIN
from test_ftp_server import PASSWORD, USER, small_disk

__all__ = ["small_disk"]


@pytest.mark.parametrize("size", [1000, 20_000_000])
def test_an_upload_to_a_full_disk_fails_at_once_and_says_so(
    tmp_path: Path,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
) -> None:
    """Issue line C, the last: the client waited 255 s for "too many 503"."""
    with test_ftp_server.running(tmp_path) as ftp:
        store = f"ftp://{USER}@127.0.0.1:{ftp.port}/"
        login = f"login {USER} password {PASSWORD}"
        with mlflow_stack_rig.running(tmp_path / "mlflow", store, login=login) as rig:
            username, password = ADMIN.split(":")
            monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", username)
            monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password)
            client = mlflow.MlflowClient(rig.url)
            run = client.create_run("0").info.run_id
            client.log_text(run, "there is room", "before.txt")
            room = os.statvfs(small_disk)
            (small_disk / "filler").write_bytes(bytes(room.f_bavail * room.f_bsize))
            (tmp_path / "model.pkl").write_bytes(bytes(size))
            began = time.monotonic()
            with pytest.raises(Exception, match=r"507 .*storage is full or broken: 452 No space left on device"):
                client.log_artifact(run, str(tmp_path / "model.pkl"))
            assert time.monotonic() - began < 5
            (small_disk / "filler").unlink()
            assert [info.path for info in client.list_artifacts(run)] == ["before.txt"]
            client.log_text(run, "there is room again", "after.txt")
