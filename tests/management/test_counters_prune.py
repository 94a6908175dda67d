"""``manage.py nats counters prune``: no counters without rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from django_nats.client import bridge
from django_nats.counters import Counter, Counters
from tests.cinema.models import Film, Hall, Seat
from tests.counters.conftest import stream_info
from tests.management.conftest import Nats, count

FailingNats = Callable[..., tuple[str, str]]
DEAD = "nats://127.0.0.1:1"
NOW = ["--idle", "0"]

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def everything(model: type[models.Model]) -> models.QuerySet[Any]:
    return models.QuerySet(model)


def delete_raw(*rows: models.Model) -> None:
    """As the database does by itself: no signal is sent."""
    for row in rows:
        everything(type(row)).using(row._state.db).filter(pk=row.pk)._raw_delete(row._state.db)


@pytest.fixture
def films(counters: Counters) -> list[Film]:
    films = [Film.objects.create(), Film.objects.create(hidden=True), Film.objects.create()]
    for number, film in enumerate(films):
        film.views.incr(number + 1)
        film.likes.incr(10)
    return films


def test_what_has_no_row_goes_and_all_else_stays(
    counters: Counters, films: list[Film], nats: Nats
) -> None:
    gone = films[2]
    others = {"page.home": 7, "default.cinema.film": 8, "default.cinema.film.x.views": 9}
    others["default.cinema.film.0700.views"] = 10  # another's, for no row is written so
    others[f"default.cinema.film.{gone.pk}.stars"] = 11  # no field's
    count(counters, others)
    delete_raw(gone)

    output = nats("counters", "prune", "cinema.Film", *NOW)

    assert "cinema.Film.views: 3 counters, 1 removed\n" in output
    assert "cinema.Film.likes: 3 counters, 1 removed\n" in output
    key = "default.cinema.film.{}.{}".format
    assert counters.matching(">") == {
        key(films[0].pk, "views"): 1,
        key(films[0].pk, "likes"): 10,
        key(films[1].pk, "views"): 2,
        key(films[1].pk, "likes"): 10,
        **others,
    }
    assert "3 counters" not in nats("counters", "prune", "cinema.Film", *NOW)


def test_one_field_of_a_model(counters: Counters, films: list[Film], nats: Nats) -> None:
    delete_raw(films[2])

    nats("counters", "prune", "cinema.Film.likes", *NOW)

    assert Film.views.counter(films[2].pk) == 3
    assert Film.likes.counter(films[2].pk) == 0


def test_a_dry_run_removes_nothing(counters: Counters, films: list[Film], nats: Nats) -> None:
    delete_raw(films[2])
    before = counters.matching(">")

    output = nats("counters", "prune", "cinema.Film.views", "--dry-run", "-v", "2", *NOW)

    assert output == (
        f"  default.cinema.film.{films[2].pk}.views\n"
        "cinema.Film.views: 3 counters, 1 would be removed\n"
    )
    assert counters.matching(">") == before


def test_what_changed_a_moment_ago_may_belong_to_a_row_to_come(
    counters: Counters, films: list[Film], nats: Nats
) -> None:
    delete_raw(films[2])

    assert "3 counters, 0 removed" in nats("counters", "prune", "cinema.Film.views")
    assert Film.views.counter(films[2].pk) == 3


def test_what_is_counted_after_it_was_listed_stays_whole(counters: Counters) -> None:
    Counter("a").incr(5)
    Counter("b").incr(5)
    listed = stream_info(counters)["state"]["last_seq"]
    Counter("a").incr()

    purge = counters.stream.purge(["a", "b"], {"a": listed, "b": listed})
    bridge.run(counters.session, purge)

    assert counters.get_many(["a", "b"]) == {"a": 6, "b": 0}
    assert Counter("a").incr() == 7


def test_an_empty_table_is_taken_for_a_mistake(
    counters: Counters, films: list[Film], nats: Nats, failing_nats: FailingNats
) -> None:
    delete_raw(*films)

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]
    assert "the database 'default' has no cinema.Film at all" in error
    assert "--empty-tables" in error
    assert counters.total(">") == 36

    assert "3 removed" in nats("counters", "prune", "cinema.Film", "--empty-tables", *NOW)
    assert counters.matching(">") == {}


def test_keys_of_every_kind(counters: Counters, nats: Nats) -> None:
    seats = [Seat.objects.create(row=row, number=1) for row in ("a", "a.b", "é")]
    halls = [Hall.objects.create(name=name) for name in ("Odeon, No. 1", "a.b", "*")]
    for row in [*seats, *halls]:
        (row.sold if isinstance(row, Seat) else row.visits).incr()
    delete_raw(seats[1], halls[1])

    output = nats("counters", "prune", "cinema.Seat", "cinema.Hall", *NOW)

    assert "cinema.Seat.sold: 3 counters, 1 removed" in output
    assert "cinema.Hall.visits: 3 counters, 1 removed" in output
    assert [Seat.sold.counter(each.pk).value() for each in seats] == [1, 0, 1]
    assert [Hall.visits.counter(name).value() for name in ("Odeon, No. 1", "a.b", "*")] == [1, 0, 1]


def test_another_database_is_another_matter(counters: Counters, nats: Nats) -> None:
    Film.objects.create(pk=1).views.incr()
    there = [Film.objects.using("other").create(pk=pk) for pk in (1, 2, 3)]
    for film in there:
        film.views.incr()
    delete_raw(there[0], there[1])

    assert "1 counters, 0 removed" in nats("counters", "prune", "cinema.Film.views", *NOW)
    output = nats("counters", "prune", "cinema.Film.views", "--database", "other", *NOW)

    assert "3 counters, 2 removed" in output
    assert Film.views.counter(1) == 1
    assert Film.views.counter(3, using="other") == 1


def test_thousands(counters: Counters, nats: Nats, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(connection.features), "max_query_params", 999)
    everything(Film).bulk_create(Film() for _ in range(3000))
    keys = list(everything(Film).values_list("pk", flat=True))
    count(counters, {Film.views.counter_subject(pk): 1 for pk in keys})
    everything(Film).filter(pk__in=keys[::3])._raw_delete("default")

    with CaptureQueriesContext(connection) as queries:
        output = nats("counters", "prune", "cinema.Film.views", *NOW)

    assert "3,000 counters, 1,000 removed" in output
    assert max(each["sql"].count(",") for each in queries) < 999
    left = counters.matching("default.cinema.film.*.views")
    expected = {Film.views.counter_subject(pk) for pk in keys} - {
        Film.views.counter_subject(pk) for pk in keys[::3]
    }
    assert left.keys() == expected


def test_models_that_never_counted(configure: Any, nats: Nats, counters: Counters) -> None:
    """No stream is made for the looking."""
    output = nats("counters", "prune", "cinema.Film", *NOW)

    assert "cinema.Film.views: no counters yet" in output
    assert "no counters yet" in nats("counters", "prune", "cinema.Film", *NOW)


def test_a_missing_table_stops_it_before_it_begins(
    counters: Counters, films: list[Film], failing_nats: FailingNats
) -> None:
    delete_raw(films[2])
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cinema_seat RENAME TO seats")

    error = failing_nats("counters", "prune", "cinema.Film", "cinema.Seat", *NOW)[1]

    assert "cinema.Seat: its rows cannot be read from the database 'default'" in error
    assert Film.views.counter(films[2].pk) == 3


def test_a_sum_has_nothing_to_remove(configure: Any, failing_nats: FailingNats) -> None:
    region = configure("eu").settings.stream.stream
    configure("default", SOURCES=[region])

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]

    assert 'NATS_COUNTERS["default"] is the sum of its SOURCES' in error


def test_a_server_that_is_away(configure: Any, failing_nats: FailingNats) -> None:
    configure(LOCATION=DEAD, FAIL_OPEN=True)

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]

    assert f"No connection to NATS at {DEAD}" in error


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("cinema.Flm", "there is no such model"),
        ("auth.User", "has no CounterField"),
        ("cinema.Film.stars", "counts views, likes, not stars"),
    ],
)
def test_mistakes_are_named(
    counters: Counters, failing_nats: FailingNats, label: str, words: str
) -> None:
    assert words in failing_nats("counters", "prune", label)[1]
