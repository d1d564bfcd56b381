"""What a smoke test asks, and how it compares what comes back."""

from __future__ import annotations

import math
from typing import Any

import pytest
from ansible.module_utils.mlflow_api import ParameterError
from ansible.module_utils.smoke_test import Proof, Rows, compare, difference, scoring_request, shown


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
        (10**400, 1.5, math.inf),
        (10**400, 1, math.inf),
        (10**400, 10**400, 0),
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
