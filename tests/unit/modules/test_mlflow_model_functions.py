"""The functions under mlflow_model: the digest of a model, the comparison of predictions, tags, differences."""

from __future__ import annotations

import io
import json
import math
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.mlflow_api import ParameterError
from mlflow_model import (
    Differences,
    Proof,
    Rows,
    compare,
    content_digest,
    difference,
    directory_files,
    lasting_lines,
    scoring_request,
    shown,
    tag_changes,
    tag_values,
)

# The digest


MLMODEL = """artifact_path: mlflow-artifacts:/0/models/m-1/artifacts
flavors:
  sklearn:
    run_id: part of the flavor
mlflow_version: 3.17.2
model_id: m-1
model_size_bytes: 10
model_uuid: m-1
run_id: 0a1b
signature:
  inputs: '[{"type": "double"}]'
utc_time_created: '2026-11-23
  20:52:49.598536'
"""


def digest(**files: bytes) -> str:
    return content_digest((path, io.BytesIO(content)) for path, content in sorted(files.items()))


def skops(schema: dict[str, Any], files: dict[str, bytes], year: int = 2026) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as writer:
        for name, content in {**files, "schema.json": json.dumps(schema, indent=2).encode()}.items():
            writer.writestr(zipfile.ZipInfo(name, (year, 1, 1, 0, 0, 0)), content)
    return archive.getvalue()


def test_lasting_lines_are_those_that_no_training_changes() -> None:
    assert lasting_lines(MLMODEL) == (
        "flavors:\n"
        "  sklearn:\n"
        "    run_id: part of the flavor\n"
        "mlflow_version: 3.17.2\n"
        "signature:\n"
        '  inputs: \'[{"type": "double"}]\'\n'
    )


def test_digest_is_that_of_the_content() -> None:
    first = digest(MLmodel=MLMODEL.encode(), data=b"1")
    assert first.startswith("sha256:")
    assert len(first) == len("sha256:") + 64
    assert digest(MLmodel=MLMODEL.replace("0a1b", "9f8e").replace("m-1", "m-2").encode(), data=b"1") == first
    assert digest(MLmodel=MLMODEL.replace("3.17.2", "3.17.3").encode(), data=b"1") != first
    assert digest(MLmodel=MLMODEL.encode(), data=b"2") != first
    assert digest(MLmodel=MLMODEL.encode(), other=b"1") != first
    assert digest(MLmodel=MLMODEL.encode(), data=b"1", more=b"") != first


def test_digest_does_not_take_one_file_for_two() -> None:
    assert digest(a=b"b", c=b"d") != digest(a=b"bc", d=b"")


def model_of_skops(*ids: int, value: object = 7, array: bytes = b"array", year: int = 2026) -> bytes:
    schema = {
        "content": [
            {"__id__": ids[0], "content": value},
            {"__id__": ids[1], "file": f"{ids[1]}.npy"},
            {"__id__": ids[0], "content": value},
        ],
        "__id__": ids[2],
    }
    return skops(schema, {f"{ids[1]}.npy": array}, year)


def test_digest_of_skops_does_not_depend_on_addresses_and_times() -> None:
    first = digest(**{"model.skops": model_of_skops(100, 200, 300)})
    assert digest(**{"model.skops": model_of_skops(9000, 5, 41, year=1999)}) == first


@pytest.mark.parametrize(
    "other",
    [
        model_of_skops(100, 200, 300, value=8),
        model_of_skops(100, 200, 300, value=100),
        model_of_skops(100, 200, 300, array=b"another"),
        model_of_skops(100, 100, 300),
        b"not an archive",
    ],
    ids=["value", "a value like an address", "array", "the same object twice", "no archive"],
)
def test_digest_of_skops_depends_on_what_it_holds(other: bytes) -> None:
    assert digest(**{"model.skops": other}) != digest(**{"model.skops": model_of_skops(100, 200, 300)})


def test_files_of_a_directory_are_sorted_and_relative(tmp_path: Path) -> None:
    for path in ("b", "a/c", "MLmodel", "registered_model_meta"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(path)
    assert [(path, file.read()) for path, file in directory_files(tmp_path)] == [
        ("MLmodel", b"MLmodel"),
        ("a/c", b"a/c"),
        ("b", b"b"),
    ]


# The comparison


@pytest.mark.parametrize(
    ("expected", "got", "distance"),
    [
        (1, 1.0, 0),
        (1, 3.5, 2.5),
        (True, 1, 0),
        ("a", "a", 0),
        ("a", "b", math.inf),
        ("1", 1, math.inf),
        (None, None, 0),
        (1, None, math.inf),
        (1.0, math.nan, math.inf),
        (math.nan, math.nan, math.inf),
        (math.inf, math.inf, 0),
        (math.inf, 1, math.inf),
        (2**60, 2**60 + 1, 1),
        ([1, 2], [1, 4], 2),
        ([1, 2], [1], math.inf),
        ([], [], 0),
        ({"a": 1, "b": [2]}, {"a": 1, "b": [2.5]}, 0.5),
        ({"a": 1}, {"b": 1}, math.inf),
    ],
)
def test_difference(expected: object, got: object, distance: float) -> None:
    assert difference(expected, got) == distance


def test_predictions_as_expected() -> None:
    proof = compare([1.0, 2.0], [1.0, 2.0000005], tolerance=1e-6)
    assert (proof.rows, proof.problems) == (2, ())
    assert proof.max_difference == pytest.approx(5e-7)


def test_the_tolerance_is_the_largest_difference_that_passes() -> None:
    assert compare([1.0], [1.5], tolerance=0.5).problems == ()
    assert compare([1.0], [1.5], tolerance=0.4).problems == (
        "row 0: expected 1.0, got 1.5, difference 0.5 (tolerance 0.4)",
    )


def test_a_wrong_row_is_named() -> None:
    proof = compare(["red", "white", "red"], ["red", "white", None], tolerance=1e-6)
    assert proof == Proof(rows=3, max_difference=None, problems=('row 2: expected "red", got null',))


def test_nan_is_never_right() -> None:
    assert compare([math.nan], [math.nan], tolerance=1e-6).problems == ("row 0: expected NaN, got NaN",)


def test_of_many_wrong_rows_three_are_named() -> None:
    proof = compare([0] * 10, [1] * 10, tolerance=1e-6)
    assert proof.max_difference == 1
    assert proof.problems == (
        "row 0: expected 0, got 1, difference 1 (tolerance 1e-06)",
        "row 1: expected 0, got 1, difference 1 (tolerance 1e-06)",
        "row 2: expected 0, got 1, difference 1 (tolerance 1e-06)",
        "7 more of 10 rows differ",
    )


def test_the_number_of_rows_has_to_be_right() -> None:
    assert compare([1, 2, 3], [1, 2], tolerance=1e-6) == Proof(rows=2, problems=("number of rows: expected 3, got 2",))
    assert compare([1], [], tolerance=1e-6).problems == ("number of rows: expected 1, got 0",)


def test_a_long_value_is_cut() -> None:
    assert shown([1, "a"]) == '[1, "a"]'
    assert shown("a" * 200) == f'"{"a" * 116}...'


@pytest.mark.parametrize(
    ("inputs", "request_body"),
    [
        ([[1, 2]], {"inputs": [[1, 2]]}),
        ([{"x": 1}], {"inputs": [{"x": 1}]}),
        ({"x": [1]}, {"inputs": {"x": [1]}}),
        ({"columns": ["x"], "data": [[1]]}, {"dataframe_split": {"columns": ["x"], "data": [[1]]}}),
        ({"columns": [1], "data": [1], "x": [1]}, {"inputs": {"columns": [1], "data": [1], "x": [1]}}),
        ({"dataframe_records": [{"x": 1}]}, {"dataframe_records": [{"x": 1}]}),
        ({"instances": [1], "params": {"p": 2}}, {"instances": [1], "params": {"p": 2}}),
    ],
)
def test_scoring_request(inputs: list[Any] | dict[str, Any], request_body: dict[str, Any]) -> None:
    assert scoring_request(inputs) == request_body


@pytest.mark.parametrize(
    ("inputs", "expected", "message"),
    [
        ([], [1], "smoke_test: inputs: expected a list or a dictionary that is not empty, got []"),
        ("[1]", [1], 'smoke_test: inputs: expected a list or a dictionary that is not empty, got "[1]"'),
        ([1], [], "smoke_test: expected: expected a list that is not empty, got []"),
        ([1], {"a": 1}, 'smoke_test: expected: expected a list that is not empty, got {"a": 1}'),
    ],
)
def test_rows_that_prove_nothing(inputs: object, expected: object, message: str) -> None:
    with pytest.raises(ParameterError) as error:
        Rows.of(inputs, expected)
    assert str(error.value) == message


# Tags and differences


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
