"""The positions of a stream that a feed reports: where it begins, and what the leader has."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from django_nats.cache import NatsCache
from django_nats.client.feed.feed import Feed
from django_nats.client.kv.entry import EVERYTHING
from django_nats.exceptions import NotSent
from tests.client.feed.test_feed import Link, delivered
from tests.support import answers
from tests.support.following import Following, Recorder


def test_a_feed_begins_after_the_last_change_of_the_stream(cache: NatsCache) -> None:
    cache.set("key", 1)
    revision = cache.get_with_revision("key")[1]
    following = Following(cache)
    assert following.recorder.positions == [revision]
    following.stop()


def test_a_lone_server_has_stored_all_that_it_sends(cache: NatsCache) -> None:
    following = Following(cache)
    assert following.recorder.stored == EVERYTHING
    following.stop()


def test_the_leader_of_several_replicas_is_asked_what_it_has_stored(
    cache: NatsCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.set_many({"one": 1, "two": 2})
    revision = cache.get_with_revision("two")[1]
    following = Following(cache)
    monkeypatch.setattr(cache.bucket.stream.opening, "replicated", True)
    following.wait_for(lambda: following.recorder.stored == revision)
    following.stop()


class Answering(Link):
    """A connection on which every ping is answered."""

    def __init__(self) -> None:
        super().__init__()
        self.outstanding = SimpleNamespace(lock=threading.Lock())
        self.lost = asyncio.get_running_loop().create_future()

    async def ping(self) -> float:
        return time.monotonic()


async def test_changes_that_came_before_the_feed_was_open_are_part_of_its_beginning() -> None:
    recorder = Recorder()
    bucket = answers.opened()
    connection = Answering()
    feed = Feed(connection, bucket, ["$KV.b.=.1.>"], recorder, 1.0, None)  # type: ignore[arg-type]
    feed._receive(delivered(feed))  # at sequence 7 of the stream
    connection.lost.set_result(None)
    with pytest.raises(NotSent):
        await feed.follow()
    assert recorder.positions == [7]
