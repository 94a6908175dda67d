"""Copies while their server dies, stops or loses its data: never stale for longer than allowed."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from tests.conftest import PATIENT, api
from tests.support.near_load import ALONE, ROUNDS, Load, soon

pytestmark = [pytest.mark.faults, *ALONE]


@pytest.fixture
def plain(own_server: NatsServer) -> Iterator[NatsCache]:
    """Return a cache without copies on the bucket of a load."""
    options = {"BUCKET": "load", "TOKEN": own_server.token, **PATIENT}
    yield NatsCache(own_server.url, {"OPTIONS": options})
    process.close()


def test_copies_are_flushed_when_a_server_with_file_storage_restarts(
    own_server: NatsServer,
) -> None:
    with Load(own_server, options={"STORAGE": "file"}) as load:
        for _ in range(2 * ROUNDS):
            with load.flushing():
                own_server.kill()
                own_server.start()
        load.check()


def test_copies_are_flushed_when_a_server_with_memory_storage_restarts(
    own_server: NatsServer,
) -> None:
    """The values are lost, and the new stream's revisions begin at 1 again."""
    with Load(own_server) as load:
        for _ in range(2 * ROUNDS):
            with load.flushing():
                load.losing(own_server.kill)
                own_server.start()
        load.check()


@pytest.mark.parametrize("seconds", [2.0, 7.0], ids=["shortly", "until it counts as lost"])
def test_copies_are_bypassed_while_the_server_is_stopped(
    own_server: NatsServer, seconds: float
) -> None:
    with Load(own_server) as load:
        for _ in range(ROUNDS):
            own_server.pause()
            stopped = time.monotonic()
            load.wait_until_bypassed(stopped)
            time.sleep(max(0, stopped + seconds - time.monotonic()))
            own_server.resume()
            load.wait_until_served()
        load.check()


def test_copies_are_flushed_when_another_client_deletes_the_stream(
    own_server: NatsServer, plain: NatsCache
) -> None:
    """The writers notice first and recreate the stream."""
    plain.get("warm-up")
    with Load(own_server) as load:
        for _ in range(2 * ROUNDS):
            with load.flushing():
                load.losing(lambda: api(plain, "STREAM.DELETE.KV_load"))
        load.check()


def test_copies_are_flushed_when_the_stream_is_recreated_without_writes(
    own_server: NatsServer, plain: NatsCache
) -> None:
    plain.get("warm-up")
    config = api(plain, "STREAM.INFO.KV_load")["config"]
    with Load(own_server, pause=3600) as load:
        with load.flushing():
            load.losing(lambda: _recreate(plain, config))
        load.check()


def _recreate(plain: NatsCache, config: dict[str, object]) -> None:
    api(plain, "STREAM.DELETE.KV_load")
    api(plain, "STREAM.CREATE.KV_load", config)


def test_copies_of_writes_lost_in_a_crash_are_dropped(
    own_server: NatsServer, tmp_path: Path
) -> None:
    """The crash loses acknowledged writes; the server gives their revisions to other values.

    A real crash loses an unknown part; here the test restores an earlier copy of the files.
    """
    options = {
        "BUCKET": "load",
        "TOKEN": own_server.token,
        "STORAGE": "file",
        "PERSIST": "async",
        "CONNECT_TIMEOUT": 20.0,
        "REQUEST_TIMEOUT": 20.0,
    }
    near = {"NEAR_CACHE": {"MISSES": True, "MAX_STALE": 30.0}}
    plain = NatsCache(own_server.url, {"OPTIONS": options})
    reader = NatsCache(own_server.url, {"OPTIONS": {**options, **near, "NAME": "reader"}})
    kept = {f"kept:{number}": "kept" for number in range(10)}
    plain.set_many(kept, None)
    store, saved = own_server.directory / "store", tmp_path / "store"
    own_server.restart()  # an orderly stop, so that everything is in the files
    assert soon(lambda: _answers(plain))
    lost = {f"lost:{number}": "lost" for number in range(10)}
    after = {f"after:{number}": "after" for number in range(10)}
    everything = [*kept, *lost, *after]
    for _ in range(1 + ROUNDS):
        own_server.pause()  # no file may vanish while it is copied
        shutil.copytree(store, saved)
        own_server.resume()
        plain.set_many({**lost, **dict.fromkeys(kept, "newer")}, None)
        newest = plain.get_with_revision("kept:9")[1]
        assert soon(lambda: _served(reader, everything))
        assert reader.get_many(lost) == lost
        own_server.kill()
        shutil.rmtree(store)
        shutil.move(saved, store)
        own_server.start()
        assert soon(lambda: _answers(plain))
        plain.set_many(after, None)
        assert plain.get_with_revision("after:9")[1] <= newest
        assert soon(lambda: _served(reader, everything))
        assert reader.get_many(everything) == {**kept, **after}
        plain.delete_many(after)


def _answers(cache: NatsCache) -> bool:
    try:
        cache.get("probe")
    except Exception:
        return False
    return True


def _served(cache: NatsCache, keys: list[str]) -> bool:
    """Return True if all of the keys are read from copies."""
    assert cache.near is not None
    before = cache.near.hits
    try:
        cache.get_many(keys)
    except Exception:
        return False
    return cache.near.hits - before == len(keys)
