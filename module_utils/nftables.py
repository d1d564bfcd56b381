"""One table of nftables, in a file and in the kernel, for the modules that keep it and look at it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
SEAL = "# Made by mlflow-stack, with the kernel's table: "


class NftError(Exception):
    """nft is missing, or refuses; the message says which."""


def run(*command: str, text: str | None = None) -> str:
    """Standard output of a command that reads `text`. Raises NftError."""
    try:
        return subprocess.run(command, input=text, capture_output=True, text=True, check=True, env=ENVIRONMENT).stdout
    except FileNotFoundError:
        raise NftError(f"{command[0]} is not there: install the package nftables") from None
    except subprocess.CalledProcessError as error:
        raise NftError(error.stderr.strip() or f"{command[0]} ended with {error.returncode}") from None


def listing(name: str) -> str:
    """The kernel's table as nft prints it; empty if there is none. Raises NftError."""
    tables = run("nft", "list", "tables", "inet").splitlines()
    return run("nft", "list", "table", "inet", name) if f"table inet {name}" in tables else ""


def sealed(document: str, listed: str) -> str:
    """The file for a document that the kernel lists so: its first line tells whether either has changed since."""
    return f"{SEAL}{hashlib.sha256(f'{document}{listed}'.encode()).hexdigest()}\n{document}"


def document_of(text: str) -> str:
    """What a file says below its first line, if it has one of ours."""
    return text.partition("\n")[2] if text.startswith(SEAL) else text


def unchanged(name: str, path: Path) -> str:
    """The document in the file, if file and kernel are both as they were when it was loaded; else empty."""
    try:
        text = path.read_text()
        document = document_of(text)
        return document if text == sealed(document, listing(name)) else ""
    except (OSError, UnicodeDecodeError, NftError):
        return ""
