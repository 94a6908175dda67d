"""Operators who switch allow_direct off, as maintainers of NATS sometimes advise, and on again."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketMismatch, CounterMismatch, NatsError
from tests.conftest import PATIENT
from tests.servers import eventually, request
from tests.support.ports import free_port

ANSWERS = {"one": 1, "two": 2}


@pytest.fixture
def server() -> Iterator[NatsServer]:
    with NatsServer(port=free_port()) as running:
        yield running
        process.close()


def allow_direct(server: NatsServer, stream: str, value: bool) -> None:
    subject = f"$JS.API.STREAM.{{}}.{stream}"
    info: Any = request(server, subject.format("INFO"))
    changed = {**info["config"], "allow_direct": value}
    answer = request(server, subject.format("UPDATE"), changed)
    assert "config" in answer, answer


def use_cache(cache: NatsCache) -> None:
    cache.clear()
    assert cache.set_many(ANSWERS) == []
    assert cache.get("one") == 1
    assert cache.get_many(["one", "two", "three"]) == ANSWERS
    assert not cache.add("one", 3)
    assert cache.incr("two") == 3
    assert sorted(cache.iter_keys("*")) == ["one", "two"]
    assert cache.delete("one")
    assert cache.get("one") is None


def use_counters(counters: Counters) -> None:
    Counter("a.b").reset()
    assert counters.incr("a.b", 5) == 5
    assert counters.get_many(["a.b", "none"]) == {"a.b": 5, "none": 0}
    assert counters.matching("a.*") == {"a.b": 5}
    assert counters.total("a.>") == 5


def reconnect(server: NatsServer, is_back: Any) -> None:
    server.restart()
    assert eventually(is_back)


def works(function: Any, *arguments: object) -> bool:
    try:
        function(*arguments)
    except NatsError:
        return False
    return True


def make_cache(server: NatsServer, reads: str) -> NatsCache:
    options = {"TOKEN": server.token, "STORAGE": "file", "READS": reads, **PATIENT}
    return NatsCache(server.url, {"OPTIONS": options})


def test_a_bucket_with_reads_leader_goes_on_without_direct_gets(server: NatsServer) -> None:
    cache = make_cache(server, "leader")
    use_cache(cache)
    allow_direct(server, cache.bucket.config.stream, False)
    use_cache(cache)
    cache.bucket.stream.opening.reopen()
    use_cache(cache)
    reconnect(server, lambda: works(cache.get, "one"))
    use_cache(cache)


def test_a_bucket_with_reads_any_says_what_to_do_and_goes_on_when_that_is_done(
    server: NatsServer,
) -> None:
    cache = make_cache(server, "any")
    use_cache(cache)
    allow_direct(server, cache.bucket.config.stream, False)
    for _ in range(2):
        with pytest.raises(BucketMismatch, match="allow_direct is False, not True") as caught:
            cache.get("two")
        assert "`manage.py nats setup` changes it" in str(caught.value)
        assert 'set READS to "leader"' in str(caught.value)
    allow_direct(server, cache.bucket.config.stream, True)
    use_cache(cache)


def test_counters_with_reads_leader_go_on_without_direct_gets(
    server: NatsServer, settings: Any
) -> None:
    entry = {"LOCATION": server.url, "TOKEN": server.token, **PATIENT, "DEADLINE": 60}
    settings.NATS_COUNTERS = {"default": {**entry, "READS": "leader"}}
    counters = Counters()
    use_counters(counters)
    allow_direct(server, "COUNTERS", False)
    use_counters(counters)
    reconnect(server, lambda: works(counters.get_many, ["a.b"]))
    use_counters(counters)


def test_counters_with_reads_any_say_what_to_do(server: NatsServer, settings: Any) -> None:
    entry = {"LOCATION": server.url, "TOKEN": server.token, **PATIENT, "DEADLINE": 60}
    settings.NATS_COUNTERS = {"default": entry}
    counters = Counters()
    use_counters(counters)
    allow_direct(server, "COUNTERS", False)
    with pytest.raises(CounterMismatch, match="allow_direct is False, not True") as caught:
        counters.get_many(["a.b"])
    assert 'set READS to "leader"' in str(caught.value)
    allow_direct(server, "COUNTERS", True)
    use_counters(counters)
