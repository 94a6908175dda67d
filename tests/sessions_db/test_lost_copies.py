"""Changes of sessions while the cache, which has copies of them, is away."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client.protocol.steps import Call
from django_nats.exceptions import Unavailable
from django_nats.sessions_db import copies
from tests.servers import eventually
from tests.sessions.conftest import NEAR
from tests.support.outage import Outage
from tests.support.sessions import OpenSession, Request


@pytest.fixture(params=[{}, NEAR, {"FAIL_OPEN": True}], ids=["", "near cache", "FAIL_OPEN"])
def cache(outage: Outage, request: pytest.FixtureRequest) -> NatsCache:
    return outage.use(**request.param)


def stored_copy(cache: NatsCache, key: str) -> Any:
    """Return the copy that the server has."""
    return cache.get_with_revision(f"django.contrib.sessions.cached_db{key}")[0]


def is_answered(cache: NatsCache) -> bool:
    try:
        return cache.set("asked", 1, nx=True) or True
    except Unavailable:
        return False


def test_the_database_serves_alone_while_the_cache_is_away(
    cache: NatsCache, outage: Outage, open_session: OpenSession
) -> None:
    one = open_session().set(user=1).save()
    outage.begin()
    assert open_session(one.key).data == {"user": 1}
    assert open_session().call("exists", one.key)
    assert not open_session().call("exists", "a" * 32)
    new = open_session().set(user=2).save()
    new.set(cart=1).save()
    assert open_session(new.key).data == {"user": 2, "cart": 1}
    new.call("cycle_key")
    assert open_session(new.key).data == {"user": 2, "cart": 1}
    key = new.key
    new.call("flush")
    assert open_session(key).data == {}


def test_a_copy_that_a_save_could_not_change_is_deleted_before_the_next_load(
    cache: NatsCache, outage: Outage, open_session: OpenSession
) -> None:
    one = open_session().set(user=1).save()
    outage.begin()
    one.set(user=2).save()
    outage.end()
    assert stored_copy(cache, one.key) == {"user": 1}
    assert open_session().call("exists", open_session().set(other=1).save().key)
    assert stored_copy(cache, one.key) is None
    assert open_session(one.key).data == {"user": 2}


@pytest.mark.parametrize("ending", ["flush", "cycle_key", "delete"])
def test_a_session_that_ended_meanwhile_is_not_read_from_its_copy(
    cache: NatsCache, outage: Outage, open_session: OpenSession, ending: str
) -> None:
    one = open_session().set(user=1).save()
    key = one.key
    outage.begin()
    one.call(ending)
    outage.end()
    assert stored_copy(cache, key) == {"user": 1}
    assert open_session(key).data == {}
    assert stored_copy(cache, key) is None


def test_no_copy_is_read_while_one_in_doubt_cannot_be_deleted(
    cache: NatsCache, outage: Outage, open_session: OpenSession
) -> None:
    one = open_session().set(user=1).save()
    outage.begin()
    one.set(user=2).save()
    assert open_session(one.key).data == {"user": 2}
    outage.end()
    assert open_session(one.key).data == {"user": 2}


def test_a_copy_whose_change_arrives_late_is_deleted(
    outage: Outage, open_session: OpenSession, without_pings: None
) -> None:
    cache = outage.use(REQUEST_TIMEOUT=1.0)
    one = open_session().set(user=1).save()
    late = open_session(one.key).load()
    assert eventually(lambda: not cache.session.waiters)
    outage.proxy.freeze()
    late.set(user=2).save()
    Request(one.key).set(user=3).save()
    outage.proxy.thaw()
    assert eventually(lambda: is_answered(cache))
    assert open_session(one.key).data == {"user": 3}
    assert stored_copy(cache, one.key) in (None, {"user": 3})


def advance(steps: Any) -> Any:
    """Run steps up to the first request that is sent to the server. Return that."""
    effect = next(steps)
    while isinstance(effect, Call):
        effect = steps.send(effect.function(*effect.arguments))
    return effect


@pytest.mark.parametrize("method", ["save", "delete", "take"])
def test_a_copy_is_in_doubt_if_its_request_is_cancelled(
    outage: Outage, open_session: OpenSession, method: str
) -> None:
    """As an async view is when its visitor leaves: the database has changed by then."""
    cache = outage.use()
    one = Request().set(user=1).save()
    key = one.key
    one.set(user=2)
    steps = {
        "save": lambda: one.store._save(False),
        "delete": lambda: one.store._delete(None),
        "take": lambda: one.store._take(key, {}, None),
    }[method]()
    advance(steps)
    steps.close()
    assert stored_copy(cache, key) == {"user": 1}
    assert open_session(key).data == ({"user": 2} if method == "save" else {})


@pytest.mark.parametrize("method", ["save", "delete", "take"])
def test_a_copy_is_in_doubt_again_if_the_database_changes_after_the_cancellation(
    session_cache: NatsCache, open_session: OpenSession, method: str
) -> None:
    """The thread that changes the database goes on, and may wait for a lock of the row."""
    one = Request().set(user=1).save()
    key = one.key
    one.set(user=2)
    steps = {
        "save": lambda: one.store._save(False),
        "delete": lambda: one.store._delete(None),
        "take": lambda: one.store._take(key, {}, None),
    }[method]()
    call = next(steps)
    steps.close()
    assert open_session(key).data == {"user": 1}
    assert stored_copy(session_cache, key) == {"user": 1}
    call.function(*call.arguments)
    assert open_session(key).data == ({"user": 2} if method == "save" else {})


# What is noted of lost changes ---------------------------------------------------------------


def test_a_key_that_was_noted_again_stays_noted() -> None:
    doubts = copies.Doubts()
    doubts.note("a")
    doubts.note("b")
    deleted = doubts.some()
    doubts.note("a")
    doubts.settle(deleted)
    assert doubts.some().keys() == {"a"}


def test_the_oldest_notes_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "_MAX_DOUBTS", 3)
    doubts = copies.Doubts()
    for key in "abacd":
        doubts.note(key)
    assert [*doubts.some()] == ["a", "c", "d"]


def test_a_forked_child_can_note_though_a_thread_of_its_parent_was_noting(cache: NatsCache) -> None:
    doubts = copies._doubts.setdefault("default", copies.Doubts())
    with doubts.lock:
        copies._after_fork()
        doubts.note("a")
    assert doubts.some().keys() == {"a"}


def test_many_copies_in_doubt_are_deleted_in_parts(
    outage: Outage, open_session: OpenSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_BATCH", 2)
    cache = outage.use()
    requests = [open_session().set(user=number).save() for number in range(5)]
    outage.begin()
    for each in requests:
        each.call("delete")
    outage.end()
    open_session(requests[0].key).load()
    assert [stored_copy(cache, each.key) for each in requests] == [None] * 5


@pytest.mark.filterwarnings("ignore::django.core.cache.backends.base.CacheKeyWarning")
@pytest.mark.parametrize("key", ["k" * 70_000, "surrogate \udcff"], ids=["long", "surrogate"])
def test_a_key_that_cannot_be_stored_harms_no_other_session(
    session_cache: NatsCache, open_session: OpenSession, key: str
) -> None:
    """A visitor may send any cookie to a view that flushes the session before it is loaded."""
    one = open_session().set(user=1).save()
    lost = open_session().set(user=1).save()
    with suppress(UnicodeEncodeError):  # by the database
        open_session(key).call("flush")
    doubts = copies._doubts["default"]
    doubts.note(lost.store.cache_key)
    assert open_session(one.key).data == {"user": 1}
    assert stored_copy(session_cache, lost.key) is None
    assert not doubts.some()
