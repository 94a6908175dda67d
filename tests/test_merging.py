"""The laws of merging, and examples of what counts as a change."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.merging import GONE, apply, changes, merge

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.floats() | st.sampled_from(["", "a", "bc"]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.just("k"), inner),
    max_leaves=4,
)
STATES = st.dictionaries(st.sampled_from("abcdef"), VALUES)


def same(one: Any, another: Any) -> bool:
    """Return True if two states are equal, in types and in NaN as well; order does not count."""
    return one.keys() == another.keys() and not changes(one, another)


def applied(changed: dict[Any, Any], state: dict[Any, Any]) -> dict[Any, Any]:
    result = dict(state)
    apply(changed, to=result)
    return result


def merged(ours: dict[Any, Any], theirs: dict[Any, Any], base: dict[Any, Any]) -> dict[Any, Any]:
    result = dict(ours)
    merge(result, theirs, base=base)
    return result


@given(STATES, STATES)
def test_changes_lead_from_one_state_to_the_other(
    before: dict[Any, Any], after: dict[Any, Any]
) -> None:
    assert same(applied(changes(before, after), before), after)


@given(STATES)
def test_a_state_read_again_has_not_changed(state: dict[Any, Any]) -> None:
    assert changes(state, pickle.loads(pickle.dumps(state))) == {}


@given(STATES, STATES)
def test_changes_made_twice_have_the_same_result(
    before: dict[Any, Any], after: dict[Any, Any]
) -> None:
    changed = changes(before, after)
    once = applied(changed, before)
    assert same(applied(changed, once), once)


@given(STATES, STATES, STATES)
def test_a_merge_is_our_changes_made_in_their_state(
    ours: dict[Any, Any], theirs: dict[Any, Any], base: dict[Any, Any]
) -> None:
    assert same(merged(ours, theirs, base), applied(changes(base, ours), theirs))


@given(STATES, STATES)
def test_a_merge_with_an_unchanged_side_is_the_other_side(
    changed: dict[Any, Any], base: dict[Any, Any]
) -> None:
    assert same(merged(changed, base, base), changed)
    assert same(merged(base, changed, base), changed)


@given(STATES, STATES, STATES)
def test_the_order_of_requests_matters_only_for_keys_that_both_have_changed(
    one: dict[Any, Any], another: dict[Any, Any], base: dict[Any, Any]
) -> None:
    ab, ba = merged(one, another, base), merged(another, one, base)
    both = changes(base, one).keys() & changes(base, another).keys()
    assert changes(ab, ba).keys() <= both
    for key in both:
        assert same(
            {k: v for k, v in ab.items() if k == key}, {k: v for k, v in one.items() if k == key}
        )


@given(STATES, STATES, STATES)
def test_a_merge_changes_neither_their_state_nor_the_base(
    ours: dict[Any, Any], theirs: dict[Any, Any], base: dict[Any, Any]
) -> None:
    kept = copy.deepcopy((theirs, base))
    merged(ours, theirs, base)
    assert same(theirs, kept[0])
    assert same(base, kept[1])


class Unequal:
    """Not equal to anything, as objects without ``__eq__`` are not to their copies."""

    def __init__(self, value: int) -> None:
        self.value = value


class Unpicklable:
    def __reduce__(self) -> Any:
        raise TypeError


def in_session(value: object) -> dict[str, object]:
    return {"key": value}


@pytest.mark.parametrize("value", [Unequal(1), float("nan"), {1, 2}, [Unequal(1)]])
def test_a_value_that_was_only_read_has_not_changed(value: object) -> None:
    assert changes(in_session(value), in_session(pickle.loads(pickle.dumps(value)))) == {}


@pytest.mark.parametrize(
    ("before", "after"),
    [(1, True), (0, False), (1, 1.0), ((1,), [1]), (Unequal(1), Unequal(2)), ([[1]], [[2]])],
)
def test_a_change_that_looks_equal_is_one(before: object, after: object) -> None:
    assert changes(in_session(before), in_session(after)) == in_session(after)


def test_a_value_that_cannot_be_compared_counts_as_changed() -> None:
    value = Unpicklable()
    assert changes(in_session(value), in_session(value)) == in_session(value)


def test_a_deleted_key_is_gone() -> None:
    assert changes({"a": 1, "b": 2}, {"b": 2}) == {"a": GONE}


def test_what_the_other_has_not_changed_stays_the_same_object() -> None:
    cart = ["book"]
    ours = {"cart": cart, "old": 1}
    merge(ours, {"cart": ["book"], "new": 2}, base={"cart": ["book"], "old": 1})
    assert ours == {"cart": ["book"], "new": 2}
    assert ours["cart"] is cart


@given(STATES, STATES)
def test_values_that_the_store_restores_as_others_are_no_changes(
    base: dict[Any, Any], theirs: dict[Any, Any]
) -> None:
    def as_read(state: Any) -> dict[Any, Any]:
        return {key: value["written"] for key, value in state.items()}

    ours = {key: {"written": value} for key, value in base.items()}
    merge(ours, theirs, base=base, as_read=as_read)
    changed = changes(base, theirs).keys()
    assert ours.keys() == theirs.keys()
    assert all(same({key: ours[key]}, {key: theirs[key]}) for key in changed & theirs.keys())
