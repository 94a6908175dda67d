"""The parser when a signal handler raises, and readers of the data after a message."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.protocol import parser
from django_nats.client.protocol.parser import Parser
from django_nats.client.protocol.wire import Reply
from tests.client.protocol.test_parser import HEADER, MOST, Heard, hmsg, msg
from tests.support.interrupting import interrupted
from tests.support.wired import cut

_STREAM = [
    msg(b"a", b"1", b"", b"one"),
    hmsg(b"b", b"2", b"r", HEADER, b"two"),
    b"PING\r\n",
    msg(b"c", b"3", b"", b"MSG a 1 3\r\n"),
    msg(b"d", b"4", b"", b"four"),
]


@pytest.mark.parametrize("pieces", [[0], [0, 15], [0, 70]], ids=["whole", "cut early", "cut late"])
def test_an_interrupted_parser_continues_or_says_that_it_cannot(pieces: list[int]) -> None:
    """The message it names as interrupted is passed on at most once, all others exactly once."""
    stream = b"".join(_STREAM)
    parts = cut(stream, pieces)
    expected = Heard().feed(stream)
    at = resumed = given_up = 0
    while True:
        at += 1
        heard = Heard()
        heard.feed(*parts[:-1])
        where = interrupted(lambda: heard.parser.feed(parts[-1]), at, parser.__file__)  # noqa: B023
        if not where:
            break
        if heard.parser.interrupted is None:
            given_up += 1
            continue
        resumed += 1
        _, subject = heard.parser.interrupted
        heard.parser.feed(b"")
        rest = [each for each in expected if each in heard.all or _subject(each) != subject]
        assert heard.all == rest, where
        assert len(heard.all) >= len(expected) - 1
        heard.feed(msg(b"e", b"5", b"", b"five"))
        assert _subject(heard.all[-1]) == b"e"
    assert resumed > 20
    assert given_up < 15


def _subject(handed_on: object) -> bytes | None:
    return handed_on[1].subject if isinstance(handed_on, tuple) else None


_RUN = [msg(b"a", b"1", b"", b"%d" % number) for number in range(6)]


def test_a_reader_takes_as_many_of_the_following_bytes_as_it_can() -> None:
    heard: list[bytes] = []
    looked: list[int] = []

    def read(data: bytes, start: int) -> int:
        looked.append(start)
        return start + len(_RUN[0] + _RUN[1]) if len(looked) == 1 else start

    def hear(sid: bytes, reply: Reply) -> Any:
        heard.append(reply.payload)
        return read

    tested = Parser(hear, lambda line: None, lambda *large: None, MOST)
    tested.feed(b"".join(_RUN))
    assert heard == [b"0", b"3", b"4", b"5"]
    size = len(_RUN[0])
    assert looked == [size, 4 * size, 5 * size]  # not behind the last message


def test_an_interrupted_reader_names_the_message_before() -> None:
    """The data that it was reading is parsed again, although its request has failed."""
    heard: list[bytes] = []
    raised: list[BaseException] = [KeyboardInterrupt()]

    def read(data: bytes, start: int) -> int:
        if raised:
            raise raised.pop()
        return start

    def hear(sid: bytes, reply: Reply) -> Any:
        heard.append(reply.payload)
        return read

    tested = Parser(hear, lambda line: None, lambda *large: None, MOST)
    with pytest.raises(KeyboardInterrupt):
        tested.feed(b"".join(_RUN))
    assert tested.interrupted == (b"1", b"a")
    tested.feed(b"")
    assert heard == [b"%d" % number for number in range(6)]


def test_an_earlier_interruption_is_not_named_again() -> None:
    """Otherwise the parser would continue after a later interruption when it must not."""
    raised: list[BaseException] = [KeyboardInterrupt()]

    def hear(sid: bytes, reply: Reply) -> None:
        if raised:
            raise raised.pop()

    tested = Parser(hear, lambda line: None, lambda *large: None, MOST)
    with pytest.raises(KeyboardInterrupt):
        tested.feed(msg(b"a", b"1", b"", b"one"))
    assert tested.interrupted == (b"1", b"a")
    tested.feed(msg(b"b", b"2", b"", b"two"))
    assert tested.interrupted is None
