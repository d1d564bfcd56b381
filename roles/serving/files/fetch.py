"""Keep a copy of one version of a registered model, whole or not at all, so that serving it needs no MLflow.

Runs in the image that models are served from:

    fetch.py ROOT DIRECTORY URI [DIRECTORY ...]

The version of URI is downloaded to ROOT/DIRECTORY, unless it is there. Where some are named after it, all other copies
below ROOT are removed. A version that this image's Python cannot load ends the script with status 1 and a sentence.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

COPY = re.compile(r"\.?\d+-[0-9a-f]{12}")  # the names that the role gives, and ours while a download is under way


def fetch(uri: str, target: Path) -> None:
    """Download the version; the directory appears when all of it is on disk. Raises MlflowException, OSError.

    Ends the script where this Python cannot load it. A copy that is there was proved, and is not asked.
    """
    from mlflow.artifacts import download_artifacts  # takes seconds, and most runs have nothing to download

    draft = target.with_name(f".{target.name}")
    download_artifacts(uri, dst_path=str(draft))
    if reason := why_unfit(yaml.safe_load((draft / "MLmodel").read_text()), sys.version_info[:2]):
        shutil.rmtree(draft)
        sys.exit(f"{uri} {reason}")
    os.sync()  # a power cut must not leave a whole directory of empty files
    draft.rename(target)


def remove_others(root: Path, kept: Collection[str]) -> None:
    """Remove the copies that are not to be kept, and what an interrupted download has left. Raises OSError."""
    for path in root.iterdir():
        if COPY.fullmatch(path.name) and path.name not in kept:
            shutil.rmtree(path)


def holds_code(flavor: dict[str, Any]) -> bool:
    """Whether a flavor of a model has compiled Python code in it, as which cloudpickle keeps functions and classes."""
    return "python_model" in flavor or flavor.get("serialization_format") == "cloudpickle"


def why_unfit(model: dict[str, Any], python: tuple[int, int]) -> str:
    """What speaks against loading a model, by its MLmodel, with a version of Python; empty where nothing does.

    Code that one minor version has compiled crashes another, without a word. Of what holds none, its proof will tell.
    """
    flavors: dict[str, dict[str, Any]] = model.get("flavors") or {}
    made_with = str(flavors.get("python_function", {}).get("python_version", ""))
    served_with = "{}.{}".format(*python)
    if made_with.split(".")[:2] == served_with.split(".") or not any(map(holds_code, flavors.values())):
        return ""
    return (
        f"was pickled with Python {made_with or '(unknown)'} (cloudpickle), and models are served with Python "
        f"{served_with}, which cannot load it. Log it again with Python {served_with}, as Jupyter here has it, "
        "or without cloudpickle: as a model from code, or with skops."
    )


def main() -> None:
    root, directory, uri, *others = sys.argv[1:]
    if others:  # else nobody knows what the server that runs still needs
        remove_others(Path(root), {directory, *others})
    target = Path(root, directory)
    if target.is_dir():
        print(f"{uri} is there.")
    else:
        fetch(uri, target)
        print(f"{uri} is fetched.")


if __name__ == "__main__":
    main()
