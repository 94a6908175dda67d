"""Readers that are stopped, delayed or flooded do not serve stale copies afterwards."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport import connection
from django_nats.devserver import NatsServer
from tests.support.near_load import ALONE, NEVER_AGAIN, ROUNDS, Load, soon
from tests.support.proxy import Proxy

STOP = 5.0
"""Seconds; more than MAX_STALE, and less than the server's write deadline for slow consumers."""
pytestmark = [pytest.mark.faults, *ALONE]


def test_a_reader_stopped_during_writes_reads_nothing_stale_afterwards(
    own_server: NatsServer,
) -> None:
    """When it resumes, the changes are still unread in the reader's socket."""
    load = Load(own_server, readers=2, keys=100, pause=0.017, delete_every=7)
    with load:
        stopped, _ = load.readers
        done = 0
        resumed: list[float] = []
        # Go on until a stop fell between two reads; one during a read shows nothing.
        while done < 2 * ROUNDS or (
            done < 10 * ROUNDS and not stopped.ask("status")["after_stops"]
        ):
            done += 1
            stopped.pause()
            began = time.monotonic()
            load.wait_for_writes(1000)  # of every key several times
            time.sleep(max(0, began + STOP - time.monotonic()))
            load.write_rare()  # the last message of the feed
            resumed.append(time.monotonic())
            stopped.resume()
            load.wait_until_served()
        outcome = load.check()
    # On a busy machine, threads may also have stopped for a moment before.
    first = [(began, stale) for began, stale in outcome.after_stops() if began >= resumed[0]]
    assert first
    # Writers go on, so a thread that reads late may find a value replaced since it resumed.
    since = (
        (began - max(each for each in resumed if each <= began), stale) for began, stale in first
    )
    assert all(stale <= late for late, stale in since), (first, resumed)


BURST = 50
"""In units of 2,000 writes."""


def test_a_reader_stopped_during_a_burst_stays_connected_and_misses_nothing(
    tmp_path: Path,
) -> None:
    """Flow control holds the changes back that do not fit into the buffers."""
    options = {"REQUEST_TIMEOUT": 10.0}  # a timeout would end the burst
    with (
        # By default, the server drops a client that reads nothing for ten seconds.
        NatsServer(directory=tmp_path, config='write_deadline: "10m"') as server,
        Load(
            server, options=options, readers=1, keys=1000, pause=NEVER_AGAIN, delete_every=9
        ) as load,
    ):
        (reader,) = load.readers
        (before,) = load.statuses()
        goal = load.written() + BURST * 2000
        reader.pause()
        stopped = time.monotonic()
        while load.written() < goal and time.monotonic() < stopped + 3:
            load.write()
        reader.resume()
        while load.written() < goal:
            load.write()
        load.wait_until_served()
        (after,) = load.statuses()
        assert after["connections"] == before["connections"]
        outcome = load.check()
        assert "Slow Consumer" not in server.log()
    assert outcome.hits


@pytest.fixture
def proxy(own_server: NatsServer) -> Iterator[Proxy]:
    with Proxy(own_server.port, delay=0.0005) as running:
        yield running
        process.close()


class Late(Proxy):
    """A proxy that delays data for the client but keeps its rate."""

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
def test_a_lagging_feed_serves_deleted_keys_no_longer_than_max_stale(
    own_server: NatsServer, max_stale: float
) -> None:
    """Keys are deleted while the feed lags by more, or by less, than MAX_STALE."""
    lateness = 2.5  # with more, the connection would count as lost
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
            load.wait_until_behind()
        else:
            load.wait_until_bypassed(time.monotonic(), attempts=20)
        proxy.lateness = 0.0
        load.wait_until_served()
        load.check(max_stale)


def test_deletes_arrive_after_the_feed_was_stalled(
    own_server: NatsServer, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The feed is so far behind that flow control stops it; the deletes still arrive later."""
    monkeypatch.setattr(connection, "PING_INTERVAL_S", 30)  # keep the connection open
    options = {"BUCKET": "stalled", "TOKEN": own_server.token, "REQUEST_TIMEOUT": 30.0}
    near = {"MAX_STALE": 90.0, "MAX_AGE": 600.0}  # longer than the test waits
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
    for _ in range(10):  # more than flow control allows in flight
        writer.set_many(filler, None)
    writer.delete_many(victims)
    time.sleep(max(0.0, began + 3 - time.monotonic()))
    proxy.thaw()
    assert soon(lambda: not reader.get_many(victims))
    assert reader.near.flushes == flushes, "the deletes did not come by the feed"
