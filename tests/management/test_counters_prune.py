"""``manage.py nats counters prune``: delete counters whose rows no longer exist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from django_nats.client import drivers
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
    """Delete rows without sending signals, as the database does by cascading."""
    for row in rows:
        everything(type(row)).using(row._state.db).filter(pk=row.pk)._raw_delete(row._state.db)


@pytest.fixture
def films(counters: Counters) -> list[Film]:
    films = [Film.objects.create(), Film.objects.create(hidden=True), Film.objects.create()]
    for number, film in enumerate(films):
        film.views.incr(number + 1)
        film.likes.incr(10)
    return films


@pytest.mark.parametrize("key", [10**30, -(10**30)])
def test_a_counter_of_a_number_that_no_column_can_hold_is_removed(
    films: list[Film], nats: Nats, key: int
) -> None:
    """A view may count for the number in a URL, without loading a row."""
    Film.views.counter(key).incr()

    output = nats("counters", "prune", "cinema.Film", *NOW)

    assert "cinema.Film.views: 4 counters, 1 removed\n" in output
    assert films[0].views.value() == 1


def test_counters_without_a_row_are_removed_and_others_stay(
    counters: Counters, films: list[Film], nats: Nats
) -> None:
    deleted = films[2]
    others = {"page.home": 7, "default.cinema.film": 8, "default.cinema.film.x.views": 9}
    others["default.cinema.film.0700.views"] = 10  # not a key as the field writes it
    others[f"default.cinema.film.{deleted.pk}.stars"] = 11  # not a counter field
    count(counters, others)
    delete_raw(deleted)

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


def test_a_field_label_prunes_only_that_field(
    counters: Counters, films: list[Film], nats: Nats
) -> None:
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


def test_a_recently_changed_counter_is_kept_for_a_row_not_yet_committed(
    counters: Counters, films: list[Film], nats: Nats
) -> None:
    delete_raw(films[2])

    output = nats("counters", "prune", "cinema.Film.views")

    assert output == (
        "cinema.Film.views: 3 counters, 0 removed\n"
        "  3 counters not looked at, changed in the last 10 min: --idle SECONDS chooses this time\n"
    )
    assert Film.views.counter(films[2].pk) == 3


def test_an_increment_after_the_listing_keeps_the_whole_total(counters: Counters) -> None:
    Counter("a").incr(5)
    Counter("b").incr(5)
    listed = stream_info(counters)["state"]["last_seq"]
    Counter("a").incr()

    purge = counters.stream.purge(["a", "b"], {"a": listed, "b": listed})
    drivers.run(counters.session, purge)

    assert counters.get_many(["a", "b"]) == {"a": 6, "b": 0}
    assert Counter("a").incr() == 7


def test_an_empty_table_is_an_error_without_its_option(
    counters: Counters, films: list[Film], nats: Nats, failing_nats: FailingNats
) -> None:
    delete_raw(*films)

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]
    assert "the database 'default' has no rows of cinema.Film" in error
    assert "--empty-tables" in error
    assert counters.total(">") == 36

    assert "3 removed" in nats("counters", "prune", "cinema.Film", "--empty-tables", *NOW)
    assert counters.matching(">") == {}


def test_composite_and_text_keys_are_matched_with_their_rows(
    counters: Counters, nats: Nats
) -> None:
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


def test_only_the_chosen_databases_counters_are_pruned(counters: Counters, nats: Nats) -> None:
    Film.objects.create(pk=1).views.incr()
    there = [Film.objects.using("other").create(pk=pk) for pk in (1, 2, 3)]
    for film in there:
        film.views.incr()
    delete_raw(there[0], there[1])

    assert "1 counter, 0 removed" in nats("counters", "prune", "cinema.Film.views", *NOW)
    output = nats("counters", "prune", "cinema.Film.views", "--database", "other", *NOW)

    assert "3 counters, 2 removed" in output
    assert Film.views.counter(1) == 1
    assert Film.views.counter(3, using="other") == 1


def test_thousands_of_rows_are_queried_in_batches(
    counters: Counters, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_a_model_that_never_counted_is_reported(
    configure: Any, nats: Nats, counters: Counters
) -> None:
    """The command does not create the stream."""
    output = nats("counters", "prune", "cinema.Film", *NOW)

    assert "cinema.Film.views: no counters yet" in output
    assert "no counters yet" in nats("counters", "prune", "cinema.Film", *NOW)


def test_a_missing_table_is_an_error_before_anything_is_removed(
    counters: Counters, films: list[Film], failing_nats: FailingNats
) -> None:
    delete_raw(films[2])
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cinema_seat RENAME TO seats")

    error = failing_nats("counters", "prune", "cinema.Film", "cinema.Seat", *NOW)[1]

    assert "cinema.Seat: its rows cannot be read from the database 'default'" in error
    assert Film.views.counter(films[2].pk) == 3


@pytest.mark.django_db(databases=["default", "other"], transaction=True)
def test_counters_of_flushed_tables_are_removed_before_new_rows_take_them_over(
    counters: Counters, nats: Nats
) -> None:
    film = Film.objects.create()
    film.views.incr(5)

    call_command("flush", interactive=False, verbosity=0)
    nats("counters", "prune", "--empty-tables", *NOW)

    again = Film.objects.create()
    assert (again.pk, again.views.value()) == (film.pk, 0)


def test_a_sum_cannot_be_pruned(configure: Any, failing_nats: FailingNats) -> None:
    region = configure("eu").settings.stream.stream
    configure("default", SOURCES=[region])

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]

    assert 'NATS_COUNTERS["default"] is the sum of its SOURCES' in error


def test_an_unreachable_server_is_an_error_even_with_fail_open(
    configure: Any, failing_nats: FailingNats
) -> None:
    configure(LOCATION=DEAD, FAIL_OPEN=True)

    error = failing_nats("counters", "prune", "cinema.Film", *NOW)[1]

    assert f"No connection to NATS at {DEAD}" in error


@pytest.mark.parametrize(
    ("label", "words"),
    [
        ("cinema.Flm", "there is no such model"),
        ("auth.User", "has no CounterField"),
        ("cinema.Film.stars", "stars is not a counter of cinema.Film"),
    ],
)
def test_a_mistake_in_the_label_is_named(
    counters: Counters, failing_nats: FailingNats, label: str, words: str
) -> None:
    assert words in failing_nats("counters", "prune", label)[1]
