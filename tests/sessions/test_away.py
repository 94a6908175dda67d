"""Sessions in a cache whose server is away, or has no room."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.exceptions import BucketFull, NotSent, ValueTooLarge
from tests.conftest import MakeCache
from tests.support.outage import Outage
from tests.support.sessions import SESSIONS, Request


@pytest.fixture(params=[False, True], ids=["sync", "async"])
def asynchronous(request: pytest.FixtureRequest, settings: Any) -> bool:
    settings.SESSION_ENGINE = SESSIONS
    return bool(request.param)


class Visitor:
    """A visitor with a session, who sends requests before, during and after an outage."""

    def __init__(self, outage: Outage, asynchronous: bool, **options: Any) -> None:
        self._asynchronous = asynchronous
        self.cache = outage.use(**options)
        self.key = self.request(None).set(user=1).save().key

    def request(self, key: str | None) -> Request:
        return Request(key, asynchronous=self._asynchronous)

    @property
    def stored(self) -> dict[str, Any]:
        return self.request(self.key).data


@pytest.fixture
def visitor(outage: Outage, asynchronous: bool) -> Visitor:
    return Visitor(outage, asynchronous)


@pytest.fixture
def tolerant(outage: Outage, asynchronous: bool) -> Visitor:
    """Return a visitor of a site with FAIL_OPEN."""
    return Visitor(outage, asynchronous, FAIL_OPEN=True)


def test_a_session_that_cannot_be_loaded_is_an_error_and_keeps_its_key(
    outage: Outage, visitor: Visitor
) -> None:
    request = visitor.request(visitor.key)
    outage.begin()
    with pytest.raises(NotSent):
        request.load()
    with pytest.raises(NotSent):
        request.save()
    assert request.key == visitor.key
    assert not request.store.is_empty()
    outage.end()
    assert request.data == {"user": 1}


def test_with_fail_open_it_is_empty_and_keeps_its_key(outage: Outage, tolerant: Visitor) -> None:
    request = tolerant.request(tolerant.key)
    outage.begin()
    assert request.data == {}
    assert request.key == tolerant.key
    assert not request.store.is_empty()


def test_with_fail_open_what_is_put_in_the_empty_session_is_dropped(
    outage: Outage, tolerant: Visitor
) -> None:
    request = tolerant.request(tolerant.key)
    outage.begin()
    request.load()
    outage.end()
    request.set(cart=1)
    assert not request.store.modified
    request.save()
    assert tolerant.stored == {"user": 1}


def test_a_missing_session_is_empty_and_has_no_key(outage: Outage, tolerant: Visitor) -> None:
    request = tolerant.request("a" * 32)
    assert request.data == {}
    assert request.key is None
    request.set(cart=1)
    assert request.store.modified


def test_a_session_that_was_loaded_before_is_not_saved_without_an_error(
    outage: Outage, visitor: Visitor
) -> None:
    request = visitor.request(visitor.key).load()
    outage.begin()
    with pytest.raises(NotSent):
        request.set(cart=1).save()
    outage.end()
    assert visitor.stored == {"user": 1}
    request.save()
    assert visitor.stored == {"user": 1, "cart": 1}


def test_with_fail_open_a_save_of_it_is_dropped(outage: Outage, tolerant: Visitor) -> None:
    request = tolerant.request(tolerant.key).load()
    outage.begin()
    request.set(cart=1).save()
    outage.end()
    assert tolerant.stored == {"user": 1}


@pytest.mark.parametrize("fail_open", [False, True])
def test_creating_a_session_gives_up_at_the_first_refusal(
    outage: Outage, asynchronous: bool, fail_open: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    visitor = Visitor(outage, asynchronous, FAIL_OPEN=fail_open)
    tried = []
    monkeypatch.setattr(
        "django_nats.cache.sessions.get_random_string",
        lambda length, allowed: tried.append(length) or "k" * length,
    )
    new = visitor.request(None).set(cart=1)
    outage.begin()
    with pytest.raises(NotSent):
        new.save()
    assert tried == [32]
    assert new.key is None
    outage.end()
    assert new.save().key == "k" * 32


@pytest.mark.parametrize("fail_open", [False, True])
@pytest.mark.parametrize("method", ["cycle_key", "flush", "delete"])
def test_a_login_or_logout_is_an_error_and_keeps_the_session(
    outage: Outage, asynchronous: bool, fail_open: bool, method: str
) -> None:
    visitor = Visitor(outage, asynchronous, FAIL_OPEN=fail_open)
    request = visitor.request(visitor.key).load()
    outage.begin()
    with pytest.raises(NotSent):
        request.call(method)
    assert request.key == visitor.key
    outage.end()
    assert visitor.stored == {"user": 1}


def test_after_a_failed_login_the_old_session_can_be_saved(
    outage: Outage, visitor: Visitor
) -> None:
    request = visitor.request(visitor.key).load()
    outage.begin()
    with pytest.raises(NotSent):
        request.call("cycle_key")
    outage.end()
    visitor.request(visitor.key).set(theirs=1).save()
    request.set(ours=2).save()
    assert visitor.stored == {"user": 1, "theirs": 1, "ours": 2}


def test_a_session_that_was_not_loaded_may_get_a_new_key_but_no_old_data(
    outage: Outage, tolerant: Visitor
) -> None:
    request = tolerant.request(tolerant.key)
    outage.begin()
    request.load()
    outage.end()
    request.set(user=2).call("cycle_key")
    assert tolerant.request(request.key).data == {"user": 2}
    request.set(cart=1)
    assert request.store.modified
    request.save()
    assert tolerant.request(request.key).data == {"user": 2, "cart": 1}
    assert tolerant.stored == {}


def test_load_after_the_outage_replaces_no_stored_data(outage: Outage, tolerant: Visitor) -> None:
    request = tolerant.request(tolerant.key)
    outage.begin()
    request.load()
    outage.end()
    assert request.call("load") == {"user": 1}
    request.set(cart=1)
    assert not request.store.modified
    request.save()
    assert tolerant.stored == {"user": 1}


def test_a_failed_load_makes_a_loaded_session_forget_nothing(
    outage: Outage, visitor: Visitor
) -> None:
    request = visitor.request(visitor.key).load()
    outage.begin()
    with pytest.raises(NotSent):
        request.call("load")
    outage.end()
    visitor.request(visitor.key).set(theirs=1).save()
    request.set(ours=2).save()
    assert visitor.stored == {"user": 1, "theirs": 1, "ours": 2}


def test_a_change_after_a_flush_is_saved_in_a_new_session(
    outage: Outage, tolerant: Visitor
) -> None:
    request = tolerant.request(tolerant.key)
    outage.begin()
    request.load()
    outage.end()
    request.call("flush")
    request.set(language="en")
    assert request.store.modified
    assert not request.call("get_expire_at_browser_close")
    request.save()
    assert tolerant.request(request.key).data == {"language": "en"}
    assert tolerant.stored == {}


@pytest.mark.parametrize("fail_open", [False, True])
def test_exists_is_an_error_while_the_server_is_away(
    outage: Outage, asynchronous: bool, fail_open: bool
) -> None:
    visitor = Visitor(outage, asynchronous, FAIL_OPEN=fail_open)
    outage.begin()
    with pytest.raises(NotSent):
        visitor.request(None).call("exists", visitor.key)


@pytest.fixture
def full(use_cache: MakeCache, asynchronous: bool, request: pytest.FixtureRequest) -> NatsCache:
    limits = {"EVICT": False, "MAX_BYTES": 3000, "MAX_VALUE_SIZE": 2500}
    return use_cache(OPTIONS={**limits, "FAIL_OPEN": request.param})


@pytest.mark.parametrize("full", [False], indirect=True)
def test_a_full_bucket_refuses_a_save_and_keeps_the_session(
    full: NatsCache, asynchronous: bool
) -> None:
    request = Request(asynchronous=asynchronous).set(user=1).save()
    full.set("other", "x" * 2000)
    with pytest.raises(BucketFull):
        request.set(cart="y" * 900).save()
    assert Request(request.key).data == {"user": 1}


@pytest.mark.parametrize("full", [True], indirect=True)
def test_with_fail_open_a_full_bucket_drops_a_save_but_creates_no_session(
    full: NatsCache, asynchronous: bool
) -> None:
    request = Request(asynchronous=asynchronous).set(user=1).save()
    full.set("other", "x" * 2000)
    request.set(cart="y" * 900).save()
    assert Request(request.key).data == {"user": 1}
    new = Request(asynchronous=asynchronous).set(cart="y" * 900)
    with pytest.raises(BucketFull):
        new.save()
    assert new.key is None


@pytest.mark.parametrize("full", [False], indirect=True)
def test_an_error_does_not_hold_the_session_key(full: NatsCache, asynchronous: bool) -> None:
    request = Request(asynchronous=asynchronous).set(user=1).save()
    full.set("other", "x" * 2000)
    for pieces, kind in ((900, BucketFull), (3000, ValueTooLarge)):
        with pytest.raises(kind) as raised:
            request.set(cart="y" * pieces).save()
        error: BaseException | None = raised.value
        while error is not None:
            assert request.key not in str(error)
            error = error.__cause__
        assert "django.contrib.sessions.cache…" in str(raised.value)
