"""Read NATS_LIMITS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Any, TypeAlias

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed

from .counters import counter_aliases
from .dotted import DOTTED_PATH, function_at
from .reader import Reader

if TYPE_CHECKING:
    from django.http import HttpRequest

LIMIT_OPTIONS = {
    "ENABLED",
    "DRY_RUN",
    "FAIL_OPEN",
    "ALIAS",
    "STATUS",
    "HEADERS",
    "TRUSTED_PROXIES",
    "IPV4_PREFIX",
    "IPV6_PREFIX",
    "EXEMPT",
    "READABLE_KEYS",
    "STORAGE",
}
_WHERE = "NATS_LIMITS"
_STATUSES = (403, 429)
_HEADERS = ("separate", "draft", "both", None)
_MAPPED_BITS = 96
"""The bits before an IPv4 address that is written as an IPv6 address."""

Network: TypeAlias = "IPv4Network | IPv6Network"


@dataclass(frozen=True)
class LimitSettings:
    """The settings that all limits share."""

    enabled: bool
    """Whether anything is counted and refused."""
    dry_run: bool
    """Whether what would be refused is only logged, by limits that do not say so themselves."""
    fail_open: bool
    """Whether hits are let through while the server does not answer, by limits that say nothing."""
    alias: str
    """The alias of NATS_COUNTERS whose server counts, for limits that name none."""
    status: int
    """The status of a refused request's response: 403, by an exception, or 429."""
    headers: str | None
    """The headers that responses get: "separate", "draft", "both", or None."""
    trusted_proxies: int | tuple[Network, ...]
    """The number of proxies before this server, or the networks in which they are."""
    ipv4_prefix: int
    """The bits of an IPv4 address that count as one client."""
    ipv6_prefix: int
    """The bits of an IPv6 address that count as one client."""
    exempt: Callable[[HttpRequest], object] | str | None
    """A function, or its dotted path, that returns whether a request is never limited."""
    readable_keys: bool
    """Whether subjects on the server hold keys in readable form, not their hashes."""
    storage: str
    """Where hits of limits are stored: "memory" or "file"."""

    @cached_property
    def is_exempt(self) -> Callable[[HttpRequest], Any] | None:
        """Return the function EXEMPT, which is imported at its first use.

        Raises ImproperlyConfigured if it cannot be imported, or is not a function.
        """
        if isinstance(self.exempt, str):
            return function_at(self.exempt, f"{_WHERE}: EXEMPT")
        return self.exempt


@cache
def limit_settings() -> LimitSettings:
    """Return the settings of limits. They are read once, until they change.

    Raises ImproperlyConfigured, which names the option.
    """
    options: Any = getattr(settings, _WHERE, None) or {}
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"{_WHERE} must be a dict, not {type(options).__name__}.")
    reader = Reader(_WHERE, options)
    reader.refuse_unknown(LIMIT_OPTIONS)
    return LimitSettings(
        enabled=reader.boolean("ENABLED", True),
        dry_run=reader.boolean("DRY_RUN", False),
        fail_open=reader.boolean("FAIL_OPEN", False),
        alias=_alias(reader),
        status=_status(reader),
        headers=_headers(reader),
        trusted_proxies=_trusted_proxies(reader),
        ipv4_prefix=_prefix(reader, "IPV4_PREFIX", 32, 32),
        ipv6_prefix=_prefix(reader, "IPV6_PREFIX", 64, 128),
        exempt=_exempt(reader),
        readable_keys=reader.boolean("READABLE_KEYS", False),
        storage=reader.choice("STORAGE"),
    )


def _alias(reader: Reader) -> str:
    aliases = counter_aliases()
    if reader.options.get("ALIAS") is None:
        return "limits" if "limits" in aliases else "default"
    alias = reader.text("ALIAS")
    if alias not in aliases:
        known = ", ".join(aliases) or "none"
        reader.fail("ALIAS", f"is {alias!r}, which is no alias of NATS_COUNTERS. It has: {known}")
    return alias


def _status(reader: Reader) -> int:
    status: Any = reader.options.get("STATUS", _STATUSES[0])
    if type(status) is not int or status not in _STATUSES:
        reader.fail("STATUS", f"must be 403 or 429, not {status!r}")
    return status


def _headers(reader: Reader) -> str | None:
    headers: Any = reader.options.get("HEADERS", _HEADERS[0])
    if not (headers is None or isinstance(headers, str)) or headers not in _HEADERS:
        reader.fail("HEADERS", f'must be "separate", "draft", "both" or None, not {headers!r}')
    return headers


def _trusted_proxies(reader: Reader) -> int | tuple[Network, ...]:
    proxies: Any = reader.options.get("TRUSTED_PROXIES", 0)
    if type(proxies) is int and proxies >= 0:
        return proxies
    if not isinstance(proxies, (list, tuple)):
        reader.fail(
            "TRUSTED_PROXIES",
            f'must be a number of proxies or a list of networks such as ["10.0.0.0/8"], '
            f"not {proxies!r}",
        )
    return tuple(_network(reader, each) for each in proxies)


def _network(reader: Reader, network: Any) -> Network:
    if not isinstance(network, (str, IPv4Network, IPv6Network)):  # an int would be an address
        reader.fail("TRUSTED_PROXIES", f"holds {network!r}, which is not a network's text")
    try:
        return _unmapped(ip_network(network))
    except ValueError as error:
        reader.fail("TRUSTED_PROXIES", f"holds {network!r}, which is not a network: {error}")


def _unmapped(network: Network) -> Network:
    """Return the IPv4 network of mapped addresses, which are compared as IPv4 addresses."""
    mapped = getattr(network.network_address, "ipv4_mapped", None)
    if mapped is None or network.prefixlen < _MAPPED_BITS:
        return network
    return IPv4Network((mapped, network.prefixlen - _MAPPED_BITS))


def _prefix(reader: Reader, option: str, default: int, most: int) -> int:
    prefix = reader.whole(option, default)
    if prefix > most:
        reader.fail(option, f"must be at most {most}, not {prefix}")
    return prefix


def _exempt(reader: Reader) -> Callable[[HttpRequest], object] | str | None:
    exempt: Any = reader.options.get("EXEMPT")
    if exempt is None or callable(exempt):
        return exempt  # type: ignore[no-any-return]
    if not isinstance(exempt, str) or not DOTTED_PATH.fullmatch(exempt):
        reader.fail("EXEMPT", f"must be a function, or its dotted path, not {exempt!r}")
    return exempt


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting in (_WHERE, "NATS_COUNTERS"):
        limit_settings.cache_clear()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_nats.conf.limits")
