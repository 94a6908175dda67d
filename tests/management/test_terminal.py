"""Control characters in names and in a server's messages are escaped on the terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from django_nats.client.protocol import server_errors, wire
from django_nats.client.transport import driver_errors
from django_nats.counters import Counter, Counters
from django_nats.exceptions import NatsError
from django_nats.management.subcommand import Terminal
from tests.management.conftest import Nats
from tests.test_printable import ESCAPED

FailingNats = Callable[..., tuple[str, str]]
ATTACK = "\x1b]0;title\x07\x9b31m\u202e\r\nname"


@pytest.mark.parametrize("text", [each for each, _ in ESCAPED if "\udcff" not in each], ids=ascii)
def test_show_accepts_the_escaped_names_that_top_prints(
    counters: Counters, nats: Nats, text: str
) -> None:
    Counter(f"a.{text}").incr(3)
    Counter("b", f".{text}").incr(2)
    for line in nats("counters", "top").splitlines():
        assert line.isprintable()
        total, _, name = line.partition("  ")
        assert nats("counters", "show", name) == f"{name}: {total}\n"


def test_names_from_the_command_line_are_escaped(counters: Counters, nats: Nats) -> None:
    output = nats("counters", "show", f"a{ATTACK}")
    assert output.replace("\n", " ").isprintable()


def test_errors_are_escaped(counters: Counters, failing_nats: FailingNats) -> None:
    _, error = failing_nats("counters", "top", f"{ATTACK}.>")
    assert error.replace("\n", " ").isprintable()
    _, error = failing_nats("counters", "seed", "--csv", "/none", "--match", ATTACK)
    assert error.replace("\n", " ").isprintable()


def test_status_is_escaped(counters: Counters, failing_nats: FailingNats, monkeypatch: Any) -> None:
    def refused(*args: object) -> None:
        raise NatsError(f"refused: {ATTACK}")

    monkeypatch.setattr("django_nats.client.streams.opening.Opening._document", refused)
    output, _ = failing_nats("status")
    assert r"refused: \x1b]0;title\x07\x9b31m\u202e\r" in output
    assert output.replace("\n", " ").isprintable()


def test_colours_of_the_command_are_not_escaped() -> None:
    class Screen(io.StringIO):
        def isatty(self) -> bool:
            return True

    screen = Screen()
    style = color_style(force_color=True)
    Terminal(OutputWrapper(screen)).write("failed: \x1b[2J", style.ERROR)
    assert screen.getvalue() == style.ERROR("failed: \\x1b[2J\n")
    assert "\x1b[31" in screen.getvalue()


def test_error_messages_escape_the_servers_words() -> None:
    document = {"err_code": 1, "description": ATTACK}
    status = f"NATS/1.0 409 {ATTACK}\r\n\r\n".encode()
    for message in (
        str(server_errors.error_of(document)),
        str(wire.status_error(409, status)),
        driver_errors.explain(OSError(ATTACK)),
    ):
        assert message.isprintable()
