"""Addresses that drop what is sent to them, and host names that lead there."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from django_nats.client.transport.addresses import is_address
from tests.support.ports import free_port

_MOST_QUEUED = 8
"""More connections than the queue of the listener takes: the system drops the packets of others."""


@contextmanager
def black_hole(host: str, port: int | None = None) -> Iterator[int]:
    """Listen on a port that answers no attempt to connect, as behind a firewall. Yield the port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        listener.bind((host, port or free_port()))
        listener.listen(0)
        for _ in range(_MOST_QUEUED):
            filling = stack.enter_context(socket.socket(family))
            filling.setblocking(False)
            filling.connect_ex(listener.getsockname())
        yield int(listener.getsockname()[1])


def has_ipv6() -> bool:
    with suppress(OSError), socket.socket(socket.AF_INET6) as probe:
        probe.bind(("::1", 0))
        return True
    return False


class Names:
    """What a name server would answer: the addresses of host names, in the order given."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.addresses: dict[str, list[str]] = {}
        self.silent: set[str] = set()
        """Names for which the name server does not answer."""
        self.ending = threading.Event()
        self._real = socket.getaddrinfo
        patch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: str, *arguments: Any, **options: Any) -> list[Any]:
        if is_address(host):
            return list(self._real(host, *arguments, **options))
        if host in self.silent:
            self.ending.wait()
        if host not in self.addresses:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = [self._real(each, *arguments, **options) for each in self.addresses[host]]
        return [first for first, *_ in found]
