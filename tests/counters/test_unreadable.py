"""An unreadable counter among others: only it is left out, with one line in the log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from django_nats.counters import Counter, Counters, aprefetch_counters, prefetch_counters
from django_nats.exceptions import Unreadable
from tests.blog.models import Article
from tests.support.odd_counters import TOO_MANY_DIGITS, increment


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.name == "django_nats"]


@pytest.fixture
def others(counters: Counters) -> Counters:
    """Return counters of which two are readable and one is not."""
    counters.incr("page.a", 2)
    counters.incr("page.b", 3)
    increment(counters, b"page.broken", TOO_MANY_DIGITS)
    return counters


def test_lists_and_sums_leave_an_unreadable_counter_out(
    others: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "django_nats"):
        for _ in range(3):
            assert others.matching("page.*") == {"page.a": 2, "page.b": 3}
            assert others.total("page.>") == 5
            assert others.get_many(["page.a", "page.broken", "none"]) == {
                "page.a": 2,
                "page.broken": None,
                "none": 0,
            }
    (line,) = logged(caplog)
    assert line.startswith("A counter is left out of lists and sums: The counter page.broken of")


async def test_async_lists_and_sums_leave_an_unreadable_counter_out(others: Counters) -> None:
    assert await others.amatching("page.*") == {"page.a": 2, "page.b": 3}
    assert await others.atotal("page.>") == 5
    assert await others.aget_many(["page.a", "page.broken"]) == {"page.a": 2, "page.broken": None}


def test_reading_it_by_name_raises_unreadable(others: Counters) -> None:
    with pytest.raises(Unreadable, match=r"page\.broken of .* more digits than are read here"):
        Counter("page.broken").value()


def test_each_unreadable_counter_is_logged_once(
    others: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    increment(others, b"page.worse", TOO_MANY_DIGITS)
    others.total(">")
    others.total(">")
    assert len(logged(caplog)) == 2


def test_the_number_of_logged_counters_is_bounded(
    others: Counters, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.client.counters.totals._MAX_LOGGED", 2)
    increment(others, b"page.worse", TOO_MANY_DIGITS)
    increment(others, b"page.worst", TOO_MANY_DIGITS)
    assert others.total(">") == 5
    assert len(logged(caplog)) == 2


@pytest.mark.django_db
class TestModelInstances:
    @pytest.fixture
    def articles(self, counters: Counters) -> list[Article]:
        articles = [Article.objects.create() for _ in range(3)]
        for number, article in enumerate(articles, 1):
            article.views.incr(number)
        increment(counters, articles[1].views._subject.encode(), TOO_MANY_DIGITS)
        return articles

    def test_prefetching_leaves_an_unreadable_counter_empty(self, articles: list[Article]) -> None:
        prefetch_counters(articles, "views")
        assert [str(article.views) for article in articles] == ["1", "", "3"]

    async def test_async_prefetching_leaves_an_unreadable_counter_empty(
        self, articles: list[Article]
    ) -> None:
        await aprefetch_counters(articles, "views")
        assert [str(article.views) for article in articles] == ["1", "", "3"]

    def test_with_counters_leaves_an_unreadable_counter_empty(
        self, articles: list[Article]
    ) -> None:
        found = Article.objects.with_counters("views").order_by("pk")
        assert [str(article.views) for article in found] == ["1", "", "3"]


def test_a_subject_that_is_not_utf_8_is_summed_but_not_listed(
    counters: Counters, caplog: pytest.LogCaptureFixture
) -> None:
    """The counter has no name to be listed by, but it belongs to the sum."""
    counters.incr("page.a", 2)
    increment(counters, b"page.\xff\x1b", "40")
    for _ in range(3):
        assert counters.matching("page.*") == {"page.a": 2}
        assert counters.total("page.*") == 42
    (line,) = logged(caplog)
    assert r"not UTF-8 and cannot be read by name" in line
    assert line.endswith(r"page.\udcff\x1b")


def test_more_than_one_batch_with_a_subject_that_is_not_utf_8_is_summed(counters: Counters) -> None:
    from tests.management.conftest import count

    count(counters, {f"page.{number}": 1 for number in range(1500)})
    increment(counters, b"page.\xff", "40")
    assert counters.total("page.*") == 1540


def test_totals_beyond_pythons_digit_limit_are_read(counters: Counters) -> None:
    increment(counters, b"long", "7" * 5000)
    counters.incr("short", 3)
    counter = Counter("long")
    expected: Any = int("7" * 2500) * 10**2500 + int("7" * 2500)
    assert counter.value() == expected
    assert counter.incr() == expected + 1
    assert counters.get_many(["long", "short"]) == {"long": expected + 1, "short": 3}
    assert counters.total(">") == expected + 4
    assert str(counter) == "7" * 4999 + "8"
