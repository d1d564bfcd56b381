"""Certificates of a deployment: issued once by an authority of its own, renewed in time, accepted by strict clients."""

from __future__ import annotations

import multiprocessing
import ssl
import stat
import sys
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from pathlib import Path
from types import ModuleType

import pytest
from ansible.errors import AnsibleLookupError
from ansible.plugins.loader import lookup_loader
from lookups import lookup

CONTEXT = multiprocessing.get_context("fork")


def certificate(directory: Path, *names: str, check_mode: bool = False) -> dict[str, str]:
    """PEM texts of the service `ftp`, reached by `names`, or by its own where there are none."""
    (pair,) = lookup(
        "certificate", "ftp", check_mode=check_mode, directory=str(directory), names=[*(names or ("ftp",))]
    )
    return dict(pair)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Where certificates will be kept; it does not exist yet."""
    return tmp_path / "production" / "secrets"


def plugin() -> ModuleType:
    """The plugin's module, which Ansible has loaded under a name of its own."""
    return sys.modules[type(lookup_loader.get("certificate")).__module__]


def handshake(pair: dict[str, str], authority: str, host: str, tmp_path: Path) -> str:
    """The version of TLS between a server with this certificate and a client that knows this authority, and is strict.

    Raises ssl.SSLCertVerificationError as the client does.
    """
    (tmp_path / "server.pem").write_text(pair["key"] + pair["certificate"])
    server_context, client_context = (
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER),
        ssl.create_default_context(cadata=authority),
    )
    server_context.load_cert_chain(tmp_path / "server.pem")
    client_context.verify_flags |= ssl.VERIFY_X509_STRICT
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = client_context.wrap_bio(back, there, server_hostname=host)
    server = server_context.wrap_bio(there, back, server_side=True)
    for _ in range(3):
        for side in (client, server):
            with suppress(ssl.SSLWantReadError):
                side.do_handshake()
    return str(client.version())


def test_a_strict_client_accepts_it_under_its_names(directory: Path, tmp_path: Path) -> None:
    pair = certificate(directory, "ftp.example.org", "192.0.2.7")

    assert handshake(pair, pair["authority"], "ftp.example.org", tmp_path) == "TLSv1.3"
    assert handshake(pair, pair["authority"], "192.0.2.7", tmp_path) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(pair, pair["authority"], "evil.example.org", tmp_path)


def test_another_deployment_s_authority_does_not_vouch_for_it(directory: Path, tmp_path: Path) -> None:
    pair, other = certificate(directory), certificate(tmp_path / "staging")

    with pytest.raises(ssl.SSLCertVerificationError, match="unable to get local issuer"):
        handshake(pair, other["authority"], "ftp", tmp_path)


def test_issued_once_for_its_owner_alone(directory: Path) -> None:
    pair = certificate(directory)

    assert certificate(directory) == pair
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {
        "authority.txt": 0o600,
        "ftp_certificate.txt": 0o600,
    }


def test_check_mode_writes_nothing(directory: Path) -> None:
    assert certificate(directory, check_mode=True)["key"].startswith("-----BEGIN PRIVATE KEY-----")
    assert not directory.parent.exists()


def test_check_mode_reads_what_there_is(directory: Path) -> None:
    pair = certificate(directory)

    assert certificate(directory, check_mode=True) == pair


def test_other_names_need_another_certificate_of_the_same_authority(directory: Path, tmp_path: Path) -> None:
    before, after = certificate(directory, "ftp"), certificate(directory, "ftp", "ftp.example.org")

    assert after["authority"] == before["authority"]
    assert handshake(after, before["authority"], "ftp.example.org", tmp_path) == "TLSv1.3"


@pytest.mark.parametrize(("age", "renewed"), [(timedelta(days=500), False), (timedelta(days=600), True)])
def test_renewed_in_its_last_third(directory: Path, tmp_path: Path, age: timedelta, renewed: bool) -> None:
    """Its time is 825 days."""
    authority_pem = certificate(directory)["authority"]
    authority = plugin().read_authorities(directory)[1]
    aged = plugin().issue_service("ftp", ["ftp"], authority, datetime.now(UTC) - age)
    plugin().write(directory / "ftp_certificate.txt", aged)

    pair = certificate(directory)

    assert (pair["certificate"] != aged.certificate_pem) == renewed
    assert handshake(pair, authority_pem, "ftp", tmp_path) == "TLSv1.3"


def put_authority(directory: Path, number: int, age: timedelta) -> str:
    """Make the deployment's authority of that number one of that age; its certificate, PEM."""
    pair = plugin().issue_authority(number, datetime.now(UTC) - age)
    plugin().write(plugin().authority_path(directory, number), pair)
    return str(pair.certificate_pem)


def test_the_next_authority_is_trusted_before_it_signs(directory: Path, tmp_path: Path) -> None:
    """Issue line A5: a client that was told of the authorities once accepts what servers show from then on."""
    old = certificate(directory)
    aged = put_authority(directory, 1, timedelta(days=2500))  # of 3650: in its last third

    told = certificate(directory)
    again = certificate(directory)
    put_authority(directory, 2, timedelta(days=2))
    signed = certificate(directory)

    assert told["authority"].startswith(aged)
    assert told["authority"].count("BEGIN CERTIFICATE") == 2
    assert told == again != old
    assert handshake(told, aged, "ftp", tmp_path) == "TLSv1.3"  # signed by the old one still
    assert signed["authority"].startswith(aged)  # and the old one is trusted until its end
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(signed, aged, "ftp", tmp_path)
    assert handshake(signed, signed["authority"], "ftp", tmp_path) == "TLSv1.3"


def test_the_key_of_no_authority_is_ever_lost(directory: Path) -> None:
    """Issue line A5."""
    certificate(directory)
    put_authority(directory, 1, timedelta(days=2500))
    first = (directory / "authority.txt").read_text()
    certificate(directory)
    second = (directory / "authority_2.txt").read_text()

    certificate(directory)

    assert sorted(path.name for path in directory.iterdir()) == [
        "authority.txt",
        "authority_2.txt",
        "ftp_certificate.txt",
    ]
    assert (directory / "authority.txt").read_text() == first
    assert (directory / "authority_2.txt").read_text() == second
    assert stat.S_IMODE((directory / "authority_2.txt").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("ages", "trusted"),
    [
        ([3640], 2),  # ten days left: no time to be trusted first
        ([3700], 1),  # over: not trusted any more
        ([3700, 2500], 2),  # the second one signs, the third one is made
    ],
)
def test_where_an_authority_ends_the_newest_one_serves(
    directory: Path, tmp_path: Path, ages: list[int], trusted: int
) -> None:
    """Issue line A5: nobody has deployed for years."""
    certificate(directory)
    for number, age in enumerate(ages, start=1):
        put_authority(directory, number, timedelta(days=age))

    pair = certificate(directory)

    assert pair["authority"].count("BEGIN CERTIFICATE") == trusted
    assert (directory / f"authority_{len(ages) + 1}.txt").exists()
    assert handshake(pair, pair["authority"], "ftp", tmp_path) == "TLSv1.3"


def test_a_certificate_does_not_outlive_its_authority(directory: Path) -> None:
    """Issue line A5: 100 days are left of the only authority that is known."""
    certificate(directory)
    put_authority(directory, 1, timedelta(days=3550))

    certificate(directory)

    pair, authority = plugin().read(directory / "ftp_certificate.txt", ""), plugin().read_authorities(directory)[1]
    assert pair.certificate.not_valid_after_utc == authority.certificate.not_valid_after_utc


def test_check_mode_makes_no_authority(directory: Path) -> None:
    """Issue line A5."""
    certificate(directory)
    put_authority(directory, 1, timedelta(days=2500))
    before = {path: path.read_text() for path in directory.iterdir()}

    certificate(directory, check_mode=True)

    assert {path: path.read_text() for path in directory.iterdir()} == before


@pytest.mark.parametrize(
    ("name", "cure"),
    [
        ("authority.txt", "Bring it back from a copy of that directory: the services that run now trust"),
        ("ftp_certificate.txt", r"Remove it to have both made anew; the authority stays\."),
    ],
)
@pytest.mark.parametrize("text", ["", "no key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_something_else(directory: Path, name: str, cure: str, text: str) -> None:
    """Issue lines A2 and A5: what a running platform hangs on is not to be removed."""
    certificate(directory)
    (directory / name).write_text(text)

    with pytest.raises(AnsibleLookupError, match=rf"/{name} cannot be read as a private key .* {cure}"):
        certificate(directory)
    assert (directory / name).read_text() == text


def test_a_directory_that_cannot_be_made(directory: Path) -> None:
    directory.parent.write_text("a file in the directory's place")

    with pytest.raises(AnsibleLookupError, match=f"Certificates cannot be kept in {directory}: .*Not a directory"):
        certificate(directory)


def issue_at_once(directory: Path, start: Barrier, authorities: SimpleQueue[str]) -> None:
    """What each of two processes does."""
    start.wait(timeout=10)
    authorities.put(certificate(directory)["authority"])


def test_two_processes_get_the_same_authority(directory: Path) -> None:
    start, authorities = CONTEXT.Barrier(2), CONTEXT.SimpleQueue()
    processes = [CONTEXT.Process(target=issue_at_once, args=(directory, start, authorities)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert authorities.get() == authorities.get() == certificate(directory)["authority"]
