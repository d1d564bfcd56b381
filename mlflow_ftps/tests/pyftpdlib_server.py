"""A pyftpdlib server: HOST PORT USER PASSWORD DIRECTORY CONNECTIONS PEM [FAULT]; with an empty PEM, without TLS."""

import sys
from typing import ClassVar

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer


class LyingHandler(FTPHandler):  # type: ignore[misc]
    """Tells a wrong size of every file."""

    def ftp_SIZE(self, path: str) -> None:  # noqa: N802 -- pyftpdlib finds it by this name
        self.respond(f"213 {self.fs.getsize(path) + 1}")


class QuotaHandler(FTPHandler):  # type: ignore[misc]
    """Says after the first transfer that there is no room for it."""

    first = True

    def respond(self, resp: str, *args: object, **options: object) -> None:
        if resp.startswith("226") and QuotaHandler.first:
            QuotaHandler.first = False
            resp = "552 Quota exceeded."
        super().respond(resp, *args, **options)


class SizelessHandler(FTPHandler):  # type: ignore[misc]
    """Does not know the command SIZE."""

    proto_cmds: ClassVar = {name: command for name, command in FTPHandler.proto_cmds.items() if name != "SIZE"}


class ImpatientHandler(FTPHandler):  # type: ignore[misc]
    """Soon gives up a data channel that nobody connects to."""

    passive_dtp: ClassVar = type("ImpatientPort", (FTPHandler.passive_dtp,), {"timeout": 0.2})


HANDLERS = {"impatient": ImpatientHandler, "lying": LyingHandler, "quota": QuotaHandler, "sizeless": SizelessHandler}


def main(
    host: str, port: str, user: str, password: str, directory: str, connections: str, pem: str, fault: str = ""
) -> None:
    handler = HANDLERS.get(fault, TLS_FTPHandler if pem else FTPHandler)
    handler.authorizer = DummyAuthorizer()
    handler.authorizer.add_user(user, password, directory, perm="elradfmwMT")
    handler.auth_failed_timeout = 0
    if pem:
        handler.certfile = pem
        handler.tls_control_required = True
        handler.tls_data_required = True
    server = FTPServer((host, int(port)), handler)
    server.max_cons_per_ip = int(connections)
    server.serve_forever()


main(*sys.argv[1:])
