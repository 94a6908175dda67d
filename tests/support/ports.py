"""Ports for servers that are to be found again where they were."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

_FIRST, _LAST = 15_000, 32_000
_given: set[int] = set()


def free_port() -> int:
    """A port nobody listens on.

    Below those that systems give to whoever asks for any: one of these may have become another
    connection's when a server is to listen there, at first or after it was killed. No process is
    given one twice: it may still know an address as that of a server which is away.
    """
    while True:
        port = secrets.choice(range(_FIRST, _LAST))
        if port not in _given:
            with suppress(OSError), socket.create_server(("127.0.0.1", port)):
                _given.add(port)
                return port
