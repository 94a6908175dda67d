"""printable() escapes characters that a terminal would interpret."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.printable import counted, duration, printable, printable_lines

UNCHANGED = ["", "clicks.eu", "é ü 東京 🎉", 'quotes " and \\ backslashes']
ESCAPED = [
    ("\x1b[31mred", r"\x1b[31mred"),
    ("\x07", r"\x07"),
    ("\x9b31m", r"\x9b31m"),
    ("\x7f", r"\x7f"),
    ("a\rb\nc\td", r"a\rb\nc\td"),
    ("\u202egpj.exe", r"\u202egpj.exe"),
    ("\u2066x\u2069", r"\u2066x\u2069"),
    ("\u2028", r"\u2028"),
    ("\udcff", r"\udcff"),
    ("\U000e0041", r"\U000e0041"),
]


@pytest.mark.parametrize("text", UNCHANGED)
def test_printable_text_is_unchanged(text: str) -> None:
    assert printable(text) == text


@pytest.mark.parametrize(("text", "escaped"), ESCAPED, ids=ascii)
def test_control_characters_are_escaped(text: str, escaped: str) -> None:
    assert printable(text) == escaped


def test_every_control_character_of_unicode_is_escaped() -> None:
    text = printable("".join(map(chr, range(sys.maxunicode + 1))))
    assert {unicodedata.category(character)[0] for character in text}.isdisjoint("C")
    assert not any(unicodedata.bidirectional(each) in _DIRECTIONS for each in text)


_DIRECTIONS = {"LRE", "RLE", "PDF", "LRO", "RLO", "LRI", "RLI", "FSI", "PDI"}


@given(st.text())
def test_escaped_text_is_unchanged_by_a_second_call(text: str) -> None:
    assert printable(printable(text)) == printable(text)


def test_printable_lines_keeps_line_breaks() -> None:
    assert printable_lines("a\n\x1bb\r\n") == "a\n\\x1bb\\r\n"


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 counters"), (1, "1 counter"), (2, "2 counters"), (1200, "1,200 co")]
)
def test_a_number_has_its_noun_in_singular_or_plural(number: int, text: str) -> None:
    assert counted(number, "counter").startswith(text)
    assert counted(number, "entry", "entries").endswith("entry" if number == 1 else "entries")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.25, "0.25 s"),
        (41, "41 s"),
        (90, "1 min 30 s"),
        (900, "15 min"),
        (59.9999999, "1 min"),
        (119.9999999, "2 min"),
        (3600.5, "1 h 0.5 s"),
        (86400, "1 day"),
        (90061, "1 day 1 h 1 min 1 s"),
        (7_776_000, "90 days"),
        (36_500 * 86400, "36,500 days"),
    ],
)
def test_a_duration_is_written_in_the_units_that_people_use(seconds: float, text: str) -> None:
    assert duration(seconds) == text
