"""The copy that a model is served from: whole or not there, and no other copies than those that are needed."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import mlflow
import pytest
import yaml
from mlflow.pyfunc.model import PythonModel

SCRIPT = Path(__file__).parents[2] / "roles/serving/files/fetch.py"
FIRST, SECOND, THIRD = "1-0123456789ab", "2-0123456789ab", "3-0123456789ab"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fetch", SCRIPT)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def copy(directory: Path, text: str = "flavors: {}") -> None:
    """Make a copy of a model, as far as the script looks at it."""
    directory.mkdir()
    (directory / "MLmodel").write_text(text)


class Doubler(PythonModel):
    """A model."""

    def predict(self, context: object, model_input: list[float], params: object = None) -> list[float]:  # noqa: ARG002
        return [2 * value for value in model_input]


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A registered version."""
    home = tmp_path_factory.mktemp("mlflow")
    mlflow.set_tracking_uri(f"sqlite:///{home}/mlflow.db")
    with mlflow.start_run(experiment_id=mlflow.create_experiment("doubler", artifact_location=str(home / "artifacts"))):
        mlflow.pyfunc.log_model(name="model", python_model=Doubler(), registered_model_name="doubler")
    return "models:/doubler/1"


@pytest.fixture
def fetch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the script as the container does, in the test's directory."""

    def fetch(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["fetch.py", str(tmp_path), *arguments])
        script().main()

    return fetch


def test_what_is_fetched_can_be_served_without_a_server(
    fetch: Callable[..., None], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue line B7."""
    fetch(FIRST, uri)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert mlflow.pyfunc.load_model(str(tmp_path / FIRST)).predict([1.0]) == [2.0]


def test_a_copy_that_is_there_is_not_asked_for(fetch: Callable[..., None], tmp_path: Path) -> None:
    """Issue line B7: the copy serves when MLflow is gone, or the version is."""
    copy(tmp_path / FIRST)
    fetch(FIRST, "models:/missing/1")
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]


def test_a_download_that_fails_leaves_no_copy_and_the_next_one_nothing_else(
    fetch: Callable[..., None], uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue line A4: killed anywhere, healed by the next run."""

    def half(_: str, dst_path: str) -> None:
        Path(dst_path).mkdir()
        (Path(dst_path) / "MLmodel").write_text("flavors:")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.artifacts, "download_artifacts", half)
        with pytest.raises(OSError, match="No space left"):
            fetch(FIRST, uri)
    assert [path.name for path in tmp_path.iterdir()] == [f".{FIRST}"]

    fetch(FIRST, uri)
    assert [path.name for path in tmp_path.iterdir()] == [FIRST]
    assert (tmp_path / FIRST / "MLmodel").read_text() != "flavors:"


def test_other_copies_go_unless_they_are_needed(fetch: Callable[..., None], tmp_path: Path) -> None:
    """Issue line B7: what is served stays beside a candidate; what is not ours is left alone."""
    for name in (FIRST, SECOND, f".{SECOND}", "lost+found", "notes"):
        (tmp_path / name).mkdir()
    copy(tmp_path / THIRD)
    fetch(THIRD, "models:/missing/3", FIRST)
    assert sorted(path.name for path in tmp_path.iterdir()) == [FIRST, THIRD, "lost+found", "notes"]


def mlmodel(python_version: str, flavor: str) -> str:
    """An MLmodel of a model that was made with a version of Python."""
    return f"flavors:\n  python_function: {{python_version: {python_version}}}\n  {flavor}"


PICKLED = "sklearn: {serialization_format: cloudpickle}"


def test_code_of_another_python_is_refused(
    fetch: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Issue line C3: the server crashed (rc 139). A copy that is there was proved, and is not asked again."""
    text = mlmodel("3.9.18", PICKLED)
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", lambda _, dst_path: copy(Path(dst_path), text))

    with pytest.raises(SystemExit) as refusal:
        fetch(FIRST, "models:/doubler/2")

    said = str(refusal.value)
    assert said.startswith("models:/doubler/2 was pickled with Python 3.9.18 (cloudpickle), and models are served with")
    assert "\n" not in said
    assert list(tmp_path.iterdir()) == []
    copy(tmp_path / FIRST, text)
    fetch(FIRST, "models:/doubler/2")


@pytest.mark.parametrize(
    ("text", "fits"),
    [
        (mlmodel("3.13.1", PICKLED), True),
        (mlmodel("3.12.11", PICKLED), False),
        (mlmodel("3.1.3", PICKLED), False),
        ("flavors: {" + PICKLED + "}", False),
        (mlmodel("3.12.11", "sklearn: {serialization_format: skops}"), True),
        (mlmodel("3.12.11", "sklearn: {serialization_format: pickle}"), True),
        ("flavors: {python_function: {python_version: 3.12.11, model_code_path: model.py}}", True),
        ("flavors: {python_function: {python_version: 3.12.11, python_model: python_model.pkl}}", False),
        ("flavors:", True),
    ],
)
def test_what_can_be_loaded_is_left_to_its_proof(text: str, fits: bool) -> None:
    """Issue line C3: only code that is pickled depends on the minor version."""
    assert (script().why_unfit(yaml.safe_load(text), (3, 13)) == "") == fits
