"""The functions under mlflow_model: tags, differences."""

from __future__ import annotations

from mlflow_model import Differences, tag_changes, tag_values


def test_tags_are_text() -> None:
    tags = tag_values({"text": "a", "number": 1, "truth": True, "list": ["b"], "gone": None})
    assert tags == {"text": "a", "number": "1", "truth": "true", "list": '["b"]', "gone": None}


def test_only_tags_that_differ_change() -> None:
    current = {"same": "1", "other": "1", "unwanted": "1", "left alone": "1"}
    wanted = {"same": "1", "other": "2", "unwanted": None, "never there": None, "new": "3"}
    assert tag_changes(current, wanted) == {"other": "2", "unwanted": None, "new": "3"}


def test_differences_feed_changed_and_diff() -> None:
    differences = Differences()
    assert not differences.record("same", 1, 1)
    assert differences.as_result() == {"changed": False, "diff": {"before": {}, "after": {}}}
    assert differences.record("alias", {"champion": None}, {"champion": 1})
    assert differences.as_result() == {
        "changed": True,
        "diff": {"before": {"alias": {"champion": None}}, "after": {"alias": {"champion": 1}}},
    }
