"""What the gateway begins with, where HAProxy refuses something. What HAProxy itself does is tested where it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
from lookups import REPO

sys.path.append(str(REPO / "roles/gateway/files/image"))

import haproxy_keeper

# Takes no file of the directory, and none that the configuration shows, in which it reads "bad".
HAPROXY = """#!/bin/sh
files="$3 $(grep -o '/[^ ]*[.]pem' "$3")"
if grep -q bad $files; then echo "[ALERT] bad" >&2; exit 1; fi
"""


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration that shows certbot's certificate, and has one of its own."""
    for name in ("bin", "run", "issued", "files"):
        (tmp_path / name).mkdir()
    program = tmp_path / "bin/haproxy"
    program.write_text(HAPROXY)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(haproxy_keeper, "RUN", tmp_path / "run")
    monkeypatch.setattr(haproxy_keeper, "ISSUED", tmp_path / "issued")
    (tmp_path / "files/haproxy.cfg").write_text(f"bind :8443 ssl crt {tmp_path}/run/of.pem\n")
    (tmp_path / "files/public.pem").write_text("own")
    return tmp_path / "files"


def begin(files: Path) -> str:
    return haproxy_keeper.begin(haproxy_keeper.state_of_files(files))


@pytest.mark.parametrize(("issued", "shown"), [("", "own"), ("of certbot", "of certbot"), ("bad", "own")])
def test_it_begins_with_the_certificate_of_certbot_if_haproxy_takes_it(files: Path, issued: str, shown: str) -> None:
    """A renewal that it does not take must not keep the gateway from starting again."""
    (files.parent / "issued/of.pem").write_text(issued)
    assert begin(files) == ""
    assert (files.parent / "run/of.pem").read_text() == shown


def test_it_does_not_begin_with_what_haproxy_refuses(files: Path) -> None:
    (files / "haproxy.cfg").write_text("bad")
    assert begin(files) == "[ALERT] bad"
