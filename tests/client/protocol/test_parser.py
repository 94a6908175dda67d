"""The parser, on bytes in any pieces, compared with nats-py's own."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nats.protocol.parser import Parser as Theirs

from django_nats.client.protocol.parser import MAX_LINE_BYTES, Parser, ProtocolError
from django_nats.client.protocol.wire import Reply
from tests.support.wired import cut

MOST = 8 * 1024 * 1024
HEADER = b"NATS/1.0\r\nA: b\r\n\r\n"


class Heard:
    """A record of everything that the parser passes on, in order."""

    def __init__(self) -> None:
        self.all: list[object] = []
        self.parser = Parser(
            lambda sid, reply: self.all.append((sid, reply)),
            self.all.append,
            lambda *large: self.all.append(large),
            MOST,
        )

    def feed(self, *pieces: bytes) -> list[object]:
        for piece in pieces:
            self.parser.feed(piece)
        return self.all


def msg(subject: bytes, sid: bytes, reply_to: bytes, payload: bytes) -> bytes:
    between = b" %b " % reply_to if reply_to else b" "
    return b"MSG %b %b%b%d\r\n%b\r\n" % (subject, sid, between, len(payload), payload)


def hmsg(subject: bytes, sid: bytes, reply_to: bytes, header: bytes, payload: bytes) -> bytes:
    between = b" %b " % reply_to if reply_to else b" "
    total = len(header) + len(payload)
    return b"HMSG %b %b%b%d %d\r\n%b%b\r\n" % (
        *(subject, sid, between, len(header), total),
        *(header, payload),
    )


# Laws ----------------------------------------------------------------------------------------

words = st.text("abcHMSG.$*_0123456789", min_size=1, max_size=12).map(str.encode)
sids = st.integers(1, 10**6).map(lambda number: b"%d" % number)
reply_tos = st.just(b"") | words
# Bytes that would be parsed as something else if the parser lost its place in the stream.
payloads = st.lists(
    st.sampled_from([b"\r\n", b"\r", b"\n", b"MSG a 1 3\r\n", b"HMSG a 1 2 5\r\n", b"PING\r\n"])
    | st.binary(max_size=40),
    max_size=5,
).map(b"".join)
headers = st.sampled_from([HEADER, b"NATS/1.0 503\r\n\r\n", b"NATS/1.0\r\n\r\n"])
lines = st.sampled_from(
    [b"PING", b"PONG", b"+OK", b'INFO {"a": "MSG b 1 2"}', b"-ERR 'Stale Connection'"]
)


@st.composite
def frames(draw: st.DrawFn) -> tuple[bytes, object]:
    """Return a frame, and what the parser should pass on."""
    kind = draw(st.sampled_from(["msg", "hmsg", "line"]))
    if kind == "line":
        line = draw(lines)
        return line + b"\r\n", line
    subject, sid, reply_to, payload = (draw(each) for each in (words, sids, reply_tos, payloads))
    if kind == "msg":
        return msg(subject, sid, reply_to, payload), (sid, Reply(b"", payload, reply_to, subject))
    header = draw(headers)
    frame = hmsg(subject, sid, reply_to, header, payload)
    return frame, (sid, Reply(header, payload, reply_to, subject))


@st.composite
def streams(draw: st.DrawFn) -> tuple[bytes, list[object]]:
    parts = draw(st.lists(frames(), max_size=12))
    return b"".join(frame for frame, _ in parts), [meant for _, meant in parts]


@settings(max_examples=300, deadline=None)
@given(streams(), st.lists(st.integers(0, 2000), max_size=12))
def test_any_split_into_pieces_gives_the_same_messages(
    stream: tuple[bytes, list[object]], at: list[int]
) -> None:
    data, meant = stream
    assert Heard().feed(data) == meant
    assert Heard().feed(*cut(data, at)) == meant


@settings(max_examples=50, deadline=None)
@given(streams())
def test_single_bytes_give_the_same_messages(stream: tuple[bytes, list[object]]) -> None:
    data, meant = stream
    assert Heard().feed(*(data[i : i + 1] for i in range(len(data)))) == meant


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80) | payloads, st.lists(st.integers(0, 200), max_size=4))
def test_any_bytes_are_parsed_or_refused(data: bytes, at: list[int]) -> None:
    heard = Heard()
    try:
        heard.feed(*cut(data, at))
    except ProtocolError:
        return
    assert len(heard.all) <= data.count(b"\r\n")


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from([b"MSG", b"HMSG"]),
    st.lists(st.sampled_from([b"a", b"1", b"0", b"7", b"-7", b"-30", b"99", b"x"]), max_size=6),
)
def test_any_control_line_is_parsed_as_by_nats_py_or_refused(
    verb: bytes, fields: list[bytes]
) -> None:
    data = b" ".join([verb, *fields]) + b"\r\n" + b"abcdefghij" * 10 + b"\r\n"
    heard = Heard()
    with suppress(ProtocolError):  # at the latest by the rest of the hundred bytes
        heard.feed(data)
    theirs = their_calls(data)[:1]
    if heard.all and theirs:
        assert [as_theirs(*heard.all[0])] == theirs  # type: ignore[misc]
    elif heard.all:
        assert not fields[1].lstrip(b"-").isdigit()  # nats-py accepts only a number as an id
    elif theirs:
        assert verb == b"HMSG"
        assert int(fields[-2]) > int(fields[-1])  # more header than message


# One by one ----------------------------------------------------------------------------------


def test_empty_payload_and_empty_header_are_parsed() -> None:
    assert Heard().feed(b"MSG a 1 0\r\n\r\n") == [(b"1", Reply(b"", b"", b"", b"a"))]
    assert Heard().feed(hmsg(b"a", b"1", b"", HEADER, b"")) == [
        (b"1", Reply(HEADER, b"", b"", b"a"))
    ]
    assert Heard().feed(b"HMSG a 1 0 2\r\nhi\r\n") == [(b"1", Reply(b"", b"hi", b"", b"a"))]


def test_any_white_space_may_separate_the_fields() -> None:
    (heard,) = Heard().feed(b"MSG  a\t 1   r  2 \r\nhi\r\n")
    assert heard == (b"1", Reply(b"", b"hi", b"r", b"a"))


def test_a_large_payload_is_joined_once() -> None:
    """Every piece is kept as it arrived until the last one is there."""
    heard = Heard()
    payload = bytes(range(256)) * 4 * 1024
    data = msg(b"a", b"1", b"", payload) + b"PING\r\n"
    pieces = [data[i : i + 1000] for i in range(0, len(data), 1000)]
    for piece in pieces[:-1]:
        heard.parser.feed(piece)
        assert heard.all == []
    held = heard.parser._held
    assert [len(each) for each in held] == [1000] * (len(pieces) - 1)
    assert all(kept is piece for kept, piece in zip(held[1:], pieces[1:], strict=False))
    heard.parser.feed(pieces[-1])
    assert heard.all == [(b"1", Reply(b"", payload, b"", b"a")), b"PING"]
    assert heard.parser._held == []


@pytest.mark.parametrize(
    "data",
    [
        b"MSG\r\n",
        b"MSG a\r\n",
        b"MSG a 5\r\nhello\r\n",  # no id
        b"MSG 5\r\nhello\r\n",
        b"MSG a 1 r x 5\r\nhello\r\n",
        b"MSG a 1 five\r\nhello\r\n",
        b"MSG a 1 5.0\r\nhello\r\n",
        b"MSG a 1 -1\r\n",
        b"MSG a 1 -14\r\n",  # would go back to the beginning, forever
        b"MSG a 1 -100\r\n",
        b"HMSG a 1 5\r\nhello\r\n",
        b"HMSG a 5 5\r\nhello\r\n",
        b"HMSG a 1 r x 2 5\r\nhello\r\n",
        b"HMSG a 1 x 5\r\nhello\r\n",
        b"HMSG a 1 -2 5\r\nhello\r\n",
        b"HMSG a 1 6 5\r\nhello\r\n",  # the header would include the following bytes
        b"HMSG a 1 2 -20\r\nhello\r\n",
        b"hello\r\n",
        b"\r\n",
        b"PUB a 5\r\nhello\r\n",
        b"HTTP/1.1 400 Bad Request\r\n",
        b"INFORMATION\r\n",
    ],
)
def test_bytes_that_are_not_the_protocol_are_refused(data: bytes) -> None:
    for pieces in ([data], [data[:3], data[3:]]):
        heard = Heard()
        with pytest.raises(ProtocolError, match="not the NATS protocol"):
            heard.feed(*pieces)
        assert heard.all == []


def test_the_error_shows_the_verb_but_no_value() -> None:
    with pytest.raises(ProtocolError) as raised:
        Heard().feed(b"MSG a 1 2\r\nhi\r\nMSG secret 1 r x 5\r\nhello\r\n")
    assert "MSG" in str(raised.value)
    assert "secret" not in str(raised.value)


def test_messages_before_an_error_are_handled() -> None:
    heard = Heard()
    with pytest.raises(ProtocolError):
        heard.feed(b"PING\r\nMSG a 1 2\r\nhi\r\nMSG a 1 x\r\n")
    assert heard.all == [b"PING", (b"1", Reply(b"", b"hi", b"", b"a"))]


@pytest.mark.parametrize("piece", [64 * 1024, MAX_LINE_BYTES + 2])
def test_a_line_without_an_end_is_refused(piece: int) -> None:
    pieces = [b"INFO " + b"x" * (piece - 5)] * (MAX_LINE_BYTES // piece + 1)
    with pytest.raises(ProtocolError):
        Heard().feed(*pieces)


def test_a_line_of_the_greatest_length_is_read() -> None:
    line = b"INFO " + b"x" * (MAX_LINE_BYTES - 6)
    assert Heard().feed(line, b"\r", b"\n") == [line]


def test_a_message_over_the_limit_is_skipped_and_not_kept() -> None:
    heard = Heard()
    size = 100 * MOST
    piece = b"MSG x 1 5\r\nfalse\r\n" + b"x" * (64 * 1024 - 18)
    left = size + 2
    held = 0
    heard.feed(b"HMSG a 7 r 12 %d\r\nNATS/1.0\r\n\r\n" % size)
    left -= 12
    while left:
        heard.feed(piece[:left])
        left -= len(piece[:left])
        held = max(held, heard.parser.held)
    assert held < MAX_LINE_BYTES
    heard.feed(b"MSG b 2 2\r\nhi\r\n")
    assert heard.all == [(b"7", b"a", size), (b"2", Reply(b"", b"hi", b"", b"b"))]


@pytest.mark.parametrize("over", [0, 1])
def test_the_limit_is_the_largest_message_that_is_kept(over: int) -> None:
    payload = b"x" * (MOST + over)
    pieces = [payload[i : i + 64 * 1024] for i in range(0, len(payload), 64 * 1024)]
    heard = Heard().feed(b"MSG a 1 %d\r\n" % len(payload), *pieces, b"\r", b"\n", b"PING\r\n")
    kept = (b"1", Reply(b"", payload, b"", b"a"))
    assert heard == [(b"1", b"a", len(payload)) if over else kept, b"PING"]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.binary(max_size=40) | st.just(b"MSG a 1 99999999\r\n"), max_size=30))
def test_the_size_of_held_bytes_is_bounded(pieces: list[bytes]) -> None:
    heard = Heard()
    with suppress(ProtocolError):
        for piece in pieces:
            heard.feed(piece * 2000)
            assert heard.parser.held <= MOST + MAX_LINE_BYTES + len(piece * 2000)


@pytest.mark.parametrize("size", [2**31, 10**30, 10**4000])
def test_a_size_over_32_bits_is_refused(size: int) -> None:
    with pytest.raises(ProtocolError, match="not the NATS protocol"):
        Heard().feed(b"MSG a 1 %d\r\n" % size)


def test_an_error_of_a_callback_is_raised() -> None:
    """A signal handler may interrupt a caller that reads."""

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Parser(interrupted, interrupted, interrupted, MOST).feed(b"PING\r\n")


# Compared with nats-py -----------------------------------------------------------------------


class Client:
    """The client to which nats-py's parser passes messages."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    async def _process_msg(self, *args: Any) -> None:
        self.calls.append(args)

    async def _process_ping(self) -> None:
        self.calls.append(b"PING")

    async def _process_pong(self) -> None:
        self.calls.append(b"PONG")

    async def _process_err(self, message: str) -> None:
        self.calls.append(b"-ERR")

    async def _process_info(self, info: dict[str, Any]) -> None:
        self.calls.append(b"INFO")


def their_calls(data: bytes) -> list[Any]:
    client = Client()
    parse = Theirs(client).parse(data)
    try:
        while True:  # it never waits for anything
            parse.send(None)
    except StopIteration:
        return client.calls
    except Exception:
        return client.calls


def as_theirs(sid: bytes, reply: Reply) -> tuple[Any, ...]:
    header, payload, reply_to, subject = reply
    return int(sid), subject, reply_to, payload, header or None


@settings(max_examples=200, deadline=None)
@given(streams())
def test_nats_py_parses_the_same_messages(stream: tuple[bytes, list[object]]) -> None:
    data, _ = stream
    ours = [
        as_theirs(*each) if isinstance(each, tuple) else each.split()[0]  # type: ignore[attr-defined]
        for each in Heard().feed(data)
    ]
    assert [each for each in ours if each != b"+OK"] == their_calls(data)


def test_nats_py_accepts_more_than_a_server_sends() -> None:
    assert their_calls(b"PING \r\n") == [b"PING"]
    assert Heard().feed(b"PING \r\n") == [b"PING "]
    assert their_calls(b"MSG a 1\n2\r\nhi\r\n") == [(1, b"a", b"", b"hi", None)]
    with pytest.raises(ProtocolError):
        Heard().feed(b"msg a 1 2\r\nhi\r\n")
