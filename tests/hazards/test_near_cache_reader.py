"""Readers that are stopped, held up or swamped: what they find afterwards is not out of date."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from queue import SimpleQueue

import pytest

from django_nats.cache import NatsCache
from django_nats.client import bridge, connection
from django_nats.devserver import NatsServer
from tests.support.near_load import NEVER_AGAIN, ROUNDS, Load, soon
from tests.support.proxy import Proxy

STOP = 5.0
"""Seconds, which is more than MAX_STALE, and less than a server waits for who reads nothing."""
RATE = 10_000
"""Writes of a key in a second."""
pytestmark = [pytest.mark.faults, pytest.mark.timeout(180 * ROUNDS)]


def test_stopped_while_others_write(own_server: NatsServer) -> None:
    """Its first read afterwards finds the changes still unread, in its own socket."""
    load = Load(own_server, readers=2, keys=100, pause=0.017, delete_every=7)
    with load:
        stopped, _ = load.readers
        done = 0
        # Until it was stopped between two reads, too: one that was under way tells nothing.
        while done < 2 * ROUNDS or (
            done < 10 * ROUNDS and not stopped.ask("status")["after_stops"]
        ):
            done += 1
            stopped.pause()
            began = time.monotonic()
            load.wait_for_writes(int(RATE * STOP))
            time.sleep(max(0, began + STOP - time.monotonic()))
            load.write_rare()  # the last of all that is to be read
            stopped.resume()
            load.wait_until_served()
        outcome = load.check()
    first = outcome.after_stops()
    assert first
    assert max(first) <= 0


BURST = 50
"""Times 2,000 writes."""


def test_stopped_during_a_burst(own_server: NatsServer) -> None:
    """The server waits with what does not fit between: nobody is dropped, and nothing missed."""
    options = {"REQUEST_TIMEOUT": 10.0}  # a burst that is given up would be none
    with Load(
        own_server, options=options, readers=1, keys=1000, pause=NEVER_AGAIN, delete_every=9
    ) as load:
        (reader,) = load.readers
        (before,) = load.statuses()
        goal = load.written() + BURST * 2000
        reader.pause()
        stopped = time.monotonic()
        # Not for the ten seconds after which a server gives up whoever takes nothing.
        while load.written() < goal and time.monotonic() < stopped + 3:
            load.write()
        reader.resume()
        while load.written() < goal:
            load.write()
        load.wait_until_served()
        (after,) = load.statuses()
        assert after["connections"] == before["connections"]
        outcome = load.check()
        assert "Slow Consumer" not in own_server.log()
    assert outcome.hits


@pytest.fixture
def proxy(own_server: NatsServer) -> Iterator[Proxy]:
    with Proxy(own_server.port, delay=0.0005) as running:
        yield running
        bridge.close()


class Late(Proxy):
    """Passes all on to the client late, and as quickly as it came."""

    lateness = 0.0
    """Seconds."""

    def _pump(self, source: socket.socket, sink: socket.socket, replies: bool) -> None:
        if not replies:
            super()._pump(source, sink, replies)
            return
        queue: SimpleQueue[tuple[float, bytes]] = SimpleQueue()
        forwarder = threading.Thread(target=self._forward, args=(queue, sink), daemon=True)
        forwarder.start()
        with suppress(OSError):
            while data := source.recv(64 * 1024):
                queue.put((time.monotonic() + self.lateness, data))
        queue.put((0.0, b""))

    def _forward(self, queue: SimpleQueue[tuple[float, bytes]], sink: socket.socket) -> None:
        with suppress(OSError):
            while data := (item := queue.get())[1]:
                time.sleep(max(0.0, item[0] - time.monotonic()))
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("max_stale", [1.0, 10.0])
def test_a_feed_that_lags(own_server: NatsServer, max_stale: float) -> None:
    """Keys are deleted meanwhile: they are served no longer than MAX_STALE, whatever that is."""
    lateness = 2.5  # more, and the connection counts as lost
    proxy = Late(own_server.port)
    with (
        proxy,
        Load(
            own_server,
            options={"REQUEST_TIMEOUT": 30.0},
            near={"MAX_STALE": max_stale},
            read_through=proxy.url,
            readers=1,
            keys=2,
            rare=30,
            pause=0.5,
            delete_every=2,
        ) as load,
    ):
        proxy.lateness = lateness
        load.wait_until_lagging(lateness - 0.1)
        if max_stale > lateness:
            load.wait_until_served()
        else:
            load.wait_until_bypassed(time.monotonic(), attempts=20)
        proxy.lateness = 0.0
        load.wait_until_served()
        outcome = load.check(max_stale)
    assert (outcome.verdict.stalest > lateness - 1) == (max_stale > lateness)


def test_deleted_while_the_feed_is_stalled(
    own_server: NatsServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind so much that the server waits with the rest: deletes are told for all that."""
    monkeypatch.setattr(connection, "PING_INTERVAL", 30)  # it is to stay the same connection
    options = {"BUCKET": "stalled", "TOKEN": own_server.token, "REQUEST_TIMEOUT": 30.0}
    near = {"MAX_STALE": 90.0, "MAX_AGE": 600.0}  # longer than what is waited for
    writer = NatsCache(own_server.url, {"OPTIONS": options})
    reader = NatsCache(proxy.url, {"OPTIONS": {**options, "NEAR_CACHE": near}})
    assert reader.near is not None
    victims = [f"victim:{number}" for number in range(10)]
    writer.set_many(dict.fromkeys(victims, "here"), None)

    def copied() -> bool:
        assert reader.near is not None
        hits = reader.near.hits
        return len(reader.get_many(victims)) == 10 == reader.near.hits - hits

    assert soon(copied)
    flushes = reader.near.flushes
    proxy.freeze()
    began = time.monotonic()
    filler = {f"filler:{number}": "x" for number in range(4000)}
    for _ in range(10):  # more than flow control lets be under way
        writer.set_many(filler, None)
    writer.delete_many(victims)
    time.sleep(max(0.0, began + 3 - time.monotonic()))
    proxy.thaw()
    assert soon(lambda: not reader.get_many(victims))
    assert reader.near.flushes == flushes, "it was not the feed that told of it"
