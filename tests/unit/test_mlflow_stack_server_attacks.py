"""The attacks on the deployed platform, against the same server on this machine (issue lines B1, B2)."""

from __future__ import annotations

from collections.abc import Iterator

import mlflow_stack_rig
import pytest
from mlflow_stack_rig import Pyftpdlib, attacks


@pytest.fixture(scope="module")
def prey(tmp_path_factory: pytest.TempPathFactory) -> Iterator[attacks.Prey]:
    """What the thief is after, on a server of its own."""
    ftp = Pyftpdlib(tmp_path_factory.mktemp("ftp"), None)
    ftp.start()
    try:
        with mlflow_stack_rig.running(tmp_path_factory.mktemp("mlflow") / "home", ftp.uri) as rig:
            yield attacks.prepare(rig.send, mlflow_stack_rig.ADMIN, "x", ftp.uri)
    finally:
        ftp.kill()


@pytest.mark.parametrize("attack", attacks.ATTACKS)
def test_an_attack_is_refused(prey: attacks.Prey, attack: str) -> None:
    """Issue lines B1 and B2."""
    try:
        prey.check_refused(attack)
    finally:
        prey.check_unharmed()
