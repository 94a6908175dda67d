"""``manage.py nats counters`` with an unreadable counter among others."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from django.db import models

from django_nats.counters import Counter, Counters
from tests.cinema.models import Film
from tests.management.conftest import Nats, count
from tests.support.odd_counters import TOO_MANY_DIGITS, increment

FailingNats = Callable[..., tuple[str, str]]

pytestmark = [
    pytest.mark.django_db(databases=["default", "other"]),
]


@pytest.fixture
def clicks(counters: Counters) -> Counters:
    count(counters, {"clicks.a": 1200, "clicks.b": 3})
    increment(counters, b"clicks.broken", TOO_MANY_DIGITS)
    increment(counters, b"clicks.\xff", "7")
    return counters


def test_top_names_an_unreadable_counter(clicks: Counters, nats: Nats) -> None:
    assert nats("counters", "top") == (
        "1,200  clicks.a\n    3  clicks.b\n1 left out, since they cannot be read: clicks.broken\n"
    )
    assert nats("counters", "top", "clicks.broken").startswith("1 left out")


def test_show_says_why_a_counter_is_unreadable(clicks: Counters, nats: Nats) -> None:
    first, second, third = nats("counters", "show", "clicks.a", "clicks.broken", "x").splitlines()
    assert (first, third) == ("clicks.a: 1,200", "x: never counted, or reset")
    assert second.startswith("clicks.broken: The counter clicks.broken of the stream")
    assert "more digits than are read here" in second


def test_totals_beyond_pythons_digit_limit_are_shown(counters: Counters, nats: Nats) -> None:
    increment(counters, b"long", "7" * 5001)
    number = ",".join(["777"] * 1667)
    assert nats("counters", "show", "long") == f"long: {number}\n"
    assert nats("counters", "top") == f"{number}  long\n"


@pytest.fixture
def films(counters: Counters) -> list[Film]:
    """Return films; the second has an unreadable total, the third a total of 5,000 digits."""
    films = [Film.objects.create(views_total=5) for _ in range(4)]
    for number, film in enumerate(films, 1):
        film.views.incr(number)
    increment(counters, films[1].views._subject.encode(), TOO_MANY_DIGITS)
    increment(counters, films[2].views._subject.encode(), "7" * 5000)
    increment(counters, b"default.cinema.film.\xff.views", "7")
    return films


def totals() -> list[int | None]:
    films: models.QuerySet[Film] = models.QuerySet(Film)
    return list(films.order_by("pk").values_list("views_total", flat=True))


@pytest.mark.parametrize("zero", [[], ["--zero"]], ids=["", "zero"])
def test_snapshot_does_not_write_the_column_of_an_unreadable_counter(
    films: list[Film], failing_nats: FailingNats, zero: list[str]
) -> None:
    output, error = failing_nats("counters", "snapshot", "cinema.Film.views", *zero)
    assert totals() == [1, 5, 5, 4]
    assert f"cinema.Film.views of {films[1].pk!r}: its counter cannot be read\n" in output
    assert f"cinema.Film.views of {films[2].pk!r} is 777" in output
    assert error == "2 totals could not be copied to a column."


def test_seed_does_not_change_an_unreadable_counter(
    clicks: Counters, nats: Nats, tmp_path: Path
) -> None:
    path = tmp_path / "totals.csv"
    path.write_text("clicks.broken,5\nclicks.new,6\nclicks.a,7\n")
    output = nats("counters", "seed", "--csv", str(path), "--overwrite")
    assert f"{path}: 1 seeded, 1 overwritten, 0 already correct\n" in output
    assert "1 left alone, since what is stored is not a total: clicks.broken\n" in output
    assert (Counter("clicks.new").value(), Counter("clicks.a").value()) == (6, 7)


def test_prune_removes_an_unreadable_counter_without_a_row(films: list[Film], nats: Nats) -> None:
    models.QuerySet(Film).filter(pk=films[1].pk)._raw_delete("default")
    output = nats("counters", "prune", "cinema.Film.views", "--idle", "0")
    assert "cinema.Film.views: 4 counters, 1 removed\n" in output
    assert films[1].views.value() == 0
    assert films[3].views.value() == 4
