"""The digest of a model's files, and where they are read from."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from ansible.module_utils.model_digest import content_digest, directory_files, lasting_lines

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
    found: str = content_digest((path, io.BytesIO(content)) for path, content in sorted(files.items()))
    return found


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
