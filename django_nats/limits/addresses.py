"""The address of a request's client, behind proxies or not.

Each proxy appends the address that it was connected from to X-Forwarded-For, so the header and
REMOTE_ADDR together are the way that a request took, the client on the left. Only the part that
trusted proxies wrote is true: what a client sends is further to the left, whatever it is.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, TypeAlias

from django.core.exceptions import ImproperlyConfigured

from ..conf.limits import Network, limit_settings

if TYPE_CHECKING:
    from django.http import HttpRequest

Address: TypeAlias = "IPv4Address | IPv6Address"


def client_address(request: HttpRequest) -> str:
    """Return the address, or the network, that counts as one client.

    Without TRUSTED_PROXIES, that is REMOTE_ADDR. With a number of proxies, it is the address which
    the outermost of them was connected from. With networks, it is the last address on the way that
    is in none of them. An entry that is not an address is passed over: the client then counts as
    the proxy that passed it on, so that such clients share one limit.

    IPV4_PREFIX and IPV6_PREFIX say how many bits count: ``203.0.113.7``, ``2001:db8:1:2::/64``. An
    IPv4 address that is written as an IPv6 address counts as IPv4.

    Raises ImproperlyConfigured if there is no address, as behind a proxy that connects to a Unix
    socket while TRUSTED_PROXIES is 0.
    """
    settings = limit_settings()
    proxies = settings.trusted_proxies
    address = _parse(request.META.get("REMOTE_ADDR", ""))
    forwarded = request.META.get("HTTP_X_FORWARDED_FOR", "")
    if proxies and forwarded:
        if isinstance(proxies, int):
            address = _at(proxies, forwarded) or address
        else:
            address = _outside(proxies, address, forwarded)
    if address is None:
        raise ImproperlyConfigured(
            "The address of a request's client is unknown: REMOTE_ADDR is not an IP address, as "
            "behind a proxy that connects to a Unix socket. Let the proxy set X-Forwarded-For, and "
            f"set TRUSTED_PROXIES in NATS_LIMITS, which is {proxies!r}, to the number of proxies."
        )
    return _client(address, settings.ipv4_prefix, settings.ipv6_prefix)


def _at(proxies: int, forwarded: str) -> Address | None:
    """Return the address that came in at the outermost of a number of proxies.

    If a proxy has written none, return the address at the next one.
    """
    written = forwarded.rsplit(",", proxies)[-proxies:]
    return next((address for each in written if (address := _parse(each))), None)


def _outside(
    networks: Iterable[Network], address: Address | None, forwarded: str
) -> Address | None:
    """Return the first address, on the way back from this server, that is in none of the networks.

    The other end of a Unix socket, which has no address, is as trusted as a network.
    """
    for each in reversed(forwarded.split(",")):
        if address is not None and not any(address in network for network in networks):
            break
        before = _parse(each)
        if before is None:
            break
        address = before
    return address


def _parse(text: str) -> Address | None:
    """Return the address in an entry, which some proxies write with a port, or None."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _client(address: Address, ipv4_prefix: int, ipv6_prefix: int) -> str:
    prefix = ipv4_prefix if address.version == 4 else ipv6_prefix
    host_bits = address.max_prefixlen - prefix
    network = type(address)(int(address) >> host_bits << host_bits)
    return f"{network}/{prefix}" if host_bits else str(network)
