"""Mappings that get the secrets that they lack."""

from __future__ import annotations

from pathlib import Path

from lookups import lookup


def given(directory: Path, *users: dict[str, object]) -> list[dict[str, object]]:
    return lookup("with_secret", *users, key="password", name="user_{name}", directory=str(directory))


def test_a_secret_that_is_missing_is_generated_once(tmp_path: Path) -> None:
    (first,), (again,) = given(tmp_path, {"name": "ada"}), given(tmp_path, {"name": "ada"})
    assert (
        first
        == again
        == {"name": "ada", "password": (tmp_path / "user_ada.txt").read_text().strip(), "generated": True}
    )


def test_one_that_is_there_stays(tmp_path: Path) -> None:
    assert given(tmp_path, {"name": "ada", "password": "x"}) == [{"name": "ada", "password": "x"}]
    assert list(tmp_path.iterdir()) == []


def test_nobody_needs_none(tmp_path: Path) -> None:
    assert given(tmp_path) == []
