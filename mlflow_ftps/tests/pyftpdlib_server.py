"""A pyftpdlib server: PORT USER PASSWORD DIRECTORY CONNECTIONS PEM; with an empty PEM, without TLS."""

import sys

from pyftpdlib.authorizers import DummyAuthorizer
from pyftpdlib.handlers import FTPHandler, TLS_FTPHandler
from pyftpdlib.servers import FTPServer


def main(port: str, user: str, password: str, directory: str, connections: str, pem: str) -> None:
    handler = TLS_FTPHandler if pem else FTPHandler
    handler.authorizer = DummyAuthorizer()
    handler.authorizer.add_user(user, password, directory, perm="elradfmwMT")
    handler.auth_failed_timeout = 0
    if pem:
        handler.certfile = pem
        handler.tls_control_required = True
        handler.tls_data_required = True
    server = FTPServer(("127.0.0.1", int(port)), handler)
    server.max_cons_per_ip = int(connections)
    server.serve_forever()


main(*sys.argv[1:])
