"""Wait until nobody is connected to a server any more.

Runs in the server's container, whose place another one has taken:

    mlflow-stack-drain PORT QUIET LIMIT

Ends once there was no connection to PORT for QUIET seconds, in which whoever has looked up the old address may still
come, or after LIMIT seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
ESTABLISHED = "01"
LOOPBACK = ("0100007F", "0000000000000000FFFF00000100007F")  # the container's own health check; as the kernel writes it


def connections(port: int, *tables: str) -> int:
    """How many connections of others there are to a port, by the kernel's tables of sockets."""
    rows = [line.split() for table in tables for line in table.splitlines()[1:]]
    return sum(
        state == ESTABLISHED and int(local.partition(":")[2], 16) == port and remote.partition(":")[0] not in LOOPBACK
        for _, local, remote, state, *_ in rows
    )


def main() -> None:
    port, quiet, limit = (int(argument) for argument in sys.argv[1:])
    began = time.monotonic()
    lonely_since = None
    while (now := time.monotonic()) - began < limit:
        if connections(port, *(table.read_text() for table in TABLES if table.exists())):
            lonely_since = None
        elif lonely_since is None:
            lonely_since = now
        elif now - lonely_since >= quiet:
            break
        time.sleep(0.2)
