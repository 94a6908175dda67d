"""The page on moving from django-redis lists every public method of django-redis's cache."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django_redis.cache import RedisCache
from django_redis.client import DefaultClient

from django_nats.cache import NatsCache

PAGE = Path(__file__).resolve().parent.parent / "docs" / "how-to" / "moving-from-django-redis.md"


def _table() -> dict[str, str]:
    """Return the page's verdict on each method: "the same", "differs" or "absent"."""
    section = PAGE.read_text().partition("## Methods")[2].partition("\n## ")[0]
    verdicts: dict[str, str] = {}
    for methods, kind in re.findall(r"^\| (`.*?) \| (the same|differs|absent)\b", section, re.M):
        for name in re.findall(r"`(\w+)`", methods):
            assert name not in verdicts, f"{name} is there twice"
            verdicts[name] = kind
    return verdicts


def _theirs() -> Iterator[str]:
    names = {name for name in dir(RedisCache) if not name.startswith("_")}
    for name in names:
        if not (name.startswith("a") and name[1:] in names):  # the async version of another method
            yield name


def _parameters(method: Any) -> list[str]:
    return [name for name in inspect.signature(method).parameters if name not in ("self", "client")]


VERDICTS = _table()
THEIRS = sorted(_theirs())


def test_the_page_lists_exactly_the_methods_of_django_redis() -> None:
    assert sorted(VERDICTS) == THEIRS


@pytest.mark.parametrize("name", THEIRS)
def test_the_verdict_on_a_method_is_true(name: str) -> None:
    ours = getattr(NatsCache, name, None)
    assert (ours is None) is (VERDICTS[name] == "absent")
    if VERDICTS[name] == "the same":
        # The cache's methods pass all their arguments to the client's.
        theirs = getattr(DefaultClient if name in vars(RedisCache) else RedisCache, name)
        assert _parameters(ours)[: len(_parameters(theirs))] == _parameters(theirs)


@pytest.mark.parametrize("name", [name for name in THEIRS if VERDICTS.get(name) != "absent"])
def test_every_method_that_asks_the_server_has_an_async_version(name: str) -> None:
    offline = {"get_backend_timeout", "make_and_validate_key", "make_key", "validate_key"}
    assert hasattr(NatsCache, f"a{name}") is (name not in offline)
