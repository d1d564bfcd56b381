"""Lookup of a TLS certificate for one service, issued by the deployment's own authority; both are renewed in time."""

from __future__ import annotations

import fcntl
import ipaddress
import os
import re
from collections.abc import Iterator
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
  - A certificate is issued anew in the last third of its time, when O(names) has changed, and when another authority
    signs.
  - In the last third of an authority's time the next one is made, in C(authority_2.txt), C(authority_3.txt) and so on.
    It is trusted at once and signs when it is a day old, so that every client knows it before a server shows its
    signature; where the one before it has less than 30 days left, it signs at once. An authority is trusted until it
    ends. Which one signs follows from the files alone, and none of them is ever written again, renamed or removed.
  - In check mode nothing is written, what would be issued is then a throw-away one.
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
  description: >-
    For each service, in PEM, its C(certificate) and C(key), and as C(authority) the certificates of all authorities to
    trust, the oldest first.
  type: list
  elements: dict
"""

AUTHORITY_LIFETIME = timedelta(days=3650)
SERVICE_LIFETIME = timedelta(days=825)
TRUSTED_FIRST = timedelta(days=1)  # before an authority signs
END_IS_NEAR = timedelta(days=30)  # of an authority: its successor signs, however young
AUTHORITY_FILE = re.compile(r"authority(?:_([1-9]\d*))?\.txt")


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


def read(path: Path, cure: str) -> Pair | None:
    """The pair in a file; None where there is no file.

    Raises AnsibleLookupError, with the cure, where it holds something else.
    """
    try:
        text = path.read_text()
        key_pem, marker, certificate_pem = text.partition("-----BEGIN CERTIFICATE-----")
        key = cast(CertificateIssuerPrivateKeyTypes, load_pem_private_key(key_pem.encode(), password=None))
        return Pair(key, x509.load_pem_x509_certificate((marker + certificate_pem).encode()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise AnsibleLookupError(
            f"{path} cannot be read as a private key and a certificate, PEM: {error}. {cure}"
        ) from None


def write(path: Path, pair: Pair) -> None:
    """Replace the file as a whole, readable by its owner alone."""
    draft = path.with_name(f".{path.name}")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(pair.key_pem + pair.certificate_pem)
        file.flush()
        os.fsync(file.fileno())  # a power cut leaves the old file or the new one, never an empty one
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
    end = now + lifetime
    if issuer:
        end = min(end, issuer.certificate.not_valid_after_utc)  # nobody accepts it after its issuer
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ
        .not_valid_after(end)
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


def issue_authority(number: int, now: datetime) -> Pair:
    extensions = [x509.BasicConstraints(ca=True, path_length=0), key_usage(signs_certificates=True)]
    name = "mlflow-stack authority" if number == 1 else f"mlflow-stack authority {number}"
    return issue(name, AUTHORITY_LIFETIME, now, extensions)


def issue_service(name: str, names: list[str], authority: Pair, now: datetime) -> Pair:
    extensions = [
        x509.BasicConstraints(ca=False, path_length=None),
        key_usage(signs_certificates=False),
        x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]),
        alternative_names(names),
    ]
    return issue(name, SERVICE_LIFETIME, now, extensions, authority)


def authority_path(directory: Path, number: int) -> Path:
    return directory / ("authority.txt" if number == 1 else f"authority_{number}.txt")


def read_authorities(directory: Path) -> dict[int, Pair]:
    """The deployment's authorities by their numbers, the oldest first. Raises AnsibleLookupError for a broken file."""
    names = [path.name for path in directory.iterdir()] if directory.is_dir() else []
    numbers = sorted(int(match[1] or 1) for match in map(AUTHORITY_FILE.fullmatch, names) if match)
    cure = "Bring it back from a copy of that directory: the services that run now trust what it signs, and no other."
    found = {number: read(authority_path(directory, number), cure) for number in numbers}
    return {number: pair for number, pair in found.items() if pair}


def authorities(directory: Path, now: datetime, *, keep: bool) -> list[Pair]:
    """The deployment's authorities, the oldest first; the next one is made when it is time, and kept if asked for."""
    found = read_authorities(directory)
    newest = max(found, default=0)
    if not found or due(found[newest].certificate, now):
        found[newest + 1] = issue_authority(newest + 1, now)
        if keep:
            write(authority_path(directory, newest + 1), found[newest + 1])
    return list(found.values())


def signer(authorities: list[Pair], now: datetime) -> Pair:
    """The newest that has been trusted for a while; the newest of all where there is none, or its end is near."""
    known = [pair for pair in authorities if now - pair.certificate.not_valid_before_utc >= TRUSTED_FIRST]
    if known and known[-1].certificate.not_valid_after_utc - now > END_IS_NEAR:
        return known[-1]
    return authorities[-1]


def trusted(authorities: list[Pair], now: datetime) -> str:
    """The certificates of those that have not ended, PEM."""
    return "".join(pair.certificate_pem for pair in authorities if pair.certificate.not_valid_after_utc > now)


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
        known = authorities(directory, now, keep=keep)
        authority = signer(known, now)
        path = directory / f"{service}_certificate.txt"
        pair = read(path, cure="Remove it to have both made anew; the authority stays.")
        if pair is None or due(pair.certificate, now) or not fits(pair, authority, names):
            pair = issue_service(service, names, authority, now)
            if keep:
                write(path, pair)
        return {"certificate": pair.certificate_pem, "key": pair.key_pem, "authority": trusted(known, now)}
