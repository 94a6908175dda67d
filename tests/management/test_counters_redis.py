"""``manage.py nats counters seed --redis``: totals from integers in Redis."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_nats.counters import Counter, Counters
from django_nats.management.counters.seeding import Total, once
from tests.cinema.models import Film
from tests.management.conftest import Nats

FailingNats = Callable[..., tuple[str, str]]

pytestmark = pytest.mark.django_db


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Any]:
    """Start a Redis server for this test and yield a client."""
    module = pytest.importorskip("redis")
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed")
    path = tmp_path / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(path), "--requirepass", "sesame"]
    process = subprocess.Popen(
        [*command, "--save", ""], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert any("eady to accept connections" in line for line in process.stdout)
        with module.Redis.from_url(f"unix://:sesame@{path}") as client:
            yield client
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def url(redis: Any) -> str:
    return f"unix://:sesame@{redis.connection_pool.connection_kwargs['path']}"


def test_keys_become_counters(counters: Counters, nats: Nats, redis: Any, url: str) -> None:
    redis.mset({"views:1": 10, "views:a.com": -2, "views:2:eu": 10**30, "other": 5, "views": 1})
    redis.incr("views:1")

    output = nats("counters", "seed", "--redis", url, "--match", "views:*")

    assert counters.matching(">") == {
        "views.1": 11,
        ("views", "a.com"): -2,
        "views.2.eu": 10**30,
    }
    assert "views:*: 3 seeded" in output
    assert "3 already correct" in nats("counters", "seed", "--redis", url, "--match", "views:*")


def test_name_is_a_template_for_counter_names(
    counters: Counters, nats: Nats, redis: Any, url: str
) -> None:
    film = Film.objects.create()
    redis.mset({f"film:{film.pk}:views": 8, "film:0.5:views": 1})

    match = ["--match", "film:*:views"]
    nats("counters", "seed", "--redis", url, *match, "--name", "default.cinema.film.{1}.views")
    assert film.views == 8

    nats("counters", "seed", "--redis", url, *match, "--name", "from-redis.{0}")
    assert Counter("from-redis", "film:0.5:views") == 1


def test_more_keys_than_one_batch_are_seeded(
    counters: Counters, nats: Nats, redis: Any, url: str
) -> None:
    redis.mset({f"views:{number}": number for number in range(1, 2501)})

    assert "2,500 seeded" in nats("counters", "seed", "--redis", url, "--match", "views:*")
    assert counters.total("views.>") == 2500 * 2501 // 2


def test_keys_without_an_integer_are_skipped_and_named(
    counters: Counters, nats: Nats, redis: Any, url: str
) -> None:
    redis.mset({"views:1": 1, "views:x": "1.5"})
    redis.hset("views:y", "field", 1)

    output = nats("counters", "seed", "--redis", url, "--match", "views:*")

    assert "1 seeded" in output
    assert "2 keys skipped, whose value is no integer: views:" in output
    assert counters.matching(">") == {"views.1": 1}


@pytest.mark.parametrize(
    ("template", "words"),
    [
        (None, "The key views::1: Counter name"),
        ("page.{2}", "{1} to {1} for each * of --match"),
        ("page.{name}", "{1} to {1}"),
        ("page.{", "{1} to {1}"),
        ("page", "are for the same counter, page"),
    ],
)
def test_an_invalid_name_or_template_is_an_error(
    counters: Counters,
    failing_nats: FailingNats,
    redis: Any,
    url: str,
    template: str | None,
    words: str,
) -> None:
    redis.mset({"views::1": 1, "views::2": 1})
    options = [] if template is None else ["--name", template]

    error = failing_nats("counters", "seed", "--redis", url, "--match", "views::*", *options)[1]

    assert words in error.replace("views::2", "views::1")


def test_the_error_without_redis_py_says_what_to_install(
    counters: Counters, failing_nats: FailingNats, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)

    error = failing_nats("counters", "seed", "--redis", "redis://127.0.0.1", "--match", "a*")[1]

    assert error == "--redis needs redis-py: pip install redis"


@pytest.mark.parametrize("location", ["redis://:hush@127.0.0.1:1", "http://:hush@127.0.0.1"])
def test_the_error_of_an_unreachable_redis_does_not_show_the_password(
    counters: Counters, failing_nats: FailingNats, location: str
) -> None:
    pytest.importorskip("redis")

    error = failing_nats("counters", "seed", "--redis", location, "--match", "a*")[1]

    assert error.startswith("Redis cannot be read: ")
    assert "hush" not in error


def test_a_key_that_scan_returns_twice_is_seeded_once() -> None:
    total = Total("views.1", 5, "the key views:1")

    assert list(once([total, total])) == [total]
