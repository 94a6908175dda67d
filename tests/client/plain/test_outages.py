"""A client of a block whose server is away: how the block ends, and what is reported."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace

import pytest
from nats.aio.subscription import Subscription

from django_nats.client.plain.client import PlainClient, connected
from django_nats.devserver import NatsServer
from django_nats.exceptions import OutcomeUnknown
from tests.client.plain.conftest import Lines, config_of, opened, soon


async def test_a_flush_on_a_closed_socket_says_that_the_connection_was_lost(
    server: NatsServer,
) -> None:
    nc = await opened(config_of(server))
    nc._transport._io_writer.transport.abort()
    await asyncio.sleep(0)  # the transport is closed, and nats-py's reader has yet to run
    assert nc.is_connected
    await nc.publish("plain.pending", b"x")
    with pytest.raises(ConnectionResetError, match="the connection was lost"):
        await nc.flush()
    await nc.finish()


async def test_a_block_that_ends_while_the_server_is_away_raises(own_server: NatsServer) -> None:
    """nats-py's flush() would return, and what was published would be lost without a word."""
    with pytest.raises(OutcomeUnknown, match="may not have received"):  # noqa: PT012
        async with connected(config_of(own_server)) as nc:
            own_server.kill()
            assert await soon(lambda: nc.is_reconnecting)
            await nc.publish("plain.lost", b"x")
            assert isinstance(nc, PlainClient)
            nc._config = replace(nc._config, connect_timeout=0.2)


async def test_a_block_ends_when_the_server_is_back(own_server: NatsServer) -> None:
    async with connected(config_of(own_server)) as nc:
        nc.options["reconnect_time_wait"] = 0.05
        own_server.kill()
        assert await soon(lambda: nc.is_reconnecting)
        await nc.publish("plain.kept", b"x")
        own_server.start()
    assert nc.stats["reconnects"] == 1


async def test_an_error_in_a_block_is_raised_while_the_server_is_away(
    own_server: NatsServer,
) -> None:
    with pytest.raises(KeyError, match="mine"):  # noqa: PT012
        async with connected(config_of(own_server)) as nc:
            own_server.kill()
            assert await soon(lambda: nc.is_reconnecting)
            await nc.publish("plain.lost", b"x")
            raise KeyError("mine")


async def test_subscriptions_end_with_a_block_while_the_server_is_away(
    own_server: NatsServer,
) -> None:
    """nats-py would first write to the closed socket, and fail."""

    async def read(sub: Subscription) -> None:
        async for _ in sub.messages:
            pass

    with suppress(OutcomeUnknown):
        async with connected(config_of(own_server)) as nc:
            reading = asyncio.ensure_future(read(await nc.subscribe("plain.read")))
            own_server.kill()
            assert await soon(lambda: nc.is_reconnecting)
            await nc.publish("plain.lost", b"x")
            assert isinstance(nc, PlainClient)
            nc._config = replace(nc._config, connect_timeout=0.2)
    assert await soon(reading.done)


async def test_a_lost_socket_is_not_reported_as_a_failed_callback(
    own_server: NatsServer, lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = await opened(config_of(own_server))
    try:
        with monkeypatch.context() as patch:

            async def fail() -> None:
                patch.undo()
                raise ConnectionResetError("Connection lost")

            patch.setattr(client._transport, "drain", fail)
            await client.publish("plain.lost", b"x")
            assert await soon(lambda: client.stats["reconnects"] and client.is_connected)
        assert any(each.endswith(": Connection lost") for each in lines())
        assert not any("callback" in each for each in lines())
    finally:
        await client.finish()


async def test_a_connection_that_is_lost_as_it_is_back_is_not_taken_for_a_failed_callback(
    server: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    nc = await opened(config_of(server))
    back = nc._reconnected_cb

    async def fail() -> None:
        nc._reconnected_cb = back
        raise ConnectionResetError("reset again")

    nc._reconnected_cb = fail
    nc._transport._io_writer.transport.abort()
    assert await soon(lambda: "is back" in caplog.text)
    (record,) = (each for each in caplog.records if "reset again" in each.getMessage())
    assert (record.levelname, record.exc_info) == ("WARNING", None)
    await nc.finish()


async def test_a_client_that_has_reconnected_names_its_new_socket(
    server: NatsServer,
) -> None:
    """Otherwise a forked child would keep it open."""
    nc = await opened(config_of(server))
    nc._transport._io_writer.transport.abort()
    assert await soon(lambda: nc.stats["reconnects"] == 1 and nc.is_connected)
    (descriptor,) = nc.descriptors()
    assert descriptor == nc._transport._io_writer.get_extra_info("socket").fileno()
    assert descriptor >= 0
    await nc.finish()


async def test_two_attempts_to_reconnect_may_end_the_same_future(server: NatsServer) -> None:
    """nats-py has both for a moment, if the connection is lost while it reconnects."""
    nc = await opened(config_of(server))

    async def end() -> None:
        nc._reconnection_task_future.set_result(True)  # as the other one does
        raise asyncio.CancelledError

    nc._reconnected_cb = end
    nc._transport._io_writer.transport.abort()
    assert await soon(lambda: nc._reconnection_task is not None and nc._reconnection_task.done())
    assert nc._reconnection_task.exception() is None
    await nc.finish()


async def test_a_client_closes_though_another_wait_for_the_sockets_end_was_cancelled(
    server: NatsServer,
) -> None:
    nc = await opened(config_of(server))
    waiting = asyncio.ensure_future(nc._transport.wait_closed())
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait([waiting])
    await nc.finish()
    assert nc.is_closed
