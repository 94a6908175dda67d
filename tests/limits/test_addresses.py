"""The client's address: by hops, by networks, and never by what the client writes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.asgi import ASGIRequest
from django.test import RequestFactory, override_settings
from hypothesis import assume, given
from hypothesis import strategies as st

from django_nats.limits.addresses import client_address

CLIENT = "203.0.113.7"
OUTER, INNER = "198.51.100.1", "10.0.0.2"
NETWORKS = ["198.51.100.0/24", "10.0.0.0/8", "fd00::/8"]
FORGED = "192.0.2.66"


def address(
    *forwarded: str, remote: str | None = INNER, proxies: object = 0, **options: object
) -> str:
    """Return the client of a request with an X-Forwarded-For of these entries."""
    headers: dict[str, Any] = {"HTTP_X_FORWARDED_FOR": ", ".join(forwarded)} if forwarded else {}
    request = RequestFactory().get("/", **headers)
    if remote is None:
        del request.META["REMOTE_ADDR"]
    else:
        request.META["REMOTE_ADDR"] = remote
    with override_settings(NATS_LIMITS={"TRUSTED_PROXIES": proxies, **options}):
        return client_address(request)


@pytest.mark.parametrize("proxies", [0, []])
@pytest.mark.parametrize("forwarded", [(), (FORGED,), (FORGED, INNER), ("garbage",)])
def test_without_proxies_only_the_remote_address_counts(proxies: Any, forwarded: Any) -> None:
    assert address(*forwarded, remote=CLIENT, proxies=proxies) == CLIENT


@pytest.mark.parametrize(
    ("proxies", "forwarded"),
    [
        (1, (CLIENT,)),
        (2, (CLIENT, OUTER)),
        (3, (CLIENT, OUTER, "10.1.1.1")),
        (NETWORKS, (CLIENT,)),
        (NETWORKS, (CLIENT, OUTER)),
        (NETWORKS, (CLIENT, "fd00::1", OUTER)),
    ],
)
@pytest.mark.parametrize(
    "forged",
    [
        (),
        (FORGED,),
        (FORGED, OUTER),
        (OUTER, INNER, "127.0.0.1"),
        ("garbage", ""),
        ("", ""),
        ("unknown",),
        (f"{FORGED}:80",),
        (f"[::ffff:{FORGED}]:443",),
        ("[",),
        ("1" * 100_000,),
        ("::1",),
        ("\u0661",),
    ],
)
def test_what_the_client_writes_never_changes_its_address(
    proxies: Any, forwarded: Any, forged: Any
) -> None:
    assert address(*forged, *forwarded, proxies=proxies) == CLIENT


@given(st.text())
def test_no_text_that_the_client_writes_changes_its_address(forged: str) -> None:
    assert address(forged, CLIENT, OUTER, proxies=2) == CLIENT
    assert address(forged, CLIENT, OUTER, proxies=NETWORKS) == CLIENT


@pytest.mark.parametrize(
    ("proxies", "forwarded", "expected"),
    [
        (1, (), INNER),
        (2, (), INNER),
        (2, (CLIENT,), CLIENT),
        (5, (CLIENT, OUTER), CLIENT),
        (NETWORKS, (), INNER),
        (NETWORKS, ("10.9.9.9", OUTER), "10.9.9.9"),
    ],
)
def test_a_request_from_inside_has_the_address_it_came_from(
    proxies: Any, forwarded: Any, expected: str
) -> None:
    assert address(*forwarded, proxies=proxies) == expected


@pytest.mark.parametrize("proxies", [NETWORKS, ["198.51.100.0/24"]])
def test_an_address_outside_the_trusted_networks_is_the_client_itself(proxies: Any) -> None:
    assert address(FORGED, remote=CLIENT, proxies=proxies) == CLIENT


@pytest.mark.parametrize(
    "entry",
    [
        CLIENT,
        f" {CLIENT}\t",
        f"{CLIENT}:49152",
        f"::ffff:{CLIENT}",
        f"[::ffff:{CLIENT}]",
        f"[::FFFF:{CLIENT}]:49152",
    ],
)
@pytest.mark.parametrize("proxies", [1, NETWORKS])
def test_ports_brackets_and_mapped_addresses_are_understood(entry: str, proxies: Any) -> None:
    assert address(entry, proxies=proxies) == CLIENT


def test_a_mapped_address_of_a_proxy_is_in_its_network() -> None:
    assert address(CLIENT, remote=f"::ffff:{INNER}", proxies=NETWORKS) == CLIENT


@pytest.mark.parametrize("network", ["::ffff:10.0.0.0/104", "::ffff:10.0.0.2"])
def test_a_network_may_be_written_as_mapped_addresses(network: str) -> None:
    assert address(FORGED, CLIENT, proxies=[network]) == CLIENT
    assert address(FORGED, CLIENT, proxies=[IPv6Network(network)]) == CLIENT


@pytest.mark.parametrize("garbage", ["unknown", "_hidden", "", "unix:", "300.1.1.1", "9" * 1000])
@pytest.mark.parametrize("proxies", [2, NETWORKS])
def test_a_client_without_an_address_counts_as_the_proxy_that_passed_it_on(
    garbage: str, proxies: Any
) -> None:
    assert address(garbage, OUTER, proxies=proxies) == OUTER
    assert address(FORGED, garbage, OUTER, proxies=proxies) == OUTER
    assert address(garbage, proxies=proxies) == INNER


def test_an_inner_proxy_on_a_unix_socket_does_not_hide_the_client_from_a_number_of_hops() -> None:
    assert address(CLIENT, "unix:", proxies=2) == CLIENT


@pytest.mark.parametrize("remote", ["", None, "unix:/run/app.sock"])
class TestBehindAUnixSocket:
    @pytest.mark.parametrize("proxies", [1, NETWORKS])
    def test_the_proxy_says_the_address(self, remote: str | None, proxies: Any) -> None:
        assert address(FORGED, CLIENT, remote=remote, proxies=proxies) == CLIENT

    @pytest.mark.parametrize("proxies", [0, [], 1, NETWORKS])
    def test_a_request_without_any_address_is_an_error_that_says_what_to_do(
        self, remote: str | None, proxies: Any
    ) -> None:
        with pytest.raises(ImproperlyConfigured, match="TRUSTED_PROXIES in NATS_LIMITS"):
            address(remote=remote, proxies=proxies)

    def test_the_header_is_not_trusted_without_proxies(self, remote: str | None) -> None:
        with pytest.raises(ImproperlyConfigured) as caught:
            address(CLIENT, remote=remote, proxies=0)
        assert CLIENT not in str(caught.value)


def test_several_headers_are_one_list() -> None:
    headers = [(b"x-forwarded-for", FORGED.encode()), (b"x-forwarded-for", CLIENT.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    request = ASGIRequest({**scope, "client": (INNER, 1234)}, None)
    with override_settings(NATS_LIMITS={"TRUSTED_PROXIES": 1}):
        assert client_address(request) == CLIENT


def test_a_header_with_underscores_is_not_x_forwarded_for() -> None:
    headers = [(b"x_forwarded_for", FORGED.encode())]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": headers}
    request = ASGIRequest({**scope, "client": (INNER, 1234)}, None)
    with override_settings(NATS_LIMITS={"TRUSTED_PROXIES": 1}):
        assert client_address(request) == INNER


@pytest.mark.parametrize(
    ("remote", "options", "expected"),
    [
        ("2001:db8:1:2:3:4:5:6", {}, "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", {}, "2001:db8:1:2::/64"),
        ("fe80::1%eth0", {}, "fe80::/64"),
        ("2001:db8:1:2:3:4:5:6", {"IPV6_PREFIX": 48}, "2001:db8:1::/48"),
        ("2001:DB8:0::1", {"IPV6_PREFIX": 128}, "2001:db8::1"),
        ("203.0.113.7", {"IPV4_PREFIX": 24}, "203.0.113.0/24"),
        ("::ffff:203.0.113.7", {"IPV4_PREFIX": 24}, "203.0.113.0/24"),
        ("::ffff:203.0.113.7", {"IPV6_PREFIX": 128}, "203.0.113.7"),
    ],
)
def test_an_address_is_cut_to_what_counts_as_one_client(
    remote: str, options: Any, expected: str
) -> None:
    assert address(remote=remote, **options) == expected


@given(st.ip_addresses(v=6), st.integers(0, 2**64 - 1))
def test_all_addresses_of_an_ipv6_subnet_are_one_client(one: IPv6Address, host: int) -> None:
    other = IPv6Address(int(one) >> 64 << 64 | host)
    assume(one.ipv4_mapped is None and other.ipv4_mapped is None)
    assert address(remote=str(one)) == address(remote=str(other)) == address(remote=one.exploded)


@given(st.ip_addresses(v=4))
def test_an_ipv4_address_is_a_client_of_its_own(one: IPv4Address) -> None:
    assert address(remote=str(one)) == address(remote=f"::ffff:{one}") == str(one)
