"""The gateway with a certificate of the user's own, on the host that builds its images, and has systemd."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme
from door import SEARCH, basic, opened
from stack import PROJECT, Stack, changes


@pytest.mark.once
def test_the_gateway_shows_a_certificate_of_the_users_own(stack: Stack, tmp_path: Path) -> None:
    company = trustme.CA()
    key, chain = tmp_path / "key.pem", tmp_path / "chain.pem"
    with opened(stack, tmp_path) as door:
        own = company.issue_cert(door.address)
        own.private_key_pem.write_to_path(key)
        for certificate in own.cert_chain_pems:
            certificate.write_to_path(chain, append=True)
        company.cert_pem.write_to_path(door.authority)
        settings = {
            "gateway_tls": "files",
            "gateway_certificate_file": str(chain),
            "gateway_certificate_key_file": str(key),
            "gateway_authority_file": str(door.authority),
        }
        run = door.deploy(**settings)
        assert run.returncode == 0, run.stdout
        assert "not reached" not in run.stdout
        known = basic("jupyter", stack.secrets()["jupyter_mlflow_password"])
        assert door.ask("mlflow", SEARCH, headers=known).status == 200
        assert door.ask("start").status == door.ask("jupyter", "/api").status == 200
        assert door.predict(stack.secrets()[f"token_wine-quality_{PROJECT}"]).status == 200
        assert changes(door.deploy(**settings).stdout) == 0
