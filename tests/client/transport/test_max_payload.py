"""The server's max_payload, which an account may have by itself, and which may change."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError, ValueTooLarge
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support.accounts import Operator
from tests.support.reloading import LOGIN, Reloading, account

SMALL, LARGE = "x" * 2_000, "x" * 20_000


def limited(max_payload: int) -> str:
    return f"{account()}\nmax_payload: {max_payload}\n"


@pytest.fixture
def server() -> Iterator[Reloading]:
    with Reloading(config=limited(10_000), token="") as running:
        yield running
        process.close()


@pytest.fixture
def cache(server: Reloading) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {**PATIENT, **LOGIN}})


async def send_info(server: Reloading, cache: NatsCache) -> None:
    """Have the server send its INFO to the cache's connection, as it does when servers join.

    A reload alone makes it send none.
    """
    connection = cache.session.connection
    assert connection is not None
    client: Client = await nats.connect(server.url, user="sys", password="pw", connect_timeout=60)
    try:
        found = await client.request("$SYS.REQ.SERVER.PING.CONNZ", b"{}", timeout=60)
        identity = json.loads(found.data)["server"]["id"]
        wanted = json.dumps({"cid": connection.client_id}).encode()
        answer = await client.request(f"$SYS.REQ.SERVER.{identity}.LDM", wanted, timeout=60)
        assert "error" not in json.loads(answer.data), answer.data
    finally:
        await client.close()


def raised(cache: NatsCache, value: str) -> NatsError | None:
    try:
        cache.set("key", value)
    except NatsError as error:
        return error
    return None


def test_the_max_payload_of_an_account_is_obeyed_from_the_first_value_on(tmp_path: Path) -> None:
    """The server says it only after the login."""
    operator = Operator(payload=10_000)
    with NatsServer(config=operator.server_config, token="") as server:
        credentials = operator.write_credentials(tmp_path / "user")
        cache = NatsCache(server.url, {"OPTIONS": {**PATIENT, "CREDENTIALS": credentials}})
        with pytest.raises(ValueTooLarge, match=r"takes at most 10000\."):
            cache.set("key", LARGE)
        connection = cache.session.connection
        cache.set("key", SMALL)
        assert cache.set_many({"a": SMALL, "b": LARGE}) == ["b"]
        assert cache.get("key") == SMALL
        assert cache.session.connection is connection
        process.close()


async def test_a_limit_that_a_later_info_lowers_is_obeyed_before_anything_is_sent(
    server: Reloading, cache: NatsCache
) -> None:
    await cache.aset("key", "x" * 8_000)
    connection = cache.session.connection
    server.reload(limited(5_000))
    await send_info(server, cache)
    assert eventually(lambda: cache.session.max_payload == 5_000)
    for _ in range(3):
        with pytest.raises(ValueTooLarge, match=r"takes at most 5000\."):
            await cache.aset("key", "x" * 8_000)
        assert await cache.aset_many({"a": SMALL, "b": "x" * 8_000}) == ["b"]
    await cache.aset("key", SMALL)
    assert await cache.aget("key") == SMALL
    assert cache.session.connection is connection


async def test_a_limit_that_a_later_info_raises_is_used_at_once(
    server: Reloading, cache: NatsCache
) -> None:
    with pytest.raises(ValueTooLarge, match=r"takes at most 10000\."):
        await cache.aset("key", LARGE)
    connection = cache.session.connection
    server.reload(limited(50_000))
    await send_info(server, cache)
    assert eventually(lambda: cache.session.max_payload == 50_000)
    await cache.aset("key", LARGE)
    assert await cache.aget("key") == LARGE
    assert await cache.aset_many({"a": LARGE, "b": LARGE}) == []
    assert await cache.aget_many(["a", "b"]) == {"a": LARGE, "b": LARGE}
    assert cache.session.connection is connection


def test_a_limit_that_is_lowered_without_an_info_costs_one_connection(
    server: Reloading, cache: NatsCache
) -> None:
    """The server closes the connection of a client that does not know the limit."""
    cache.set("key", SMALL)
    server.reload(limited(5_000))
    first = raised(cache, "x" * 8_000)
    assert first is not None
    assert eventually(lambda: cache.session.connected and cache.session.max_payload == 5_000)
    epoch = cache.session.epoch
    for _ in range(3):
        assert isinstance(raised(cache, "x" * 8_000), ValueTooLarge)
    assert cache.session.epoch == epoch
    cache.set("key", SMALL)
    assert cache.get("key") == SMALL
