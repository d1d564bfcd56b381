#!/usr/bin/env python3
"""Keeps one certificate: has certbot ask for it, and for the next one when it is due.

What certbot is told is in its own file, /etc/mlflow-stack/cli.ini. The result, certificate, chain and key in one file,
is replaced as a whole; who shows it to the world watches that file.

certbot-keeper run MINUTES        until it is told to stop; so long between two looks whether it is due
certbot-keeper health HOST:PORT   exits with 0 if the certificate is shown there, 1 while it is not yet, and 78, with
                                  the reason, if there is none, or soon none any more
"""

from __future__ import annotations

import os
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

ISSUED = Path("/var/lib/certbot/config/live/public")
PUBLIC = Path("/var/lib/certbot/public.pem")
RUN = Path("/run/certbot")  # as old as the container, and so as its settings
OBTAINED = RUN / "obtained"  # is there once these settings have led to a certificate
FAULT = RUN / "fault"  # what certbot said last; empty if that was good
AFTER_A_FAULT = 60  # minutes: authorities count those who ask in vain
NEAR_ITS_END = 1 / 6  # of its time: half of what certbot has to renew it in


def obtain() -> None:
    """Have certbot look whether one is due, and get it."""
    command = ["certbot", "--config", "/etc/mlflow-stack/cli.ini", "certonly"]
    certbot = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (certbot.stdout + certbot.stderr).strip()
    print(said, flush=True)
    if certbot.returncode == 0:
        publish((ISSUED / "fullchain.pem").read_text() + (ISSUED / "privkey.pem").read_text())
        OBTAINED.touch()
    FAULT.write_text("" if certbot.returncode == 0 else said or f"certbot ended with status {certbot.returncode}")


def publish(pem: str) -> None:
    """Write it where it is watched, unless it is there."""
    if PUBLIC.exists() and PUBLIC.read_text() == pem:
        return
    draft = PUBLIC.with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    draft.write_text(pem)
    draft.replace(PUBLIC)


def run(minutes: int) -> None:
    while True:
        obtain()
        time.sleep(60 * (min(minutes, AFTER_A_FAULT) if FAULT.read_text() else minutes))


def left(certificate: x509.Certificate) -> float:
    """The part of its time that is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - datetime.now(UTC)) / (end - begin)


def health(shown_at: str) -> int:
    """Say how it is; the exit status."""
    fault = FAULT.read_text() if FAULT.exists() else ""
    if not OBTAINED.exists():
        print(fault or "certbot is asking for the certificate.")
        return os.EX_CONFIG if fault else 1
    own = x509.load_pem_x509_certificates(PUBLIC.read_bytes())[0]
    if fault and left(own) < NEAR_ITS_END:
        print(f"The certificate ends on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and cannot be renewed:\n{fault}")
        return os.EX_CONFIG
    host, _, port = shown_at.rpartition(":")
    try:
        shown = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=4).encode())
    except OSError as error:
        print(f"{shown_at} shows no certificate: {error}.")
        return 1
    if shown != own:
        print(f"{shown_at} does not show the certificate yet.")
        return 1
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", minutes]:
            run(int(minutes))
        case ["health", shown_at]:
            sys.exit(health(shown_at))
