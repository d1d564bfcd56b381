#!/usr/bin/env python3
"""Keeps one certificate: has certbot ask for it, and for the next one when a third of its time is left.

What certbot is told is in its own file, /etc/mlflow-stack/cli.ini; NAME stands for it, so that other settings are
another certificate. The result, certificate, chain and key in one file, is replaced as a whole; who shows it to the
world watches that file.

certbot-keeper run NAME                until it is told to stop
certbot-keeper health NAME HOST:PORT   exits with 0 if the certificate is shown there, 1 while it is not yet, and 78,
                                       with the reason, if there is none, or soon none any more
"""

from __future__ import annotations

import os
import shutil
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

PUBLIC = Path("/var/lib/certificate")
ACCOUNTS = Path("/var/lib/certbot")  # and what certbot makes
FAULT = Path("/run/certbot/fault")  # what certbot said last; empty if that was good
DUE = 1 / 3  # of its time
NEAR_ITS_END = 1 / 6  # of its time: half of what there is to renew it in
LONGEST_SLEEP = 3600.0  # seconds
AFTER_A_FAULT = 900.0  # seconds: authorities count those who ask in vain, by the hour


def published(name: str) -> Path:
    return PUBLIC / f"{name}.pem"


def certificate(name: str) -> x509.Certificate | None:
    """What is published; None before the first."""
    path = published(name)
    return x509.load_pem_x509_certificates(path.read_bytes())[0] if path.exists() else None


def left(certificate: x509.Certificate, now: datetime) -> float:
    """The part of its time that is left."""
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - now) / (end - begin)


def seconds_until_due(certificate: x509.Certificate | None, now: datetime) -> float:
    """Not more than zero if it is due."""
    if certificate is None:
        return 0
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    return (end - (end - begin) * DUE - now).total_seconds()


def obtain(name: str) -> str:
    """Have certbot get a new one, and publish it; what certbot said if there is none."""
    home = ACCOUNTS / name
    for part in ("live", "archive", "renewal"):  # of one before, whole or not
        shutil.rmtree(home / part, ignore_errors=True)
    command = ["certbot", "--config", "/etc/mlflow-stack/cli.ini", "--config-dir", str(home), "certonly"]
    certbot = subprocess.run(command, capture_output=True, text=True, check=False)
    said = (certbot.stdout + certbot.stderr).strip()
    print(said, flush=True)
    if certbot.returncode != 0:
        return said or f"certbot ended with status {certbot.returncode}"
    issued = home / "live/public"
    draft = published(name).with_suffix(".new")
    draft.unlink(missing_ok=True)
    draft.touch(0o600)
    with draft.open("w") as file:
        file.write((issued / "fullchain.pem").read_text() + (issued / "privkey.pem").read_text())
        file.flush()
        os.fsync(file.fileno())  # a power cut leaves the old one or the new one
    draft.replace(published(name))
    return ""


def run(name: str) -> None:
    while True:
        wait = seconds_until_due(certificate(name), datetime.now(UTC))
        if wait <= 0:
            FAULT.write_text(fault := obtain(name))
            wait = AFTER_A_FAULT if fault else 1.0
        time.sleep(min(wait, LONGEST_SLEEP))


def health(name: str, shown_at: str) -> int:
    """Say how it is; the exit status."""
    fault = FAULT.read_text() if FAULT.exists() else ""
    own = certificate(name)
    if own is None:
        print(fault or "certbot is asking for the certificate.")
        return os.EX_CONFIG if fault else 1
    if left(own, datetime.now(UTC)) < NEAR_ITS_END:
        print(f"The certificate ends on {own.not_valid_after_utc:%Y-%m-%d %H:%M} UTC, and is not renewed.\n{fault}")
        return os.EX_CONFIG
    host, _, port = shown_at.rpartition(":")
    try:
        shown = x509.load_pem_x509_certificate(ssl.get_server_certificate((host, int(port)), timeout=4).encode())
    except OSError as error:
        print(f"{shown_at} shows no certificate: {error}.")
        return 1
    if shown != own:
        print(f"{shown_at} does not show the certificate yet; where it refuses it, its log says why.")
        return 1
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["run", name]:
            run(name)
        case ["health", name, shown_at]:
            sys.exit(health(name, shown_at))
