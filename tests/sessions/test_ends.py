"""Sessions that end, or get another key, while other requests use them."""

from __future__ import annotations

import pytest
from django.contrib.sessions.backends.base import CreateError, UpdateError

from django_nats.cache import NatsCache
from tests.support.sessions import SESSIONS, OpenSession


@pytest.mark.parametrize("ending", ["flush", "delete", "cycle_key"])
def test_a_late_save_does_not_bring_a_session_back(open_session: OpenSession, ending: str) -> None:
    key = open_session().set(user=1).save().key
    late, ended = open_session(key).load(), open_session(key).load()
    ended.call(ending)
    with pytest.raises(UpdateError):
        late.set(cart=1).save()
    assert not late.call("exists", key)
    assert open_session(key).load().key is None


def test_a_save_of_a_session_that_never_was_creates_none(open_session: OpenSession) -> None:
    unknown = open_session("neverstoredanywhere")
    unknown.store.clear()
    with pytest.raises(UpdateError):
        unknown.set(cart=1).save()
    with pytest.raises(UpdateError):
        open_session("neverstoredanywhere").save()
    assert not unknown.call("exists", "neverstoredanywhere")


def test_a_session_cannot_be_created_under_a_key_in_use(open_session: OpenSession) -> None:
    one = open_session().set(user=1).save()
    another = open_session(one.key)
    with pytest.raises(CreateError):
        another.call("save", must_create=True)
    assert open_session(one.key).data == {"user": 1}


def test_a_session_can_be_created_under_the_key_of_a_deleted_one(
    open_session: OpenSession,
) -> None:
    one = open_session().set(user=1).save()
    one.call("delete")
    another = open_session(one.key)
    another.store.clear()
    another.set(user=2).call("save", must_create=True)
    assert open_session(one.key).data == {"user": 2}


def test_a_new_key_keeps_what_another_request_stored_under_the_old_one(
    open_session: OpenSession,
) -> None:
    key = open_session().set(cart=[], kept=1).save().key
    login, adding = open_session(key).load(), open_session(key).load()
    adding.set(cart=["book"]).drop("kept").save()
    login.call("cycle_key")
    login.set(user=1).save()
    assert login.key != key
    assert open_session(login.key).data == {"cart": ["book"], "user": 1}


def test_a_new_key_keeps_the_changes_of_its_own_request(open_session: OpenSession) -> None:
    key = open_session().set(cart=[]).save().key
    login, adding = open_session(key).load(), open_session(key).load()
    adding.set(cart=["book"]).save()
    login.set(cart=["pen"]).call("cycle_key")
    assert login.data == open_session(login.key).data == {"cart": ["pen"]}


def test_two_requests_may_cycle_the_key_of_one_session(open_session: OpenSession) -> None:
    """As after two clicks on a button to log in."""
    key = open_session().set(cart=["book"]).save().key
    one, another = open_session(key).load(), open_session(key).load()
    one.call("cycle_key")
    another.call("cycle_key")
    assert len({key, one.key, another.key}) == 3
    for each in (one, another):
        assert open_session(each.key).data == {"cart": ["book"]}


def test_the_old_session_is_not_merged_into_one_that_was_not_loaded(
    open_session: OpenSession,
) -> None:
    key = open_session().set(user=1).save().key
    other = open_session(key)
    other.store.clear()
    other.call("cycle_key")
    assert open_session(other.key).data == {}
    assert not other.call("exists", key)


def test_flush_leaves_an_empty_session_without_a_key(open_session: OpenSession) -> None:
    one = open_session().set(user=1).save()
    old_key = one.key
    one.call("flush")
    assert (one.key, one.data) == (None, {})
    one.set(new=1).save()
    assert one.key != old_key
    assert open_session(one.key).data == {"new": 1}


def test_deleting_without_a_key_does_nothing(open_session: OpenSession) -> None:
    open_session().call("delete")


def test_no_session_exists_without_a_key(open_session: OpenSession) -> None:
    assert open_session().call("exists", None) is False


def test_a_session_whose_cache_was_cleared_is_gone(
    engine: str, open_session: OpenSession, session_cache: NatsCache
) -> None:
    request = open_session().set(user=1).save()
    session_cache.clear()
    if engine == SESSIONS:
        with pytest.raises(UpdateError):
            request.set(cart=1).save()
    else:
        request.set(cart=1).save()
        assert open_session(request.key).data == {"user": 1, "cart": 1}
