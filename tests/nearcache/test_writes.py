"""When writes are visible: own writes at once, other writes when the feed delivers them."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from django_nats.exceptions import NatsError
from tests.conftest import MakeCache, api
from tests.nearcache.conftest import MakeNear, near_of, soon
from tests.support.operations import CACHE, HELD, LIVES_S
from tests.support.process import run_in_processes

# Own writes ----------------------------------------------------------------------------------

WRITING = {call.method for call in CACHE.values() if call.writes}


def store_initial_values(cache: Any) -> None:
    """Store the initial values of the table of operations."""
    cache.set_many(HELD, LIVES_S)
    cache.delete("absent")


@pytest.mark.parametrize("row", [row for row in CACHE if CACHE[row].method in WRITING])
@pytest.mark.parametrize("misses", [False, True])
def test_own_writes_are_read_at_once(make_near: MakeNear, row: str, misses: bool) -> None:
    cache = make_near(MISSES=misses)
    key, expected = CACHE[row].key, CACHE[row].after
    for _ in range(3):
        store_initial_values(cache)
        assert (cache.get(key), cache.get("absent")) == (HELD.get(key), None)  # makes copies

        CACHE[row].at(cache.get_with_revision("key")[1]).sync(cache)

        assert cache.get(key) == expected
        assert cache.get_many([key]) == ({} if expected is None else {key: expected})
        assert cache.has_key(key) is (expected is not None)


def test_a_value_moved_to_another_version_is_read_at_once(make_near: MakeNear) -> None:
    cache = make_near(MISSES=True)
    cache.set("key", 1)
    assert cache.get("key", version=2) is None
    cache.incr_version("key")
    assert cache.get("key", version=2) == 1


def is_copied(cache: Any, key: str) -> bool:
    return cache.get(key) is not None and near_of(cache).entries > 0


@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({"MAX_VALUE_SIZE": 8000}, 9000),
        ({"EVICT": False, "MAX_BYTES": 20_000, "MAX_VALUE_SIZE": 19_000}, 18_000),
    ],
    ids=["too large", "full"],
)
@pytest.mark.parametrize("many", [False, True], ids=["set", "set_many"])
def test_a_refused_write_leaves_no_copy_of_the_old_value_anywhere(
    make_near: MakeNear, options: dict[str, Any], size: int, many: bool
) -> None:
    cache = make_near({"OPTIONS": options})
    elsewhere = make_near({"OPTIONS": {**options, "NAME": "another"}})
    cache.set("other", "x" * 7000)
    cache.set("key", "old" * 100)
    for each in (cache, elsewhere):
        assert soon(partial(is_copied, each, "key"))
    if many:
        assert cache.set_many({"key": "x" * size}) == ["key"]
    else:
        with pytest.raises(NatsError):
            cache.set("key", "x" * size)
    assert cache.get("key") is None
    assert soon(lambda: elsewhere.get("key") is None)


def test_own_writes_are_copied(near: Any) -> None:
    counted = near_of(near)
    near.set("set", 1)
    near.set_many({"many": 1})
    near.add("added", 1)
    near.incr("set")
    hits = counted.hits
    assert near.get_many(["set", "many", "added"]) == {"set": 2, "many": 1, "added": 1}
    assert counted.hits - hits == 3


def test_own_writes_are_read_at_once_by_every_alias_of_the_connection(
    make_near: MakeNear, make_cache: MakeCache
) -> None:
    one, two = make_near(MAX_ENTRIES=100), make_near(MAX_ENTRIES=200, KEYS=["k*"])
    without = make_cache()
    assert near_of(one) is not near_of(two)
    for number, writer in enumerate([one, two, without] * 5):
        writer.set("key", number)
        assert (one.get("key"), two.get("key")) == (number, number)
    without.clear()
    assert (one.get("key"), two.get("key")) == (None, None)


def test_aliases_with_the_same_settings_share_copies(make_near: MakeNear) -> None:
    one, two = make_near(KEYS=["k*"]), make_near({"TIMEOUT": 5}, KEYS=["k*"])
    one.set("key", 1)
    hits = near_of(two).hits
    assert near_of(one) is near_of(two)
    assert two.get("key") == 1
    assert near_of(two).hits == hits + 1


# Writes of others ----------------------------------------------------------------------------


@pytest.mark.parametrize("row", [row for row in CACHE if CACHE[row].writes])
def test_writes_of_others_drop_the_copy(make_near: MakeNear, other: NatsCache, row: str) -> None:
    cache = make_near(MISSES=True)
    near = near_of(cache)
    key, expected = CACHE[row].key, CACHE[row].after
    store_initial_values(other)
    call = CACHE[row].at(other.get_with_revision("key")[1])
    assert soon(lambda: cache.get(key) == HELD.get(key) and near.entries == 1)
    flushes = near.flushes

    call.sync(other)

    assert soon(lambda: near.entries == 0)  # before any read
    assert cache.get(key) == expected
    assert near.flushes == flushes


def test_writes_of_another_process_are_seen(near: Any, server: NatsServer) -> None:
    near.set("key", 1)
    plain = near.plain
    assert run_in_processes(server, plain, "print(cache.get('key')); cache.set('key', 2)") == ["1"]
    assert soon(lambda: near.get("key") == 2)


def test_reads_never_go_back_to_an_older_value(near: Any, other: NatsCache) -> None:
    seen = []
    for number in range(300):
        (other if number % 2 else near).set("key", number)
        seen.append(near.get("key"))
        if number % 2 == 0:
            assert seen[-1] == number
    assert seen == sorted(seen)
    assert soon(lambda: near.get("key") == 299)


def test_a_recreated_bucket_is_read_and_copied_again(make_near: MakeNear, other: NatsCache) -> None:
    cache = make_near(MAX_STALE=0.3)
    near = near_of(cache)

    def filled() -> bool:
        for number in range(5):
            cache.set(f"key-{number}", "old")
        return near.entries == 5

    assert soon(filled)
    api(other, f"STREAM.DELETE.{other.bucket.config.stream}")
    for number in range(9):
        other.set(f"key-{number}", "new")
    assert soon(lambda: cache.get("key-1") == "new")
    assert soon(lambda: near.flushes >= 1)

    def served() -> bool:
        cache.set("key-1", "newer")
        hits = near.hits
        assert cache.get("key-1") == "newer"
        return near.hits == hits + 1

    assert soon(served)
