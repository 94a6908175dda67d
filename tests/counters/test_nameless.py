"""Rows whose primary keys cannot be part of a counter's name: they do not take down a page."""

from __future__ import annotations

import logging
import pickle
from typing import Any

import pytest
from django.core.management import call_command
from django.template import Context, Template

from django_nats.counters import Counters, aprefetch_counters, nameless, prefetch_counters
from django_nats.exceptions import InvalidKey
from tests.blog.models import Article, Tag
from tests.cinema.models import Hall
from tests.management.conftest import Nats, nats

from .test_query import committing, prefetched_total

__all__ = ["nats"]

pytestmark = pytest.mark.django_db

LONG = "é" * 200
UNUSABLE = pytest.mark.parametrize("key", [LONG, ""], ids=["long", "empty"])


@pytest.fixture(autouse=True)
def _nothing_logged(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nameless, "_logged", set())


def make(key: str) -> tuple[Tag, Tag]:
    usable = Tag.objects.create(name="usable")
    usable.uses.incr(5)
    return usable, Tag.objects.create(name=key)


@UNUSABLE
def test_the_other_rows_are_prefetched(
    counters: Counters, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    tags = make(key)
    for _ in range(2):
        prefetch_counters(tags)
        prefetch_counters(list(Tag.objects.all()))
    assert prefetched_total(tags[0], "uses") == 5
    assert [str(each.uses) for each in tags] == ["5", ""]
    (line,) = [each for each in caplog.messages if "Tag" in each]
    assert line.startswith("blog.Tag.uses: a row has no counter, since its primary key cannot be")
    assert repr(key) in line


@committing
async def test_the_other_rows_are_prefetched_in_async_code(counters: Counters) -> None:
    usable = await Tag.objects.acreate(name="usable")
    await aprefetch_counters([usable, await Tag.objects.acreate(name=LONG)])
    assert prefetched_total(usable, "uses") == 0


def test_each_such_row_is_logged_up_to_a_number_of_rows(
    counters: Counters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(nameless, "_MAX_LOGGED", 2)
    with caplog.at_level(logging.WARNING, "django_nats"):
        prefetch_counters([Tag.objects.create(name=f"{LONG}{each}") for each in range(3)])
    assert len(caplog.messages) == 2


@UNUSABLE
def test_a_template_shows_nothing_for_the_row(counters: Counters, key: str) -> None:
    template = Template(
        "{% load django_nats %}{% for each in tags %}"
        "<{{ each.uses }}|{{ each.uses|compact }}|{{ each.uses|add:0 }}>{% endfor %}"
    )
    assert template.render(Context({"tags": make(key)})) == "<5|5|5><||>"


@UNUSABLE
async def test_every_use_as_more_than_text_names_the_problem(counters: Counters, key: str) -> None:
    uses = Tag(name=key)
    uses._state.adding = False
    counter: Any = uses.uses
    for operation in ("value", "incr", "decr", "reset", "take", "sources", "incr_later", "__int__"):
        with pytest.raises(InvalidKey, match="Counter name"):
            getattr(counter, operation)()
    with pytest.raises(InvalidKey, match="Counter name"):
        await counter.aincr()
    with pytest.raises(InvalidKey, match="Counter name"):
        str(counter.name)
    assert not counter
    assert (counter == 0) is (counter < 1) is False
    counter.keep(3)
    assert f"{counter:,}" == ""
    assert repr(counter).startswith("<blog.Tag.uses: no counter. Counter name ")
    assert repr(pickle.loads(pickle.dumps(counter))) == repr(counter)


def test_a_wrong_subject_is_raised_since_it_concerns_all_rows(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    article = Article.objects.create()
    monkeypatch.setattr(Article.views, "subject", lambda: "x" * 2000 + ".{pk}")
    with pytest.raises(InvalidKey, match="more than 1024"):
        str(article.views)
    with pytest.raises(InvalidKey, match="more than 1024"):
        prefetch_counters([article])


# Commands ------------------------------------------------------------------------------------


def test_commands_go_on_with_the_other_rows(counters: Counters, nats: Nats) -> None:
    for name in ("usable", LONG, ""):
        Hall.objects.create(name=name, visits_before=6)
    output = nats("counters", "seed", "cinema.Hall.visits", "--column", "visits_before")
    assert "1 seeded" in output
    assert "2 rows left out, since their primary keys cannot be part of a counter's name" in output
    assert "Counter name ('default', 'cinema', 'hall', " in output
    assert int(Hall.objects.get(name="usable").visits) == 6
    call_command("nats", "counters", "prune", "cinema.Hall", verbosity=0)


def test_the_snapshot_goes_on_with_the_other_rows(
    counters: Counters, nats: Nats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Hall.visits, "snapshot", "visits_before")
    for name in ("usable", LONG, ""):
        Hall.objects.create(name=name, visits_before=6)
    Hall.objects.get(name="usable").visits.set(7)
    output = nats("counters", "snapshot", "cinema.Hall", "--zero")
    totals = dict(Hall.objects.values_list("name", "visits_before"))
    assert totals == {"usable": 7, LONG: 6, "": 6}
    assert "3 rows, 1 written" in output
    assert "2 columns left unchanged, since the row's primary key cannot be part of" in output
