"""Requests in any order, compared with a model: changes are made in the order of the saves."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.sessions.backends.base import UpdateError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from django_nats.cache import NatsCache
from tests.support.sessions import OpenSession, Request

REQUESTS = st.integers(0, 1)
CHANGES = st.tuples(st.sampled_from("ab"), st.sampled_from([0, 1, None]))
"""A key and its new value, or None to delete it."""
RARE = st.sampled_from(["save"] * 5 + ["new request", "cycle_key", "delete"])
STEPS = st.one_of(
    st.tuples(st.just("change and save"), REQUESTS, CHANGES),
    st.tuples(st.just("change"), REQUESTS, CHANGES),
    st.tuples(RARE, REQUESTS, st.none()),
)


class World:
    """Sessions as they should be, and requests that use them."""

    def __init__(self, open_session: OpenSession) -> None:
        self._open_session = open_session
        self.stored: dict[str, dict[str, int]] = {}
        first = open_session().set(a=0).save()
        self.stored[first.key] = {"a": 0}
        self._first = first.key
        self.requests = [Visit(open_session(first.key)) for _ in range(2)]

    def do(self, name: str, number: int, change: Any) -> None:
        visit = self.requests[number]
        if change is not None:
            visit.change(*change)
        if name == "new request":
            self.requests[number] = Visit(self._open_session(self._current()))
        elif name != "change" and visit.request.key is not None:  # it was found at the beginning
            {
                "change and save": self.save,
                "save": self.save,
                "cycle_key": self.cycle_key,
                "delete": self.delete,
            }[name](visit)

    def _current(self) -> str:
        """Return the key that the browser has: that of the last login."""
        return next(reversed(self.stored), self._first)

    def save(self, visit: Visit) -> None:
        expected = self.stored.get(visit.request.key)
        if expected is None:
            with pytest.raises(UpdateError):
                visit.request.save()
            return
        visit.request.save()
        visit.apply_to(expected)
        assert visit.request.data == expected

    def cycle_key(self, visit: Visit) -> None:
        old_key, seen = visit.request.key, visit.seen
        visit.request.call("cycle_key")
        new = dict(self.stored.pop(old_key, seen))
        visit.apply_to(new)
        self.stored[visit.request.key] = new
        assert visit.request.data == new
        visit.request.save()  # as the middleware does

    def delete(self, visit: Visit) -> None:
        visit.request.call("delete")
        self.stored.pop(visit.request.key, None)


class Visit:
    """A request, and what it has changed since it last knew what was stored."""

    def __init__(self, request: Request) -> None:
        self.request = request.load()
        self.seen: dict[str, int] = self.request.data
        self._changed: dict[str, int | None] = {}

    def change(self, key: str, value: int | None) -> None:
        if value is None:
            self.request.store.pop(key, None)
        else:
            self.request.set(**{key: value})
        if self.seen.get(key) == value:
            self._changed.pop(key, None)  # it is again what it was
        else:
            self._changed[key] = value

    def apply_to(self, state: dict[str, int]) -> None:
        for key, value in self._changed.items():
            if value is None:
                state.pop(key, None)
            else:
                state[key] = value
        self._changed.clear()
        self.seen = dict(state)


@pytest.mark.once
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(STEPS, min_size=5, max_size=20))
def test_requests_in_any_order_do_what_the_model_says(
    open_session: OpenSession, session_cache: NatsCache, steps: list[Any]
) -> None:
    world = World(open_session)
    for step in steps:
        world.do(*step)
    for key, expected in world.stored.items():
        assert open_session(key).data == expected
