"""Two requests that change one session at the same time."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MakeCache
from tests.support.sessions import (
    DJANGO_CACHE,
    DJANGO_CACHED_DB,
    ENGINES,
    OpenSession,
    Request,
)


def opened_twice(open_session: OpenSession, **stored: Any) -> tuple[Request, Request]:
    """Store a session. Return two requests that have loaded it."""
    key = open_session().set(**stored).save().key
    return open_session(key).load(), open_session(key).load()


def test_changes_of_different_keys_both_stay(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, old=1)
    one.set(cart=["book"]).save()
    another.set(language="en").save()
    assert open_session(one.key).data == {"old": 1, "cart": ["book"], "language": "en"}


@pytest.mark.parametrize("engine", [DJANGO_CACHE, DJANGO_CACHED_DB, *ENGINES])
@pytest.mark.django_db(transaction=True)
def test_only_the_engines_of_django_lose_an_update(
    engine: str, session_cache: Any, settings: Any
) -> None:
    settings.SESSION_ENGINE = engine
    one, another = opened_twice(Request)
    one.set(cart=["book"]).save()
    another.set(language="en").save()
    is_lost = "cart" not in Request(one.key).data
    assert is_lost == (engine not in ENGINES)


def test_deletions_stay_on_both_sides(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, a=1, b=2, c=3)
    one.drop("a").save()
    another.drop("b").save()
    assert open_session(one.key).data == {"c": 3}


def test_the_later_writer_wins_on_the_same_key(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, cart=["book"], gone=1, kept=1)
    one.set(cart=["book", "pen"], gone=2).drop("kept").save()
    another.set(cart=["book", "ink"], kept=2).drop("gone").save()
    assert open_session(one.key).data == {"cart": ["book", "ink"], "kept": 2}


def test_a_value_changed_within_counts_as_changed(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, cart={"items": ["book"]}, flag=1)
    another.store["cart"]["items"].append("pen")
    another.store["flag"] = True
    one.set(cart="emptied", flag=2, new=3).save()
    another.save()
    found = open_session(one.key).data
    assert found == {"cart": {"items": ["book", "pen"]}, "flag": True, "new": 3}
    assert found["flag"] is True


def test_many_requests_may_overlap(open_session: OpenSession) -> None:
    key = open_session().set(old=1).save().key
    requests = [open_session(key).load() for _ in range(10)]
    for number, each in enumerate(requests):
        each.set(**{f"key{number}": number}).save()
    assert open_session(key).data == {"old": 1, **{f"key{n}": n for n in range(10)}}


def test_a_saved_session_has_what_the_other_request_stored(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, kept=["object"], gone=1)
    kept = another.store["kept"]
    one.set(theirs=1).drop("gone").save()
    another.set(ours=2).save()
    assert another.data == {"kept": ["object"], "theirs": 1, "ours": 2}
    assert another.store["kept"] is kept


def test_a_session_may_be_saved_twice_by_one_request(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, kept=["a"])
    kept = one.store["kept"]
    another.set(first=1).save()
    one.set(mine=1).save()
    another.set(second=2).save()
    kept.append("b")
    one.save()
    expected = {"kept": ["a", "b"], "mine": 1, "first": 1, "second": 2}
    assert one.data == open_session(one.key).data == expected


def test_a_second_save_does_not_repeat_the_changes_of_the_first(open_session: OpenSession) -> None:
    one = open_session().set(cart=1).save()
    one.set(cart=2).save()
    open_session(one.key).set(cart=3).save()
    one.set(other=1).save()
    assert one.data == open_session(one.key).data == {"cart": 3, "other": 1}


def test_a_created_session_may_be_saved_again(open_session: OpenSession) -> None:
    one = open_session()
    one.call("create")
    another = open_session(one.key).set(theirs=1).save()
    one.set(ours=2).save()
    assert open_session(another.key).data == {"theirs": 1, "ours": 2}


def test_clearing_a_loaded_session_keeps_what_was_added_since(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, old=1)
    another.store.clear()
    one.set(added=2).save()
    another.save()
    assert open_session(one.key).data == {"added": 2}


def test_clearing_a_session_that_was_not_loaded_replaces_all(open_session: OpenSession) -> None:
    key = open_session().set(old=1).save().key
    cleared = open_session(key)
    cleared.store.clear()
    cleared.set(new=2).save()
    assert open_session(key).data == {"new": 2}


def test_saving_without_a_change_undoes_nothing(open_session: OpenSession) -> None:
    """What SESSION_SAVE_EVERY_REQUEST does in a request that only reads."""
    one, another = opened_twice(open_session, cart=1, old=1)
    one.set(cart=2).drop("old").save()
    another.save()
    assert open_session(one.key).data == {"cart": 2}


def test_values_of_any_type_are_merged(open_session: OpenSession) -> None:
    one, another = opened_twice(open_session, text="ä", number=1.5, nothing=None)
    one.set(nothing=[None]).save()
    another.set(number=2.5).save()
    assert open_session(one.key).data == {"text": "ä", "number": 2.5, "nothing": [None]}


def test_a_value_that_is_restored_as_another_is_not_a_change(
    open_session: OpenSession, use_cache: MakeCache
) -> None:
    """JSON restores a tuple as a list, and one string that is in a list twice as two strings."""
    use_cache(OPTIONS={"SERIALIZER": "django_nats.serializers.JSONSerializer"})
    one = open_session().set(pair=(1, 2), words=["book"] * 2, cart={17: 1}).save()
    open_session(one.key).set(pair=[3], words=[], cart={}).save()
    one.set(other=1).save()
    assert open_session(one.key).data == {"pair": [3], "words": [], "cart": {}, "other": 1}


def test_a_new_key_keeps_changes_of_a_value_that_is_restored_as_another(
    open_session: OpenSession, use_cache: MakeCache
) -> None:
    use_cache(OPTIONS={"SERIALIZER": "django_nats.serializers.JSONSerializer"})
    one = open_session().set(pair=(1, 2)).save()
    open_session(one.key).set(pair=[3]).save()
    one.call("cycle_key")
    one.save()
    assert open_session(one.key).data == {"pair": [3]}


def test_load_leaves_the_data_of_the_session_and_what_it_has_changed(
    open_session: OpenSession,
) -> None:
    one, another = opened_twice(open_session, old=1)
    another.set(theirs=1).save()
    assert one.call("load") == {"old": 1, "theirs": 1}
    one.set(ours=2).save()
    assert open_session(one.key).data == {"old": 1, "theirs": 1, "ours": 2}
