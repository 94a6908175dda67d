"""``manage.py nats counters seed``: totals from columns, CSV files and standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import models

from django_nats.client import process
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.management.counters.asking import ask
from django_nats.management.counters.seeding import _publish
from tests.cinema.models import Film, Hall, Seat
from tests.counters.conftest import PATIENT
from tests.management.conftest import Nats
from tests.support.logins import authorization
from tests.support.proxy import Proxy

FailingNats = Callable[..., tuple[str, str]]
DEAD = "nats://127.0.0.1:1"

pytestmark = pytest.mark.django_db(databases=["default", "other"])


def everything(model: type[models.Model]) -> models.QuerySet[Any]:
    return models.QuerySet(model)


# From a column -------------------------------------------------------------------------------


def test_columns_are_seeded_once(counters: Counters, nats: Nats) -> None:
    first = Film.objects.create(views_total=12_345, likes_total=3)
    second = Film.objects.create(views_total=None)

    output = nats("counters", "seed", "cinema.Film")

    assert (first.views, first.likes, second.views) == (12_345, 3, 0)
    assert (
        "cinema.Film.views from views_total: 1 seeded, 0 overwritten, 0 already correct" in output
    )
    assert "cinema.Film.likes from likes_total: 1 seeded" in output
    assert "1 already correct" in nats("counters", "seed", "cinema.Film.views")
    assert first.views == 12_345


def test_a_counter_with_a_value_is_left_alone(counters: Counters, nats: Nats) -> None:
    film = Film.objects.create(views_total=100)
    film.views.incr(5)

    output = nats("counters", "seed", "cinema.Film.views")

    assert film.views == 5
    assert "0 seeded" in output
    assert "1 left alone, with another value: --overwrite" in output


@pytest.mark.parametrize("subcommand", ["seed", "prune", "snapshot"])
def test_verbosity_0_prints_nothing(counters: Counters, nats: Nats, subcommand: str) -> None:
    film = Film.objects.create(views_total=100)

    assert nats("counters", subcommand, "cinema.Film.views", "-v", "0") == ""
    assert film.views == (100 if subcommand == "seed" else 0)


@pytest.mark.parametrize("path", ["nope.csv", "."])
def test_a_file_that_cannot_be_read_is_an_error_without_a_report(
    counters: Counters, failing_nats: FailingNats, path: str
) -> None:
    output, error = failing_nats("counters", "seed", "--csv", path)

    reason = "No such file or directory" if path == "nope.csv" else "Is a directory"
    assert (output, error) == ("", f"{path} cannot be read: {reason}.")


def test_a_counter_that_is_back_at_0_has_a_value(counters: Counters, nats: Nats) -> None:
    film = Film.objects.create(views_total=100)
    film.views.incr()
    film.views.decr()

    assert "1 left alone" in nats("counters", "seed", "cinema.Film.views")
    assert film.views == 0


def test_overwrite_sets_existing_totals(counters: Counters, nats: Nats) -> None:
    film, other = Film.objects.create(views_total=100), Film.objects.create(views_total=7)
    film.views.incr(150)

    output = nats("counters", "seed", "cinema.Film.views", "--overwrite")

    assert (film.views, other.views) == (100, 7)
    assert "1 seeded, 1 overwritten" in output
    assert "2 already correct" in nats("counters", "seed", "cinema.Film.views", "--overwrite")


def test_column_names_a_column_that_is_not_a_snapshot(counters: Counters, nats: Nats) -> None:
    hall = Hall.objects.create(name="Odeon, No. 1", visits_before=9)

    nats("counters", "seed", "cinema.Hall", "--column", "visits_before")

    assert hall.visits == 9


def test_hidden_rows_composite_keys_and_other_databases_are_seeded(
    counters: Counters, nats: Nats
) -> None:
    hidden = Film.objects.create(hidden=True, views_total=3)
    seats = [Seat.objects.create(row="a.b", number=n, sold_total=n) for n in range(3)]
    elsewhere = Film.objects.using("other").create(views_total=4)

    nats("counters", "seed", "cinema.Film", "cinema.Seat")
    assert hidden.views == 3
    assert [seat.sold.value() for seat in seats] == [0, 1, 2]
    assert elsewhere.views == 0

    nats("counters", "seed", "cinema.Film", "--database", "other")
    assert elsewhere.views == 4


def test_a_thousand_rows_take_two_round_trips(
    configure: Any, server: NatsServer, nats: Nats
) -> None:
    everything(Film).bulk_create(Film(views_total=number) for number in range(1, 3001))
    with Proxy(server.port, delay=0.05) as proxy:
        counters: Counters = configure(LOCATION=proxy.url)
        counters.get_many(["warm-up"])
        before = proxy.round_trips

        assert "3,000 seeded" in nats("counters", "seed", "cinema.Film.views")

        assert proxy.round_trips - before == 6
        totals = counters.matching("default.cinema.film.*.views")
    assert sorted(totals.values()) == list(range(1, 3001))


# While others count --------------------------------------------------------------------------


def test_increments_during_a_seed_are_kept(counters: Counters) -> None:
    """The counter had no value when the command read it."""
    Counter("page").incr(3)

    ask("default", _publish, {"page": 100}, {})

    assert Counter("page") == 103


def test_two_concurrent_runs_seed_once(counters: Counters) -> None:
    """Both runs read the counter before either had seeded it."""
    for _ in range(2):
        ask("default", _publish, {"page": 100}, {})

    assert Counter("page") == 100


def test_a_seed_dropped_as_a_duplicate_is_reported(
    counters: Counters, nats: Nats, failing_nats: FailingNats
) -> None:
    film = Film.objects.create(views_total=100)
    nats("counters", "seed", "cinema.Film.views")
    film.views.reset()

    output, error = failing_nats("counters", "seed", "cinema.Film.views")

    assert film.views == 0
    assert "0 seeded" in output
    assert "1 counter cannot be seeded yet, " in error
    assert "in 30 s." in error


# When it fails -------------------------------------------------------------------------------


def test_an_unreachable_server_is_an_error_even_with_fail_open(
    configure: Any, failing_nats: FailingNats
) -> None:
    configure(LOCATION=DEAD, FAIL_OPEN=True)
    Film.objects.create(views_total=100)

    output, error = failing_nats("counters", "seed", "cinema.Film.views")

    assert f"No connection to NATS at {DEAD}" in error
    assert output == ""


def test_increments_refused_by_the_server_are_reported(
    settings: Any, failing_nats: FailingNats
) -> None:
    Film.objects.create(views_total=100)
    users = 'users: [{ user: u, password: p, permissions: { publish: ["$JS.API.>"] } }]'
    with NatsServer(token="", config=authorization(users)) as reading:
        entry = {"LOCATION": reading.url, "USER": "u", "PASSWORD": "p", "STORAGE": "memory"}
        settings.NATS_COUNTERS = {"default": {**entry, **PATIENT}}

        output, error = failing_nats("counters", "seed", "cinema.Film.views")

        process.close()
    assert "1 of 1 counter of a batch may not have been seeded" in error
    assert "default.cinema.film." in error
    assert "0 seeded" in output


def test_a_sum_cannot_be_seeded(configure: Any, failing_nats: FailingNats) -> None:
    region = configure("eu").settings.stream.stream
    configure("default", SOURCES=[region])
    Film.objects.create(views_total=100)

    error = failing_nats("counters", "seed", "cinema.Film.views")[1]

    assert 'NATS_COUNTERS["default"] is the sum of its SOURCES' in error


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "Name one source"),
        (["cinema.Film", "--csv", "x"], "Name one source"),
        (["cinema.Film", "--column", "views_total"], "--column needs one field"),
        (["cinema.Film.views", "--column", "title"], "no integer column 'title'"),
        (["cinema.Film", "--name", "a"], "--name needs --redis"),
        (["--csv", "x", "--column", "views_total"], "--column needs"),
        (["--csv", "x", "--match", "a*"], "--redis and --match must be given together"),
        (["--redis", "redis://127.0.0.1:1"], "--redis and --match must be given together"),
        (["--redis", "redis://127.0.0.1:1", "--match", "a[bc]"], "the only wildcard"),
        (["--csv", "x", "--alias", "eu"], 'no alias "eu", only default'),
    ],
    ids=str,
)
def test_a_mistake_in_the_arguments_is_named(
    counters: Counters, failing_nats: FailingNats, arguments: list[str], words: str
) -> None:
    assert words in failing_nats("counters", "seed", *arguments)[1]


# From a CSV file -----------------------------------------------------------------------------


def test_the_lines_of_a_csv_file_are_seeded(counters: Counters, nats: Nats, tmp_path: Path) -> None:
    path = tmp_path / "totals.csv"
    lines = ["name,total", "page.home,12", "", "none,0"]
    lines += ['"a page, with a comma",-5', r"host.a\.com,7"]
    path.write_text("\r\n".join(lines), encoding="utf-8-sig")

    output = nats("counters", "seed", "--csv", str(path))

    assert counters.matching(">") == {
        "page.home": 12,
        "a page, with a comma": -5,
        ("host", "a.com"): 7,
    }
    assert f"{path}: 3 seeded, 0 overwritten, 1 already correct" in output
    assert "4 already correct" in nats("counters", "seed", "--csv", str(path))


def test_the_lines_of_standard_input_are_seeded(
    configure: Any, nats: Nats, monkeypatch: pytest.MonkeyPatch, counters: Counters
) -> None:
    configure("eu")
    monkeypatch.setattr(sys, "stdin", io.StringIO("page.home,12\n"))

    nats("counters", "seed", "--csv", "-", "--alias", "eu")

    assert Counter("page.home", alias="eu") == 12
    assert Counter("page.home") == 0


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("page.about,many", "line 3: 'page.about,many' is not a name, a comma and an integer"),
        ("page.about", "line 3: 'page.about' is not"),
        ("page..about,1", "line 3: Counter name 'page..about': neither"),
        (",1", "line 3: Counter name '': neither"),
        ("page.home,1", "line 2 and "),
    ],
    ids=str,
)
def test_a_wrong_line_is_named(
    counters: Counters, failing_nats: FailingNats, tmp_path: Path, line: str, words: str
) -> None:
    path = tmp_path / "totals.csv"
    path.write_text(f"name,total\npage.home,12\n{line}\n")

    assert words in failing_nats("counters", "seed", "--csv", str(path))[1]


@pytest.mark.parametrize("content", [None, b"caf\xe9,1"])
def test_an_unreadable_file_is_an_error(
    counters: Counters, failing_nats: FailingNats, tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "totals.csv"
    if content is not None:
        path.write_bytes(content)

    assert f"{path} cannot be read" in failing_nats("counters", "seed", "--csv", str(path))[1]
