"""Lookup of what tells one deployment's secrets from another's, without showing any."""

from __future__ import annotations

import hashlib
import hmac
import re
from pathlib import Path
from typing import Any, TypedDict

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding

DOCUMENTATION = """
name: deployment_identity
short_description: Fingerprints of a deployment's authorities and secrets
description:
  - Reads the authorities that lie in O(directory), and generates nothing.
  - The fingerprint of a secret is keyed by the private key of an authority, so that it tells nothing of the secret to
    those who have not got the key.
options:
  _terms:
    description: A dictionary from names of secrets to their values; empty ones do not count.
    required: true
    type: list
    elements: dict
  directory:
    description: Directory on the control node.
    required: true
    type: path
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.debug:
    msg: "{{ lookup('deployment_identity', {'ftp_password': ftp_password}, directory='inventory/prod/secrets') }}"
"""

RETURN = """
_raw:
  description: >-
    A list of authorities, the oldest first. Each has a C(fingerprint) (SHA-256 of its certificate), a
    C(checksum) (SHA-256 of its certificate in PEM), and C(secrets), a dictionary from names to fingerprints.
  type: list
  elements: list
"""

FILE = re.compile(r"authority(?:_([1-9]\d*))?\.txt")  # as the lookup certificate names them
BEGIN = "-----BEGIN CERTIFICATE-----"


class Authority(TypedDict):
    """What one authority says of the secrets."""

    fingerprint: str
    checksum: str
    secrets: dict[str, str]


def describe(path: Path, secrets: dict[str, str]) -> Authority:
    """Fingerprints by the authority in one file. Raises AnsibleLookupError where it holds none."""
    try:
        key, begin, certificate_pem = path.read_text().partition(BEGIN)
        certificate = x509.load_pem_x509_certificate((begin + certificate_pem).encode())
    except (OSError, ValueError) as error:
        raise AnsibleLookupError(
            f"The deployment's authority {path} cannot be read: {error}. What runs trusts it: bring the file back."
        ) from None
    return {
        "fingerprint": certificate.fingerprint(SHA256()).hex(),
        "checksum": hashlib.sha256(certificate.public_bytes(Encoding.PEM)).hexdigest(),
        "secrets": {
            name: hmac.new(key.encode(), f"{name}={value}".encode(), "sha256").hexdigest()
            for name, value in sorted(secrets.items())
            if value
        },
    }


class LookupModule(LookupBase):  # type: ignore[misc]
    """Fingerprints by all authorities of a directory."""

    def run(
        self, terms: list[dict[str, str]], variables: dict[str, Any] | None = None, **kwargs: object
    ) -> list[list[Authority]]:
        self.set_options(var_options=variables, direct=kwargs)
        directory = Path(self.get_option("directory"))
        numbers = {int(match[1] or 1): path for path in directory.glob("*") if (match := FILE.fullmatch(path.name))}
        paths = [path for _, path in sorted(numbers.items())]
        return [[describe(path, secrets) for path in paths] for secrets in terms]
