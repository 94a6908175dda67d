"""Which announced changes are remembered, until the leader is known to have stored them."""

from __future__ import annotations

import pytest

from django_nats.client.kv.announced import Announced

pytestmark = pytest.mark.smoke


def changes(*revisions: int, most: int = 10) -> Announced:
    announced = Announced(most)
    for revision in revisions:
        announced.add(f"${revision % 10}", revision)
    return announced


def test_the_latest_change_of_each_subject_is_remembered() -> None:
    announced = changes(1, 2, 11)
    assert [announced.newest(each) for each in ("$1", "$2", "$3")] == [11, 2, 0]


def test_changes_that_the_leader_has_stored_are_forgotten() -> None:
    announced = changes(1, 2, 11, 14)
    announced.settle(11)
    assert [announced.newest(each) for each in ("$1", "$2", "$4")] == [0, 0, 14]


def test_any_subject_may_have_changed_before_the_feed_began() -> None:
    announced = changes(1)
    announced.begin(20)
    assert [announced.newest(each) for each in ("$1", "$2")] == [20, 20]
    announced.settle(19)
    assert announced.newest("$1") == 20
    announced.settle(20)
    assert announced.newest("$1") == 0


def test_any_subject_may_have_changed_if_too_many_have() -> None:
    announced = changes(1, 2, 3, 4, most=3)
    assert [announced.newest(each) for each in ("$1", "$9")] == [4, 4]
    announced.add("$5", 5)
    assert [announced.newest(each) for each in ("$1", "$5")] == [4, 5]
    announced.settle(4)
    assert [announced.newest(each) for each in ("$1", "$5")] == [0, 5]
