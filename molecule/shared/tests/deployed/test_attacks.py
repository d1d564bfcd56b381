"""What a hostile account tries against the deployed platform, and does not get (issue lines B1, B2)."""

from __future__ import annotations

import secrets

import attacks
import pytest
from attacks import ATTACKS, Answer, Prey
from stack import Stack

MLFLOW = "http://127.0.0.1:5000"


@pytest.fixture(scope="module")
def prey(stack: Stack) -> Prey:
    """An owner and what it has, and a thief whom it is denied."""

    def send(
        method: str, path: str, *, account: str, body: object = None, headers: dict[str, str] | None = None
    ) -> Answer:
        url = MLFLOW + path.replace(" ", "%20")
        return Answer(*stack.request(method, url, account=account, body=body, headers=headers))

    admin = f"admin:{stack.secrets()['mlflow_admin_password']}"
    return attacks.prepare(send, admin, secrets.token_hex(4), "ftps://ftp:2121/")


@pytest.mark.once
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_refused(prey: Prey, attack: str) -> None:
    prey.check_refused(attack)


@pytest.mark.once
def test_the_attacks_have_done_no_harm(prey: Prey) -> None:
    prey.check_unharmed()
