"""``manage.py nats counters snapshot``: copy totals into columns."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection, models
from django.test.utils import CaptureQueriesContext

from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from tests.cinema.models import Film, Seat
from tests.management.conftest import Nats, count
from tests.support.proxy import Proxy

pytestmark = pytest.mark.django_db(databases=["default", "other"])

ROWS = 3000


def everything(model: type[models.Model]) -> models.QuerySet[Any]:
    return models.QuerySet(model)


def columns() -> list[tuple[int | None, int]]:
    """Return the totals in the columns of all films, including hidden ones."""
    films = everything(Film).order_by("pk")
    return [(film.views_total, film.likes_total) for film in films]


def test_totals_are_copied_into_the_columns(counters: Counters, nats: Nats) -> None:
    first, second = Film.objects.create(), Film.objects.create()
    first.views.incr(5)
    first.likes.incr(2)
    second.views.incr(7)

    output = nats("counters", "snapshot")

    assert columns() == [(5, 2), (7, 0)]
    assert "cinema.Film: views_total, likes_total: 2 rows, 2 written\n" in output
    assert "cinema.Seat: sold_total: 0 rows, 0 written\n" in output


def test_other_columns_are_not_touched(counters: Counters, nats: Nats) -> None:
    film = Film.objects.create(title="M")
    film.views.incr()

    with CaptureQueriesContext(connection) as queries:
        nats("counters", "snapshot", "cinema.Film.views")

    (update,) = updates(queries)
    assert "views_total" in update
    assert "title" not in update
    assert "likes_total" not in update


def test_columns_that_are_up_to_date_are_not_written(counters: Counters, nats: Nats) -> None:
    films = [Film.objects.create() for _ in range(3)]
    for film in films:
        film.views.incr(4)
    nats("counters", "snapshot", "cinema.Film")
    films[1].views.incr()

    with CaptureQueriesContext(connection) as queries:
        output = nats("counters", "snapshot", "cinema.Film")
    assert "3 rows, 1 written" in output
    assert len(updates(queries)) == 1

    with CaptureQueriesContext(connection) as queries:
        assert "3 rows, 0 written" in nats("counters", "snapshot", "cinema.Film")
    assert updates(queries) == []
    assert columns() == [(4, 0), (5, 0), (4, 0)]


def updates(queries: CaptureQueriesContext) -> list[str]:
    return [each["sql"] for each in queries if each["sql"].startswith("UPDATE")]


@pytest.fixture
def proxied(configure: Any, server: NatsServer) -> Iterator[tuple[Counters, Proxy]]:
    with Proxy(server.port, delay=0.05) as proxy:
        yield configure(LOCATION=proxy.url), proxy


def many_films() -> dict[str, int]:
    """Create ROWS films, and return a total for the subject of each."""
    everything(Film).bulk_create(Film() for _ in range(ROWS))
    keys = everything(Film).values_list("pk", flat=True)
    return {Film.views.counter_subject(pk): pk for pk in keys}


def test_a_thousand_rows_take_one_round_trip_and_one_update(
    proxied: tuple[Counters, Proxy], nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters, proxy = proxied
    # As on PostgreSQL. This SQLite takes as many too, although Django 5.2 assumes fewer.
    monkeypatch.setattr(type(connection.features), "max_query_params", 30_000)
    count(counters, many_films())
    before = proxy.round_trips

    with CaptureQueriesContext(connection) as queries:
        nats("counters", "snapshot", "cinema.Film.views")

    assert proxy.round_trips - before == 3
    assert len(updates(queries)) == 3
    assert all(total == pk for pk, total in everything(Film).values_list("pk", "views_total"))


def test_a_batch_fits_into_one_update(
    proxied: tuple[Counters, Proxy], nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters, proxy = proxied
    monkeypatch.setattr(type(connection.features), "max_query_params", 999)
    count(counters, many_films())
    before = proxy.round_trips

    with CaptureQueriesContext(connection) as queries:
        nats("counters", "snapshot", "cinema.Film.views")

    assert proxy.round_trips - before == len(updates(queries)) == 10
    assert all(total == pk for pk, total in everything(Film).values_list("pk", "views_total"))


def test_a_row_without_a_counter_keeps_its_column(counters: Counters, nats: Nats) -> None:
    Film.objects.create(views_total=12_345, likes_total=0)
    Film.objects.create(views_total=None)

    output = nats("counters", "snapshot", "cinema.Film")

    assert columns() == [(12_345, 0), (None, 0)]
    assert "1 column left unchanged" in output
    assert "nats counters seed" in output


def test_zero_writes_0_for_rows_without_a_counter(counters: Counters, nats: Nats) -> None:
    film = Film.objects.create()
    film.views.incr(9)
    nats("counters", "snapshot", "cinema.Film")
    film.views.reset()

    assert "left as they are" not in nats("counters", "snapshot", "cinema.Film", "--zero")
    assert columns() == [(0, 0)]


def test_a_counter_that_is_back_at_0_is_written(counters: Counters, nats: Nats) -> None:
    for before in (9, None):
        film = Film.objects.create(views_total=before)
        film.views.incr()
        film.views.decr()

    nats("counters", "snapshot", "cinema.Film")

    assert columns() == [(0, 0), (0, 0)]


def test_a_total_too_large_for_its_column_is_named_and_others_written(
    counters: Counters, failing_nats: Callable[..., tuple[str, str]]
) -> None:
    films = [Film.objects.create() for _ in range(3)]
    films[0].likes.incr(2**63)
    films[1].likes.decr()
    films[2].likes.incr(3)

    output, error = failing_nats("counters", "snapshot", "cinema.Film")

    assert columns() == [(0, 0), (0, 0), (0, 3)]
    assert f"cinema.Film.likes of {films[0].pk} is {2**63}" in output
    assert error == "2 totals could not be copied to a column."


def test_rows_hidden_by_a_manager_are_written(counters: Counters, nats: Nats) -> None:
    film = Film.objects.create(hidden=True)
    film.views.incr(3)

    nats("counters", "snapshot", "cinema.Film")

    assert columns() == [(3, 0)]


def test_rows_with_composite_keys_are_written(
    counters: Counters, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.management.counters.snapshot.BATCH", 2)
    for row, number in [("a", 1), ("a.b", 1), ("a.b", 2), ("c", 1), ("c", 2)]:
        Seat.objects.create(row=row, number=number).sold.incr(number)

    assert "5 rows, 5 written" in nats("counters", "snapshot", "cinema.Seat")

    assert all(
        total == number for number, total in Seat.objects.values_list("number", "sold_total")
    )


def test_another_database_has_its_own_counters(counters: Counters, nats: Nats) -> None:
    Film.objects.create(pk=1).views.incr(1)
    Film.objects.using("other").create(pk=1).views.incr(2)

    nats("counters", "snapshot", "cinema.Film", "--database", "other")

    assert columns() == [(0, 0)]
    assert Film.objects.using("other").get().views_total == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cinema.Flm"], "cinema.Flm: there is no such model"),
        (["Film"], "Film: there is no such model"),
        (["cinema.Film.stars"], "stars is not a counter of cinema.Film"),
        (["auth.User"], "auth.User has no CounterField"),
        (["cinema.Hall"], "cinema.Hall: no counter has a column"),
        (["cinema.Hall.visits"], "cinema.Hall.visits has no column"),
        (["cinema.Film", "--database", "replica"], "no alias 'replica', only default, other"),
    ],
    ids=str,
)
def test_a_mistake_in_the_arguments_is_named(
    counters: Counters,
    failing_nats: Callable[..., tuple[str, str]],
    arguments: list[str],
    words: str,
) -> None:
    assert words in failing_nats("counters", "snapshot", *arguments)[1]


@pytest.mark.parametrize("name", ["gone", "title"])
def test_a_snapshot_that_is_not_an_integer_column_is_named(
    counters: Counters,
    failing_nats: Callable[..., tuple[str, str]],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    monkeypatch.setattr(Film.views, "snapshot", name)

    error = failing_nats("counters", "snapshot", "cinema.Film")[1]

    assert f"cinema.Film has no integer column {name!r}" in error


def test_a_missing_table_is_named(
    counters: Counters, failing_nats: Callable[..., tuple[str, str]]
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cinema_seat RENAME TO seats")

    error = failing_nats("counters", "snapshot", "cinema.Seat")[1]

    assert "cinema.Seat: its rows cannot be read from the database 'default'" in error
    assert "no such table: cinema_seat" in error


@pytest.mark.parametrize("subcommand", ["snapshot", "seed"])
def test_a_column_without_a_migration_is_named(
    counters: Counters, failing_nats: Callable[..., tuple[str, str]], subcommand: str
) -> None:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE cinema_seat RENAME COLUMN sold_total TO sold_before")

    error = failing_nats("counters", subcommand, "cinema.Seat")[1]

    assert "cinema.Seat: its rows cannot be read from the database 'default'" in error
    assert "no such column: cinema_seat.sold_total" in error
    assert "Run migrations" in error


def test_an_unreachable_server_is_an_error_even_with_fail_open(
    configure: Any, failing_nats: Callable[..., tuple[str, str]]
) -> None:
    dead = "nats://127.0.0.1:1"
    configure(LOCATION=dead, FAIL_OPEN=True)
    Film.objects.create(views_total=7)

    assert f"No connection to NATS at {dead}" in failing_nats("counters", "snapshot", "--zero")[1]
    assert columns() == [(7, 0)]


# The progress bar ----------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("kind", "options", "shown"),
    [(Terminal, {}, True), (Terminal, {"verbosity": 0}, False), (io.StringIO, {}, False)],
)
def test_a_progress_bar_is_shown_only_on_a_terminal(
    counters: Counters, kind: type[io.StringIO], options: dict[str, int], shown: bool
) -> None:
    out = kind()
    Film.objects.create()

    call_command(
        "nats", "counters", "snapshot", "cinema.Film", stdout=io.StringIO(), stderr=out, **options
    )

    steps = out.getvalue().split("\r")[1:]
    if shown:
        assert steps[0] == f"cinema.Film [{'.' * 30}] 0/1"
        assert steps[-1] == f"cinema.Film [{'#' * 30}] 1/1\n"
    else:
        assert out.getvalue() == ""
