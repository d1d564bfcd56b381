"""Who is replaced goes once nobody is connected to him any more."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

from mlflow_stack_rig import PACKAGE

sys.path.append(str(PACKAGE))

import mlflow_stack_drain

TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 00000000:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 1 1 0 100 0 0 10 0
   1: 0200A8C0:1F90 0300A8C0:D2B4 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1
   2: 0200A8C0:1F90 0300A8C0:D2B6 06 00000000:00000000 00:00000000 00000000  1000        0 0 1 0 20 4 30 10 -1
   3: 0100007F:1F90 0100007F:D2B8 01 00000000:00000000 00:00000000 00000000  1000        0 3 1 0 20 4 30 10 -1
   4: 0200A8C0:D2BA 0300A8C0:1F90 01 00000000:00000000 00:00000000 00000000  1000        0 4 1 0 20 4 30 10 -1
"""


def test_connections_of_others_to_the_port_are_counted() -> None:
    """Not who listens, what is closed, the container's own health check, and what it asks of others."""
    assert mlflow_stack_drain.connections(8080, TABLE) == 1
    assert mlflow_stack_drain.connections(8080, TABLE, TABLE) == 2
    assert mlflow_stack_drain.connections(5000, TABLE) == 0


def drain(port: int, quiet: int, limit: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", "import mlflow_stack_drain as d; d.LOOPBACK = (); d.main()"]
    return subprocess.Popen([*command, str(port), str(quiet), str(limit)], cwd=PACKAGE)


def test_it_waits_for_the_last_one_and_a_while_longer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        began = time.monotonic()
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            waiting = drain(port, quiet=1, limit=60)
            time.sleep(2)
            assert waiting.poll() is None
        assert waiting.wait(30) == 0
        assert time.monotonic() - began >= 3


def test_it_does_not_wait_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)), server.accept()[0]:
            assert drain(port, quiet=60, limit=1).wait(30) == 0
