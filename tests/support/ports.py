"""Ports for servers that are restarted at the same address."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

_FIRST, _LAST = 15_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """Return a port that is not in use.

    It is below the ephemeral ports, one of which could be taken by another connection before a
    server starts or restarts on it. A process gets each port once, because it may still remember
    the address as that of an unreachable server.
    """
    while True:
        port = secrets.choice(range(_FIRST, _LAST))
        if port not in _given:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port
