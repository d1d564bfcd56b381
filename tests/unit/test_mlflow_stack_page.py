"""What a browser finds on MLflow's page when it was never there before."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mlflow
import pytest

REPO = Path(__file__).parents[2]
sys.path.insert(0, str(REPO / "roles/mlflow/files/image/mlflow_stack_server"))

import mlflow_stack_page as page  # noqa: E402

BUILD = Path(mlflow.__file__).parent / "server/js/build"


@pytest.fixture(scope="module")
def scripts() -> str:
    """All of the script that MLflow's page runs."""
    return "\n".join(path.read_text() for path in (BUILD / "static/js").glob("*.js"))


@pytest.mark.parametrize("key", page.FIRST)
def test_mlflow_reads_each_choice_by_the_name_that_we_give_it(scripts: str, key: str) -> None:
    """Issue lines A3 and A5: a release that renames one would show its own page again."""
    name, version = key.rsplit("_v", 1)
    assert version == "1"
    assert f'"{name}"' in scripts


def test_mlflow_knows_the_value_and_marks_what_is_hidden(scripts: str) -> None:
    """Issue lines A3 and A5."""
    assert f'MACHINE_LEARNING="{page.FIRST["mlflow.workflowType_v1"]}"' in scripts
    assert '"data-assistant-ui":"true"' in scripts
    assert 'componentId:"mlflow.home.demo-banner.launch"' in scripts


def test_choices_stand_before_mlflows_own_script() -> None:
    """Issue lines A3 and A5."""
    shown = page.with_first_choices((BUILD / "index.html").read_text())

    ours, _, mlflows = shown.partition("static-files/static/js/main")
    assert json.dumps(page.FIRST) in ours
    assert page.HIDDEN in ours
    assert "<title>MLflow</title>" in shown
    assert mlflows.endswith("</html>")
