"""Issue line B3: the table that closes networks to neighbours. That it does is tested on hosts, in molecule/."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nft_table
import pytest
from ansible.module_utils import nftables
from ansible.module_utils.testing import patch_module_args

Run = Callable[..., dict[str, Any]]
# Keeps one table in a file; whatever it is told of it, it prints another way and without comments, as nft does.
NFT = """#!/bin/sh
case "$*" in
    "list tables inet") [ ! -e "$KERNEL" ] || echo "table inet ours" ;;
    "list table inet ours") tr -s ' ' < "$KERNEL" ;;
    "delete table inet ours") rm "$KERNEL" ;;
    "-f "*) text=$(grep -v '^#' "$2")
            case "$text" in *nonsense*) echo "syntax error" >&2; exit 1;; esac
            echo "$text" > "$KERNEL" ;;
esac
"""
UNSHARE = """#!/bin/sh
shift; KERNEL=$(mktemp) "$@"
"""


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host without nft."""
    environment = {"PATH": f"{tmp_path}/bin:/usr/bin:/bin", "KERNEL": f"{tmp_path}/kernel"}
    monkeypatch.setattr(nftables, "ENVIRONMENT", {**environment, "PATH": f"{tmp_path}/bin"})
    return tmp_path


@pytest.fixture
def nft(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install it."""
    (host / "bin").mkdir()
    for name, program in {"nft": NFT, "unshare": UNSHARE}.items():
        (host / "bin" / name).write_text(program)
        (host / "bin" / name).chmod(0o755)
    monkeypatch.setitem(nftables.ENVIRONMENT, "PATH", f"{host}/bin:/usr/bin:/bin")


@pytest.fixture
def run(host: Path, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the module and return its result."""

    def run(check_mode: bool = False, **parameters: object) -> dict[str, Any]:
        arguments = {"name": "ours", "path": f"{host}/nft.d/ours.nft", "_ansible_check_mode": check_mode, **parameters}
        with patch_module_args(arguments), pytest.raises(SystemExit):
            nft_table.main()
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    return run


@pytest.mark.usefixtures("nft")
def test_it_is_in_the_file_and_in_the_kernel_and_stays(run: Run, host: Path) -> None:
    assert run(rules="drop  everything")["changed"]

    assert "drop  everything" in (host / "nft.d/ours.nft").read_text()
    assert "drop  everything" in (host / "kernel").read_text()
    assert not run(rules="drop  everything")["changed"]


@pytest.mark.usefixtures("nft")
def test_a_look_at_it_tells_what_is_there_unchanged(run: Run, host: Path) -> None:
    """Issue line B5 of the first hour: the module runs only where a look shows that it has something to do."""
    file = host / "nft.d/ours.nft"
    assert nftables.unchanged("ours", file) == ""

    run(rules="drop  everything")
    assert "drop  everything" in nftables.unchanged("ours", file)

    loaded, written = (host / "kernel").read_text(), file.read_text()
    (host / "kernel").write_text(loaded.replace("drop", "accept"))
    assert nftables.unchanged("ours", file) == ""
    (host / "kernel").write_text(loaded)
    file.write_text(written.replace("everything", "nothing"))
    assert nftables.unchanged("ours", file) == ""
    file.write_bytes(b"\xff")
    assert nftables.unchanged("ours", file) == ""


@pytest.mark.usefixtures("nft")
def test_another_version_of_nft_changes_nothing(run: Run, host: Path) -> None:
    """It prints the same table in other words."""
    file, nft = host / "nft.d/ours.nft", host / "bin/nft"
    run(rules="drop  everything")
    nft.write_text(NFT.replace("tr -s ' '", "tr a-z A-Z"))

    assert nftables.unchanged("ours", file) == ""
    assert not run(rules="drop  everything")["changed"]
    assert "drop  everything" in nftables.unchanged("ours", file)


@pytest.mark.usefixtures("nft")
@pytest.mark.parametrize("drift", ["flushed", "edited", "file lost"])
def test_drift_is_healed(run: Run, host: Path, drift: str) -> None:
    run(rules="drop")
    kernel, file = (host / "kernel").read_text(), (host / "nft.d/ours.nft").read_text()
    if drift == "flushed":
        (host / "kernel").unlink()
    elif drift == "edited":
        (host / "kernel").write_text(kernel.replace("drop", "accept"))
    else:
        (host / "nft.d/ours.nft").unlink()

    assert run(check_mode=True, rules="drop")["changed"]
    assert run(rules="drop")["changed"]

    assert ((host / "kernel").read_text(), (host / "nft.d/ours.nft").read_text()) == (kernel, file)


@pytest.mark.usefixtures("nft")
def test_what_nft_refuses_is_not_written(run: Run, host: Path) -> None:
    run(rules="drop")
    before = (host / "nft.d/ours.nft").read_text()

    assert run(rules="nonsense")["msg"] == "The table ours of the firewall cannot be kept: syntax error."

    assert (host / "nft.d/ours.nft").read_text() == before


@pytest.mark.usefixtures("nft")
def test_it_goes(run: Run, host: Path) -> None:
    run(rules="drop")

    assert run(check_mode=True, state="absent")["changed"]
    assert (host / "kernel").exists()
    assert run(state="absent")["changed"]

    assert not (host / "kernel").exists()
    assert list((host / "nft.d").iterdir()) == []
    assert not run(state="absent")["changed"]


def test_a_host_without_nft(run: Run, host: Path) -> None:
    assert run(check_mode=True, rules="drop")["changed"]
    assert "install the package nftables" in run(rules="drop")["msg"]
    assert not run(state="absent")["changed"]
    assert list(host.iterdir()) == []


@pytest.mark.parametrize("name", ["", "1", "a b", "a;flush ruleset", "ä"])
def test_a_name_that_nft_would_not_take(run: Run, name: str) -> None:
    assert "is no name of a table" in run(name=name, rules="drop")["msg"]
