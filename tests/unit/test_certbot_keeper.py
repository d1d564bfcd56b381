"""When a certificate is due, and what the health check says of it. What certbot does is tested where it runs."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from lookups import REPO

sys.path.append(str(REPO / "roles/certbot/files/image"))

import certbot_keeper

NOW = datetime.now(UTC).replace(microsecond=0)


def certificate(days: float, left: float) -> x509.Certificate:
    """One that holds for so many days, of which a part is left."""
    name, key = x509.Name([]), ec.generate_private_key(ec.SECP256R1())
    end = NOW + timedelta(days=days * left)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, end - timedelta(days=days), end)
    return builder.sign(key, SHA256())


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certbot_keeper, "PUBLIC", tmp_path)
    monkeypatch.setattr(certbot_keeper, "FAULT", tmp_path / "fault")


@pytest.mark.parametrize("days", [90, 6, 1])
def test_it_is_due_when_a_third_of_its_time_is_left(days: float) -> None:
    assert certbot_keeper.seconds_until_due(certificate(days, left=0.34), NOW) > 0
    assert certbot_keeper.seconds_until_due(certificate(days, left=0.33), NOW) <= 0
    assert certbot_keeper.seconds_until_due(None, NOW) <= 0


def test_without_a_certificate_the_authority_has_the_word(capsys: pytest.CaptureFixture[str]) -> None:
    assert certbot_keeper.health("of", "127.0.0.1:9") == 1
    certbot_keeper.FAULT.write_text("It is not your domain.")
    assert certbot_keeper.health("of", "127.0.0.1:9") == os.EX_CONFIG
    assert "It is not your domain." in capsys.readouterr().out


@pytest.mark.parametrize(("left", "status"), [(0.2, 1), (0.1, os.EX_CONFIG), (-1, os.EX_CONFIG)])
def test_one_that_is_not_renewed_is_called_so_in_time(left: float, status: int, tmp_path: Path) -> None:
    """Nothing shows it here, which may pass; that its end is near does not."""
    (tmp_path / "of.pem").write_bytes(certificate(90, left).public_bytes(Encoding.PEM))
    certbot_keeper.FAULT.write_text("")
    assert certbot_keeper.health("of", "127.0.0.1:9") == status
