"""``manage.py nats limits top``, ``show`` and ``reset``."""

from __future__ import annotations

import gc
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client import drivers
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import Limit
from tests.counters.conftest import Configure
from tests.limits.conftest import delete_streams
from tests.management.conftest import Declare, Nats
from tests.servers import request

FailingNats = Callable[..., tuple[str, str]]
DEAD = "nats://127.0.0.1:1"

# Days, so that hardly a test sees the end of a window.


__all__ = ["delete_streams"]


@pytest.fixture
def api(counters: Counters, declare: Declare) -> Limit:
    """Return a limit that lets 5 hits a day through, of readable keys."""
    return declare("api", "5/d", "100/30d", readable=True)


def streams(server: NatsServer) -> set[str]:
    found: Any = request(server, "$JS.API.STREAM.NAMES")["streams"] or []
    return {each for each in found if "_LIMITS_" in each}


def lines(output: str) -> list[list[str]]:
    """Return the cells of a table, without its headings."""
    return [re.split(" {2,}", each.strip()) for each in output.splitlines()[1:]]


# top -----------------------------------------------------------------------------------------


def test_top_lists_the_keys_with_the_most_hits(api: Limit, nats: Nats) -> None:
    for key, cost in (("ann", 2), ("bob", 4), ("cid", 1)):
        api.hit(key, cost)

    assert nats("limits", "top", "api").splitlines()[0].split() == [
        *("limit", "key", "rate", "used", "remaining", "reset", "in"),
    ]
    found = lines(nats("limits", "top", "api"))
    assert [each[:5] for each in found] == [
        ["api", "bob", "5/d", "4", "1"],
        ["api", "bob", "100/30d", "4", "96"],
        ["api", "ann", "5/d", "2", "3"],
        ["api", "ann", "100/30d", "2", "98"],
        ["api", "cid", "5/d", "1", "4"],
        ["api", "cid", "100/30d", "1", "99"],
    ]
    assert all(re.fullmatch(r"\d+ (days?|h|min|s)\b.*", each[5]) for each in found)


def test_top_reads_all_limits_and_shows_as_many_as_asked_for(api: Limit, nats: Nats) -> None:
    fixed = Limit("login", "10/d", algorithm="fixed", readable=True)
    fixed.hit("ann", 9)
    api.hit("bob", 3)

    found = lines(nats("limits", "top", "-n", "2"))

    assert [each[:5] for each in found] == [
        ["login", "ann", "10/d", "9", "1"],
        ["api", "bob", "5/d", "3", "2"],
    ]


def test_top_lists_limits_of_which_only_the_server_knows(counters: Counters, nats: Nats) -> None:
    Limit("gone", "5/d", readable=True).hit("ann", 3)
    gc.collect()

    assert [each[:5] for each in lines(nats("limits", "top"))] == [["gone", "ann", "?/d", "3", "?"]]


def test_a_limit_of_another_alias_says_nothing_of_the_same_name(
    configure: Configure, counters: Counters, declare: Declare, nats: Nats
) -> None:
    configure("eu")
    declare("api", "5/d")
    Limit("api", "9/d", alias="eu", readable=True).hit("ann", 3)
    gc.collect()

    found = lines(nats("limits", "top", "--alias", "eu"))

    assert [each[:5] for each in found] == [["api", "ann", "?/d", "3", "?"]]


def test_top_leaves_out_rates_that_a_limit_no_longer_has(counters: Counters, nats: Nats) -> None:
    Limit("api", "9/7d", readable=True).hit("ann", 3)
    gc.collect()
    now = Limit("api", "5/d", readable=True)
    now.hit("bob")

    assert [each[:3] for each in lines(nats("limits", "top"))] == [["api", "bob", "5/d"]]


def test_top_weighs_the_window_before_if_windows_slide(
    declare: Declare, counters: Counters, nats: Nats
) -> None:
    for algorithm in ("sliding", "fixed"):
        limit = declare(algorithm, "99/30d", algorithm=algorithm, readable=True)
        before = limit._hit("ann", 60, None, time.time() - 30 * 86_400)
        assert drivers.run(limit.session, before)

    ((name, key, _, used, remaining, _),) = lines(nats("limits", "top"))

    assert (name, key) == ("sliding", "ann")
    assert 0 < int(used) <= 60
    assert int(used) + int(remaining) == 99


def test_top_does_not_know_the_count_of_a_rate_from_a_function(
    counters: Counters, nats: Nats
) -> None:
    limit = Limit("api", lambda group, request: "5/d", "9/7d", readable=True)
    limit.hit("ann", 3)

    assert [each[:5] for each in lines(nats("limits", "top"))] == [
        ["api", "ann", "?/d", "3", "?"],
        ["api", "ann", "9/7d", "3", "6"],
    ]


def test_top_shows_hashes_of_keys_and_says_so_once(counters: Counters, nats: Nats) -> None:
    limit = Limit("api", "5/d", "9/7d")
    limit.hit("ann@example.com")
    limit.hit("bob@example.com")

    output = nats("limits", "top")

    assert "example" not in output
    assert output.count("READABLE_KEYS") == 1
    assert len({each[1] for each in lines(output)[:4]}) == 2


def test_top_shows_readable_keys_as_printable_text(api: Limit, nats: Nats) -> None:
    for key in ("", "ann@example.com", "\x1b[31m\n"):
        api.hit(key)

    output = nats("limits", "top")

    assert {each[1] for each in lines(output)} == {'""', "ann@example.com", r"\x1b[31m\n"}
    assert "READABLE_KEYS" not in output


def test_keys_of_all_aliases_are_found_or_those_of_one(
    configure: Configure, counters: Counters, nats: Nats
) -> None:
    configure("eu")
    here, there = (
        Limit(name, "5/d", alias=alias, readable=True)
        for name, alias in (("api", None), ("login", "eu"))
    )
    here.hit("ann", 2)
    there.hit("bob", 1)

    assert [each[0] for each in lines(nats("limits", "top"))] == ["api", "login"]
    assert [each[0] for each in lines(nats("limits", "top", "--alias", "eu"))] == ["login"]


# show ----------------------------------------------------------------------------------------


def test_show_says_what_a_limit_is(configure: Configure, counters: Counters, nats: Nats) -> None:
    configure(REQUEST_TIMEOUT=2)
    rates = "5/m", "100/h", "200/15m"
    limit = Limit("api", *rates, timeout=0.5, fail_open=True, dry_run=True)
    stream = counters.settings.stream.stream

    assert nats("limits", "show", limit.name) == (
        "api\n"
        "  rates      5/m, 100/h, 200/15m\n"
        "  algorithm  sliding\n"
        "  alias      default\n"
        f"  stream     {stream}_LIMITS_MINUTE\n"
        f"  stream     {stream}_LIMITS_HOUR\n"
        "  no answer  hits are let through after 0.5 s\n"
        "  dry run    every hit is let through, and those over the limit are logged\n"
    )


def test_show_says_that_limits_are_off(counters: Counters, nats: Nats) -> None:
    limit = Limit("api", "5/m", fail_open=False, algorithm="fixed")

    with override_settings(NATS_LIMITS={"ENABLED": False}):
        output = nats("limits", "show", limit.name)

    assert "  algorithm  fixed\n" in output
    assert "  no answer  hits are refused after 10 s\n" in output
    assert "  off        every hit is let through, since NATS_LIMITS has ENABLED False\n" in output


def test_show_names_functions_and_calls_none(counters: Counters, nats: Nats) -> None:
    def rate_of(group: str, request: object) -> str:
        raise AssertionError

    limit = Limit("api", rate_of, None)

    output = nats("limits", "show", limit.name, "ann")

    assert re.search(r"^  rates      by .*rate_of\(\), None$", output, re.MULTILINE)
    assert output.endswith("  The rates depend on the request\n")


@pytest.mark.parametrize("readable", [True, False])
def test_show_says_what_a_limit_decides_about_a_key(
    counters: Counters, nats: Nats, readable: bool
) -> None:
    limit = Limit("api", "5/d", "4/7d", readable=readable)

    def shown() -> list[str]:
        return nats("limits", "show", "api", "ann").splitlines()[-3:]

    assert shown()[-1] == "  A hit is let through"
    limit.hit("ann", 4)

    short, long, verdict = shown()
    assert re.split(" {2,}", short.strip())[2:5] == ["5/d", "4", "1"]
    assert re.split(" {2,}", long.strip())[2:5] == ["4/7d", "4", "0"]
    assert re.fullmatch(r"  A hit is refused for \d+ (days?|h|min|s)\b.*", verdict)
    assert not limit.peek("ann")


@pytest.mark.parametrize(("readable", "is_shown"), [(True, True), (False, False)])
def test_show_shows_a_key_without_hits_as_one_with_hits(
    counters: Counters, nats: Nats, readable: bool, is_shown: bool
) -> None:
    limit = Limit("api", "5/d", readable=readable)

    def key() -> str:
        return lines(nats("limits", "show", "api", "ann"))[-2][1]

    before = key()
    limit.hit("ann")
    assert before == key()
    assert (before == "ann") is is_shown


def test_show_says_that_nothing_is_ever_let_through(counters: Counters, nats: Nats) -> None:
    limit = Limit("api", "5/d", "0/h")

    assert nats("limits", "show", limit.name, "").endswith("  A hit is always refused\n")


def test_show_takes_the_hash_that_top_shows(counters: Counters, nats: Nats) -> None:
    limit = Limit("api", "5/d")
    limit.hit("ann@example.com", 3)
    ((_, shown, *_),) = lines(nats("limits", "top"))[:1]

    for key in (shown, "ann@example.com"):
        assert lines(nats("limits", "show", "api", key))[-2][:4] == ["api", shown, "5/d", "3"]


def test_show_shows_all_limits_of_a_name(counters: Counters, nats: Nats) -> None:
    limits = Limit("api", "5/d"), Limit("api", "9/h")

    output = nats("limits", "show", limits[0].name)

    assert {*re.findall("rates      (.*)", output)} == {"5/d", "9/h"}


# reset ---------------------------------------------------------------------------------------


def test_reset_lets_a_key_begin_again(counters: Counters, nats: Nats) -> None:
    for readable in (True, False):
        limit = Limit(f"api {readable}", "5/d", "9/7d", readable=readable)
        for key in ("ann", "bob"):
            limit.hit(key, 5)

        assert nats("limits", "reset", limit.name, "ann") == f"{limit.name}: reset for 'ann'\n"

        assert limit.peek("ann").remaining == 5
        assert not limit.peek("bob")
        assert nats("limits", "reset", limit.name, "ann") == f"{limit.name}: nothing to forget\n"


def test_reset_takes_the_hash_that_top_shows(counters: Counters, nats: Nats) -> None:
    limit = Limit("api", "5/d")
    limit.hit("ann", 5)
    ((_, shown, *_),) = lines(nats("limits", "top"))[:1]

    nats("limits", "reset", "api", shown)

    assert limit.peek("ann")


def test_reset_all_lets_every_key_of_a_limit_begin_again(api: Limit, nats: Nats) -> None:
    other = Limit("api2", "5/d")
    for key in ("ann", "bob"):
        api.hit(key, 5)
        other.hit(key, 5)

    assert nats("limits", "reset", "api", "--all", "--noinput") == "api: reset for 2 keys\n"

    assert api.peek("ann")
    assert api.peek("bob")
    assert not other.peek("ann")


@pytest.mark.parametrize("answer", ["yes", "no", "", None])
def test_reset_all_asks_first(
    api: Limit,
    nats: Nats,
    failing_nats: FailingNats,
    monkeypatch: pytest.MonkeyPatch,
    answer: str | None,
) -> None:
    def read(question: str) -> str:
        assert '"api"' in question
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("builtins.input", read)
    api.hit("ann", 5)

    if answer == "yes":
        nats("limits", "reset", "api", "--all")
    else:
        words = "Add --noinput" if answer is None else "Nothing was reset"
        assert words in failing_nats("limits", "reset", "api", "--all")[1]

    assert bool(api.peek("ann")) is (answer == "yes")


def test_reset_finds_limits_of_which_only_the_server_knows(counters: Counters, nats: Nats) -> None:
    Limit("gone", "5/d").hit("ann", 5)
    gc.collect()

    nats("limits", "reset", "gone", "ann")

    assert Limit("gone", "5/d").peek("ann")


# Mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["top", "-n", "0"], "-n must be at least 1, not 0"),
        (["top"], "No hits count now"),
        (["top", "ape"], 'No hits of the limit "ape" count now'),
        (["top", ""], 'No hits of the limit "" count now'),
        (["top", "--alias", "eu"], 'NATS_COUNTERS has no alias "eu", only default'),
        (["show", "ape"], 'No limit or quota is called "ape". The project has: api.'),
        (["reset", "ape", "ann"], 'No limit or quota is called "ape", also not on the server'),
        (["reset", "api"], "Name a key, or add --all"),
        (["reset", "api", "ann", "--all"], "Name a key, or add --all"),
    ],
    ids=str,
)
def test_a_mistake_in_the_arguments_is_named(
    api: Limit, failing_nats: FailingNats, arguments: list[str], words: str
) -> None:
    assert words in failing_nats("limits", *arguments)[1]


@pytest.mark.parametrize(
    "arguments", [["top"], ["show", "api", "ann"], ["reset", "api", "ann"]], ids=str
)
def test_an_unreachable_server_is_an_error_even_with_fail_open(
    configure: Configure, declare: Declare, failing_nats: FailingNats, arguments: list[str]
) -> None:
    configure(LOCATION=DEAD, FAIL_OPEN=True)
    declare("api", "5/d")

    assert f"No connection to NATS at {DEAD}" in failing_nats("limits", *arguments)[1]


def test_looking_creates_no_streams(api: Limit, server: NatsServer, nats: Nats) -> None:
    before = streams(server)

    nats("limits", "show", "api", "ann")
    nats("limits", "reset", "api", "ann")

    assert streams(server) == before
