#!/opt/ftp/bin/python3
"""The artifact store's FTP server: accounts with hashed passwords, a passive range, TLS where a certificate is given.

Settings: the JSON file that is named by the environment variable FTP_SETTINGS, see roles/ftp/vars/main.yml.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import logging
import os
import signal
import sys
from pathlib import Path
from typing import Any

from passlib.hash import sha512_crypt
from pyftpdlib.authorizers import AuthenticationFailed, DummyAuthorizer
from pyftpdlib.exceptions import _FileReadWriteError
from pyftpdlib.handlers import DTPHandler, FTPHandler, TLS_DTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer

PERMISSIONS = "elradfmwMT"  # all of them: one account owns the whole store

log = logging.getLogger("ftp-server")


class Session:
    """Logs one line for each session, when it ends, and one for each login that fails; none for health checks."""

    authenticated: bool
    username: str
    remote_ip: str
    received = sent = broken_off = 0

    def on_file_received(self, _file: str) -> None:
        self.received += 1

    def on_file_sent(self, _file: str) -> None:
        self.sent += 1

    def on_incomplete_file_received(self, _file: str) -> None:
        self.broken_off += 1

    on_incomplete_file_sent = on_incomplete_file_received

    def on_login_failed(self, username: str, _password: str) -> None:
        log.warning("%s@%s: login refused", username, self.remote_ip)

    def on_disconnect(self) -> None:
        if self.received or self.sent or self.broken_off:  # not who only asks whether the server answers
            files = f"files received {self.received}, sent {self.sent}, broken off {self.broken_off}"
            log.info("%s@%s: %s", self.username, self.remote_ip, files)


class FullDisk:
    """Answers 452 to an upload that the disk has no room for, 451 to one that it fails, and stays on the line.

    pyftpdlib itself answers nothing and closes the connection, or misses what shows only when the file is closed.
    """

    file_obj: Any
    receive: bool

    def handle_error(self) -> None:
        fault = sys.exception()
        if isinstance(fault, _FileReadWriteError) and self.receive:
            with contextlib.suppress(OSError):
                self.file_obj.close()
            self._refuse(fault.__cause__)
            DTPHandler.close(self)  # at once: that of TLS would first wait for the client
        else:
            super().handle_error()  # type: ignore[misc]

    def close(self) -> None:
        if self.receive and self.file_obj is not None:
            try:
                self.file_obj.close()  # writes what is left
            except OSError as fault:
                self._refuse(fault)
        super().close()  # type: ignore[misc]

    def _refuse(self, fault: BaseException | None) -> None:
        number = getattr(fault, "errno", None) or errno.EIO
        code = 452 if number in (errno.ENOSPC, errno.EDQUOT) else 451
        self.transfer_finished = False
        self._resp = (f"{code} {os.strerror(number)}; nothing more is stored.", log.warning)


class HashedAuthorizer(DummyAuthorizer):  # type: ignore[misc]
    """Accounts whose passwords are known by their hashes alone."""

    def validate_authentication(self, username: str, password: str, handler: FTPHandler) -> None:  # noqa: ARG002 (its base's)
        """Raise AuthenticationFailed, in the same words, for an unknown account and for a wrong password."""
        account = self.user_table.get(username)
        if account is None or not matches(password, account["pwd"]):
            raise AuthenticationFailed("Authentication failed.")


@functools.lru_cache(maxsize=64)
def matches(password: str, password_hash: str) -> bool:
    """Whether a password has this hash; remembered, as each connection logs in and hashing takes its time."""
    return bool(sha512_crypt.verify(password, password_hash))


def authorizer(root: Path, accounts: list[dict[str, str]]) -> HashedAuthorizer:
    """The accounts, each with the whole of `root`."""
    result = HashedAuthorizer()
    for account in accounts:
        result.add_user(account["user"], account["password_hash"], str(root), perm=PERMISSIONS)
    return result


def handler(settings: dict[str, Any]) -> type[FTPHandler]:
    """What speaks to one client, made from the settings."""
    accounts = json.loads(Path(settings["accounts"]).read_text())
    first, last = settings["passive_ports"]
    attributes: dict[str, Any] = {
        "authorizer": authorizer(Path(settings["root"]), accounts),
        "banner": "mlflow-stack artifact store ready.",
        "passive_ports": range(first, last + 1),
        "masquerade_address": settings["advertised_address"],
        "timeout": 600,
        "log_prefix": "%(username)s@%(remote_ip)s:",
        "auth_failed_timeout": 2,
    }
    if settings["certificate"]:
        attributes |= {"certfile": settings["certificate"], "tls_control_required": True, "tls_data_required": True}
        attributes["dtp_handler"] = type("Transfer", (FullDisk, TLS_DTPHandler), {})
        return type("Handler", (Session, TLS_FTPHandler), attributes)
    attributes["dtp_handler"] = type("Transfer", (FullDisk, DTPHandler), {})
    return type("Handler", (Session, FTPHandler), attributes)


def main() -> None:
    """Serve until SIGTERM."""
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("pyftpdlib").setLevel(logging.WARNING)  # at INFO, a line for each command
    settings = json.loads(Path(os.environ.get("FTP_SETTINGS", "/etc/mlflow-stack/server.json")).read_text())
    server = FTPServer(("0.0.0.0", settings["port"]), handler(settings))  # noqa: S104 (the container's own network)
    server.max_cons = settings["max_connections"]
    server.max_cons_per_ip = 0  # all of MLflow's transfers come from one address
    signal.signal(signal.SIGTERM, lambda *_: server.close_all() or sys.exit(0))
    tls = "required" if settings["certificate"] else "off"
    log.info("Serving %s on port %d, TLS %s", settings["root"], settings["port"], tls)
    server.serve_forever(handle_exit=False)


if __name__ == "__main__":
    main()
