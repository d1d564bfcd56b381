"""The smoke test of a served model: what it is asked, what it must answer, and how fast."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow_api import Http, MlflowError, ParameterError, require_plain_url
else:
    from ansible.module_utils.mlflow_api import Http, MlflowError, ParameterError, require_plain_url

SCORING_KEYS = {"inputs", "instances", "dataframe_split", "dataframe_records"}
LARGEST = 16 * 2**20  # bytes of what is asked, or answered: as JSON it takes 25 times its size in memory
LATENCY_SAMPLES = 3
PROBLEMS_SHOWN = 3


@dataclass(frozen=True)
class Rows:
    """What the endpoint is asked, and the predictions that are expected; None if any answer will do."""

    request: dict[str, Any]
    expected: list[Any] | None

    @classmethod
    def of(cls, inputs: object, expected: object, where: str = "smoke_test") -> Rows:
        """Raises ParameterError, naming where they stand, if nothing can be proved with them."""
        if not isinstance(inputs, (list, dict)) or not inputs:
            found = shown(inputs)
            raise ParameterError(f"{where}: inputs: expected a list or a dictionary that is not empty, got {found}")
        if not isinstance(expected, list) or not expected:
            found = shown(expected)
            raise ParameterError(f"{where}: expected: expected a list that is not empty, got {found}")
        return cls(scoring_request(inputs), expected)


@dataclass(frozen=True)
class SmokeTest:
    """The option smoke_test; rows: the path of the sample, unless they are given themselves; wait: seconds."""

    endpoint: str | None
    token: str | None = field(repr=False)
    rows: Rows | str
    input_example: bool
    tolerance: float
    max_latency_ms: float
    wait: float

    @classmethod
    def of(cls, option: Mapping[str, Any]) -> SmokeTest:
        """Raises ParameterError for a test that cannot be, or that cannot fail."""
        if option["endpoint"] is not None:
            require_plain_url("smoke_test.endpoint", option["endpoint"])
        tolerance = option["tolerance"]
        if not 0 <= tolerance < math.inf:
            raise ParameterError(f"smoke_test.tolerance is {tolerance:g}; expected 0 or a positive number")
        limit = math.inf if option["max_latency_ms"] is None else option["max_latency_ms"]
        if not limit > 0:
            raise ParameterError(f"smoke_test.max_latency_ms is {limit:g}; expected a positive number")
        return cls(
            endpoint=option["endpoint"],
            token=option["token"],
            rows=option["sample"] or Rows.of(option["inputs"], option["expected"]),
            input_example=option["input_example"],
            tolerance=tolerance,
            max_latency_ms=limit,
            wait=option["wait"],
        )


@dataclass(frozen=True)
class Proof:
    """Outcome of a smoke test; ran: False if there was nothing to ask."""

    rows: int = 0
    max_difference: float | None = None
    latency_ms: float | None = None
    problems: tuple[str, ...] = ()
    ran: bool = True

    def as_result(self) -> dict[str, Any]:
        return {
            "passed": not self.problems if self.ran else None,
            "rows": self.rows,
            "max_difference": self.max_difference,
            "latency_ms": self.latency_ms,
            "problems": list(self.problems),
        }


def scoring_request(inputs: list[Any] | dict[str, Any]) -> dict[str, Any]:
    """Body of a request to /invocations, see the option smoke_test.inputs."""
    if isinstance(inputs, dict) and inputs.keys() & SCORING_KEYS:
        return inputs
    if isinstance(inputs, dict) and {"columns", "data"} <= inputs.keys() <= {"columns", "data", "index"}:
        return {"dataframe_split": inputs}
    return {"inputs": inputs}


def predictions(endpoint: str, answer: bytes) -> list[Any]:
    """Raises MlflowError if the endpoint has answered something else."""
    try:
        content = json.loads(answer)
    except ValueError:
        text = shown(answer.decode(errors="replace"))
        raise MlflowError("POST", endpoint, f"expected JSON, got {text}", status=HTTPStatus.OK) from None
    rows = content.get("predictions") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise MlflowError(
            "POST", endpoint, f"expected a list of predictions, got {shown(content)}", status=HTTPStatus.OK
        )
    return rows


def difference(expected: object, got: object) -> float:
    """Largest absolute difference between numbers in the same place of two values as JSON has them.

    Infinite if their shapes or any other values differ, or if a number is NaN.
    """
    if isinstance(expected, (int, float)) and isinstance(got, (int, float)):
        try:
            distance = 0 if expected == got else abs(expected - got)
            return math.inf if math.isnan(distance) else distance
        except OverflowError:  # JSON knows integers that are larger than any float
            return math.inf
    if isinstance(expected, list) and isinstance(got, list) and len(expected) == len(got):
        return max((difference(*pair) for pair in zip(expected, got, strict=True)), default=0.0)
    if isinstance(expected, dict) and isinstance(got, dict) and expected.keys() == got.keys():
        return max((difference(expected[key], got[key]) for key in expected), default=0.0)
    return 0.0 if expected == got else math.inf


def compare(expected: list[Any], got: list[Any], tolerance: float) -> Proof:
    """Compares row by row; rows are counted from 0."""
    if len(expected) != len(got):
        return Proof(rows=len(got), problems=(f"number of rows: expected {len(expected)}, got {len(got)}",))
    differences = [difference(*pair) for pair in zip(expected, got, strict=True)]
    wrong = [row for row, distance in enumerate(differences) if distance > tolerance]
    problems = [_row_problem(row, expected[row], got[row], differences[row], tolerance) for row in wrong]
    if len(problems) > PROBLEMS_SHOWN:
        problems[PROBLEMS_SHOWN:] = [f"{len(problems) - PROBLEMS_SHOWN} more of {len(got)} rows differ"]
    largest = max(differences)
    return Proof(rows=len(got), max_difference=None if math.isinf(largest) else largest, problems=tuple(problems))


def _row_problem(row: int, expected: object, got: object, distance: float, tolerance: float) -> str:
    problem = f"row {row}: expected {shown(expected)}, got {shown(got)}"
    return problem if math.isinf(distance) else f"{problem}, difference {distance:.6g} (tolerance {tolerance:g})"


def shown(value: object) -> str:
    """A value as JSON, cut to the length that a message can bear."""
    text = json.dumps(value)
    return text if len(text) <= 120 else f"{text[:117]}..."


def run_smoke_test(http: Http, endpoint: str, test: SmokeTest, rows: Rows) -> Proof:
    """Asks the endpoint. Raises MlflowError if it does not answer, or answers with an error."""
    request = json.dumps(rows.request).encode()

    def ask() -> bytes:
        return http.send("POST", endpoint, body=request, largest=LARGEST)

    answer = ask()
    proof = Proof()
    if rows.expected is not None:
        try:
            proof = compare(rows.expected, predictions(endpoint, answer), test.tolerance)
        except RecursionError:
            raise MlflowError("POST", endpoint, "the answer is nested too deeply", status=HTTPStatus.OK) from None
    if proof.problems:
        return proof
    latency_ms = round(1000 * min(_seconds(ask) for _ in range(LATENCY_SAMPLES)), 3)
    if latency_ms > test.max_latency_ms:
        problem = f"the answer took {latency_ms:g} ms, expected at most {test.max_latency_ms:g} ms"
        return replace(proof, latency_ms=latency_ms, problems=(problem,))
    return replace(proof, latency_ms=latency_ms)


def _seconds(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start
