"""The reference of an image: the same inputs, the same tag; changed inputs, another one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from lookups import lookup


@pytest.mark.parametrize(
    ("image", "registry", "expected"),
    [
        ("docker.io/library/postgres:17.6", "", "postgres:17.6"),
        ("docker.io/portainer/portainer-ce:2.45.2", "", "portainer/portainer-ce:2.45.2"),
        ("quay.io/jupyter/minimal-notebook:2025-03-14", "", "quay.io/jupyter/minimal-notebook:2025-03-14"),
        ("docker.io/library/postgres:17.6", "mirror.example:5000/hub", "mirror.example:5000/hub/library/postgres:17.6"),
        ("quay.io/jupyter/minimal-notebook:2025-03-14", "mirror", "mirror/jupyter/minimal-notebook:2025-03-14"),
        ("registry.example/own:1", "mirror", "registry.example/own:1"),
    ],
)
def test_pulled_image(image: str, registry: str, expected: str) -> None:
    assert lookup("image_reference", image, registry=registry) == [expected]


@pytest.fixture
def build(tmp_path: Path) -> dict[str, Any]:
    """How an image is built from two directories."""
    for name in ("image", "plugin"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    return {
        "context": str(tmp_path / "image"),
        "additional_contexts": {"plugin": str(tmp_path / "plugin")},
        "args": {"BASE_IMAGE": "base:1"},
    }


def reference(build: dict[str, Any]) -> str:
    """The reference of the image that is built so."""
    (result,) = lookup("image_reference", "mlflow-stack/mlflow:3.17.2", build=build)
    return str(result)


def test_built_image_has_a_digest_of_its_inputs(build: dict[str, Any]) -> None:
    name, _, digest = reference(build).rpartition("-")
    assert name == "mlflow-stack/mlflow:3.17.2"
    assert len(digest) == 12
    assert reference(build) == reference(dict(reversed(build.items())))


CHANGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "another base": lambda build: build["args"].update(BASE_IMAGE="base:2"),
    "another source": lambda build: Path(build["context"], "file").write_text("x"),
    "another source of the plugin": lambda build: Path(build["additional_contexts"]["plugin"], "file").write_text("x"),
    "no plugin": lambda build: build.pop("additional_contexts"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_changed_inputs_give_another_tag(build: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> None:
    before = reference(build)
    change(build)
    assert reference(build) != before
