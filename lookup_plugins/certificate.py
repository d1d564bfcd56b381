"""Lookup of a TLS certificate for one service, issued by the deployment's own authority and renewed in time."""

from __future__ import annotations

import fcntl
import ipaddress
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.types import CertificateIssuerPrivateKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DOCUMENTATION = """
name: certificate
short_description: Read the TLS certificate of a service, issuing it where there is none
description:
  - Each certificate is a file of its own in O(directory), with its private key, readable by its owner alone. So is the
    authority that signs them, which is made for the deployment on first use.
  - A certificate is issued anew in the last third of its time, when O(names) has changed, and after the authority has.
  - In check mode nothing is written, a certificate that would be issued is then a throw-away one.
options:
  _terms:
    description: Names of services; their files have the same names and _certificate.txt.
    required: true
    type: list
    elements: str
  directory:
    description: Directory on the control node.
    required: true
    type: path
  names:
    description: Host names and addresses by which clients reach the service.
    required: true
    type: list
    elements: str
author: mlflow-stack contributors
"""

EXAMPLES = """
- ansible.builtin.set_fact:
    ftp_certificate: "{{ lookup('certificate', 'ftp', directory='secrets', names=['ftp.example.org']).certificate }}"
"""

RETURN = """
_raw:
  description: For each service, in PEM, its C(certificate) and C(key), and its C(authority)'s certificate.
  type: list
  elements: dict
"""

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVICE_LIFETIME = timedelta(days=825)


@dataclass(frozen=True)
class Pair:
    """A certificate and its private key."""

    key: CertificateIssuerPrivateKeyTypes
    certificate: x509.Certificate

    @property
    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    @property
    def certificate_pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()


def read(path: Path) -> Pair | None:
    """The pair in a file; None where there is no file. Raises AnsibleLookupError where it holds something else."""
    try:
        text = path.read_text()
        key_pem, marker, certificate_pem = text.partition("-----BEGIN CERTIFICATE-----")
        key = cast(CertificateIssuerPrivateKeyTypes, load_pem_private_key(key_pem.encode(), password=None))
        return Pair(key, x509.load_pem_x509_certificate((marker + certificate_pem).encode()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise AnsibleLookupError(
            f"{path} cannot be read as a private key and a certificate, PEM: {error}. Remove it to have both made anew."
        ) from None


def write(path: Path, pair: Pair) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(pair.key_pem + pair.certificate_pem)
    draft.replace(path)


def due(certificate: x509.Certificate, now: datetime) -> bool:
    """Whether it is time to issue it anew: a third of its time is left, or less."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return end - now < (end - begin) / 3


def general_name(name: str) -> x509.GeneralName:
    """An address or a host name, as a certificate has it."""
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def alternative_names(names: list[str]) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([general_name(name) for name in names])


def fits(pair: Pair, authority: Pair, names: list[str]) -> bool:
    """Whether a service's certificate is this authority's and has just these names."""
    try:
        pair.certificate.verify_directly_issued_by(authority.certificate)
        found = pair.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (InvalidSignature, ValueError, TypeError, x509.ExtensionNotFound):
        return False
    return found == alternative_names(names)


def issue(
    common_name: str,
    lifetime: timedelta,
    now: datetime,
    extensions: list[x509.ExtensionType],
    issuer: Pair | None = None,
) -> Pair:
    """A new pair, signed by `issuer`, or by itself where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    signing_key = issuer.key if issuer else key
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(now + lifetime)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing_key.public_key()), critical=False)
    )
    for extension in extensions:
        builder = builder.add_extension(
            extension, critical=isinstance(extension, x509.BasicConstraints | x509.KeyUsage)
        )
    return Pair(key, builder.sign(signing_key, SHA256()))


def key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def issue_authority(now: datetime) -> Pair:
    extensions = [x509.BasicConstraints(ca=True, path_length=0), key_usage(signs_certificates=True)]
    return issue("mlflow-stack authority", AUTHORITY_LIFETIME, now, extensions)


def issue_service(name: str, names: list[str], authority: Pair, now: datetime) -> Pair:
    extensions = [
        x509.BasicConstraints(ca=False, path_length=None),
        key_usage(signs_certificates=False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        alternative_names(names),
    ]
    return issue(name, SERVICE_LIFETIME, now, extensions, authority)


def read_or_issue(path: Path, *, serves: Callable[[Pair], bool], issue: Callable[[], Pair], keep: bool) -> Pair:
    """The pair in a file where it still serves; else a new one, which the file then has if it is to be kept."""
    found = read(path)
    if found and serves(found):
        return found
    new = issue()
    if keep:
        write(path, new)
    return new


@contextmanager
def alone_in(directory: Path) -> Iterator[None]:
    """Make the directory, and let one process at a time into it: two authorities would not trust each other."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


class LookupModule(LookupBase):  # type: ignore[misc]
    """Read certificates by the names of their services; issue those that are missing."""

    def run(self, terms: list[str], variables: dict[str, Any] | None = None, **kwargs: object) -> list[dict[str, str]]:
        self.set_options(var_options=variables, direct=kwargs)
        directory, names = Path(self.get_option("directory")), self.get_option("names")
        keep = not (variables or {}).get("ansible_check_mode")
        try:
            with alone_in(directory) if keep else nullcontext():
                return [self._certificate(directory, term, names, keep=keep) for term in terms]
        except OSError as error:
            raise AnsibleLookupError(f"Certificates cannot be kept in {directory}: {error}.") from None

    @staticmethod
    def _certificate(directory: Path, service: str, names: list[str], *, keep: bool) -> dict[str, str]:
        now = datetime.now(UTC)
        authority = read_or_issue(
            directory / "authority.txt",
            serves=lambda pair: not due(pair.certificate, now),
            issue=lambda: issue_authority(now),
            keep=keep,
        )
        pair = read_or_issue(
            directory / f"{service}_certificate.txt",
            serves=lambda pair: not due(pair.certificate, now) and fits(pair, authority, names),
            issue=lambda: issue_service(service, names, authority, now),
            keep=keep,
        )
        return {"certificate": pair.certificate_pem, "key": pair.key_pem, "authority": authority.certificate_pem}
