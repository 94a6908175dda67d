"""The addresses of a host, in the order in which they are tried."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from ipaddress import ip_address
from itertools import chain, zip_longest


def is_address(host: str) -> bool:
    """Return True if a host is given by its IP address."""
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


async def look_up(
    host: str, port: int, shuffle: Callable[[list[str]], object] | None = None
) -> list[str]:
    """Return the IP addresses of a host, of both families in turn (RFC 8305).

    The system says which family comes first. ``shuffle`` is called with the addresses of each: the
    system's order is the same for every process, which would all use the same server of several.
    """
    if is_address(host):
        return [host]  # without another thread, which the look-up of a name takes
    # uvloop's own look-up has four threads, which name servers that do not answer would block for
    # all other names. It also delays the end of the process, until they have timed out.
    search = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    families: dict[int, dict[str, None]] = {}  # a dict, as a set that keeps the order
    for family, _, _, _, address in await asyncio.get_running_loop().run_in_executor(None, search):
        families.setdefault(family, {})[_text(address)] = None
    lists = [list(each) for each in families.values()]
    if shuffle is not None:
        for each in lists:
            shuffle(each)
    return [each for each in chain.from_iterable(zip_longest(*lists)) if each is not None]


def _text(address: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]) -> str:
    host = str(address[0])
    if len(address) == 4 and address[3] and "%" not in host:
        return f"{host}%{address[3]}"  # a link-local address, and the number of its interface
    return host
