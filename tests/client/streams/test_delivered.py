"""Keys read from many messages at once are those read message by message, for any bytes."""

from __future__ import annotations

import hashlib
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from django_nats.client.kv import listing
from django_nats.client.protocol.steps import Item
from django_nats.client.streams import delivered
from django_nats.client.streams.delivered import DeliveredReader, Run
from django_nats.exceptions import NatsError, OutcomeUnknown
from tests.support.answers import document, opened
from tests.support.interrupting import interrupted
from tests.support.wired import Wired, cut

NOW = 1_790_000_000.0
SID = b"token"
CONSUMER = "keys-0123"
PLACE = b"KV_b.keys-0123."
ACK = b"$JS.ACK." + PLACE
FILTER = "$KV.b.=.1.>"
LONG = "x" * 1100
HASHED = f"=.1.{'x' * 954}=h{hashlib.sha256(f':1:{LONG}'.encode()).hexdigest()}"
HEADERS = {
    "live": "Django-Nats: json;ms=3600000\r\nNats-TTL: 3600\r\n",
    "never": "Django-Nats: pickle\r\nNats-TTL: never\r\n",
    "short": "Django-Nats: json;ms=2000\r\nNats-TTL: 2\r\n",
    "kept": f"Django-Nats: json;at={round(NOW + 1800) * 1000}\r\nNats-TTL: 1800\r\n",
    "past": f"Django-Nats: json;at={round(NOW - 60) * 1000}\r\nNats-TTL: 1800\r\n",
    "unknown": "Django-Nats: json;xx=1\r\nNats-TTL: 9\r\n",
    "tombstone": "KV-Operation: DEL\r\n",
    "tombstone without a blank": "KV-Operation:DEL\r\n",
    "marker": "Nats-Marker-Reason: MaxAge\r\n",
    "another client's": "",
    "conditional": "Django-Nats: json\r\nNats-Expected-Last-Subject-Sequence: 0\r\n"
    "Nats-Msg-Id: x\r\nNats-TTL: never\r\n",
    "with a key": f"Django-Nats: json\r\nDjango-Nats-Key: :1:{LONG}\r\n",
    "odd": "a b:c\n\r\nNats-TTL: \xff\r\nHMSG x y z\r\n",
}


def frame(
    key: str = "=.1.k",
    header: str = HEADERS["live"],
    sequence: int = 7,
    *,
    stored: float = NOW - 100,
    left: int = 3,
    **more: bytes,
) -> bytes:
    """Return a message as the server delivers it. ``more`` replaces parts of the frame."""
    block = f"NATS/1.0\r\n{header}Nats-Msg-Size: 5\r\n\r\n".encode("latin-1")
    numbers = b"1.%d.%d.%d.%d" % (sequence, sequence, round(stored * 1e9), left)
    parts = {
        "subject": f"$KV.b.{key}".encode(),
        "sid": SID,
        "ack": ACK,
        "numbers": numbers,
        "end": b"",
        "sizes": b"%d %d" % (len(block), len(block) + len(more.get("payload", b""))),
        "header": block,
        "payload": b"",
        **more,
    }
    return (
        b"HMSG %(subject)b %(sid)b %(ack)b%(numbers)b%(end)b %(sizes)b\r\n"
        b"%(header)b%(payload)b\r\n" % {name.encode(): part for name, part in parts.items()}
    )


class Listed:
    """One batch of a listing, and the bytes that answer it."""

    def __init__(self, *, at_once: bool, batch: int = 100, pattern: str = ":1:*") -> None:
        bucket = opened()
        bucket.clock.now = lambda: NOW  # type: ignore[method-assign]
        self.steps = listing.iter_keys(bucket, pattern, batch)
        next(self.steps)
        self.request = self.steps.send(document({"num_pending": 1000}))
        if not at_once:
            self.request.reader = None
        self.reader = self.request.reader
        self.wired = Wired(self.request, SID)

    def result(self, pieces: list[bytes]) -> object:
        """Return the keys with their revisions and the next request, or the failure."""
        if failure := self.wired.failure(pieces):
            return failure
        keys: dict[str, int] = {}
        try:
            effect = self.steps.send(self.wired.waiter.answers[0])
            if isinstance(effect, Item):
                keys = effect.value
                effect = next(self.steps)
        except StopIteration:
            return keys, "the end"
        except NatsError as error:
            return type(error).__name__
        return sorted(keys.items()), effect.subject.split(b".")[:4], self.wired.ended


@pytest.fixture(autouse=True)
def _same_consumer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("secrets.token_hex", lambda size: CONSUMER.removeprefix("keys-"))


ODD: dict[str, dict[str, bytes]] = {
    "another subscription": {"sid": b"other"},
    "another consumer": {"ack": b"$JS.ACK.KV_b.keys-4567."},
    "the consumer twice": {"ack": b"$JS.ACK.KV_b.keys-0123.hub." + PLACE},
    "no acknowledgement": {"ack": b"_INBOX.x."},
    "another reply subject": {"ack": b"$JS.FC." + PLACE},
    "more at the end": {"end": b".ran.dom"},
    "sequence 0": {"numbers": b"1.0.7.1790000000000000000.3"},
    "an early time": {"numbers": b"1.7.7.17.3"},
    "a large sequence": {"numbers": b"1.%d.7.1790000000000000000.3" % 2**63},
    "another subject": {"subject": b"$KV.b.=.2.k"},
    "no rest of the subject": {"subject": b"$KV.b.=.1."},
    "not ASCII": {"subject": b"$KV.b.=.1.\xff"},
    "a tabulator": {"subject": b"$KV.b.=.1.a\tb"},
    "two subjects": {"subject": b"$KV.b.=.1.a b"},
    "two lines": {"subject": b"$KV.b.=.1.a\n$KV.b.=.1.b"},
    "a value": {"payload": b"value"},
    "a value like a message": {"payload": b"\r\nHMSG $KV.b.=.1.p token "},
    "a value with a message": {"payload": frame("=.1.within")},
}
ELSEWHERE = [
    {"ack": b"$JS.ACK.hub.AB12." + PLACE},
    {"end": b".random"},
    {"numbers": b"1.7.7.1790000000000000000.0"},
]
names = st.sampled_from(
    [
        *(
            "=.1.a",
            "=.1.b",
            "=.1.c",
            "=.1.user.42",
            "=.1.a=2Eb",
            "=.1.=",
            "=.1.=.=20",
            "=.1.no=key",
        ),
        *("=.1.=clear", "=.1.HMSG", "=.1.x=h" + "0" * 64, HASHED, "=.1.a|$KV.b.=.1.b"),
    ]
)
plain = st.builds(
    frame,
    names,
    st.sampled_from([HEADERS["live"]] * 8 + list(HEADERS.values())),
    st.integers(1, 10**6),
    stored=st.sampled_from([NOW - 10_000, NOW - 100, NOW - 1]),
    left=st.integers(0, 3),
)
odd = st.builds(
    lambda name, parts: frame(name, **parts), names, st.sampled_from([*ODD.values(), *ELSEWHERE])
)
frames = st.lists(
    st.one_of([plain] * 12 + [odd]), max_size=12, unique_by=lambda each: each.split(b" ")[1]
)
ends = st.sampled_from(
    [
        b"HMSG _INBOX.x.token.pull token 28 28\r\nNATS/1.0 404 No Messages\r\n\r\n\r\n",
        b"HMSG _INBOX.x.token.pull token 34 34\r\nNATS/1.0 409 Consumer Deleted\r\n\r\n\r\n",
        b"",
    ]
)
junk = st.binary(max_size=6) | st.sampled_from(
    [b"9" * 5000, b"-1", b"\r\n", b" ", b"00", b"\r\n\r\n", b"\n", SID, ACK]
)
cuts = st.lists(st.integers(0, 5000), max_size=4)
patterns = st.sampled_from([":1:*", ":1:user*", ":1:?", "*"])


def both(pieces: list[bytes], pattern: str, batch: int) -> tuple[object, object]:
    """Return the listing read from many messages at once, and the one read from each."""
    at_once, singly = (
        Listed(at_once=each, pattern=pattern, batch=batch).result(pieces) for each in (True, False)
    )
    return at_once, singly


@pytest.mark.once
@settings(max_examples=500, deadline=None)
@given(frames, ends, cuts, patterns)
def test_any_batch_cut_anywhere_is_listed_alike(
    parts: list[bytes], end: bytes, at: list[int], pattern: str
) -> None:
    # Without a status, the batch ends with as many messages as were asked for.
    batch = 100 if end else max(1, len(parts))
    at_once, singly = both(cut(b"".join(parts) + end, at), pattern, batch)
    assert at_once == singly


@pytest.mark.once
@settings(max_examples=1000, deadline=None)
@given(
    frames,
    ends,
    cuts,
    st.lists(st.tuples(st.integers(0, 5000), st.integers(0, 12), junk), min_size=1, max_size=3),
)
def test_any_mutated_batch_is_listed_alike(
    parts: list[bytes], end: bytes, at: list[int], changes: list[tuple[int, int, bytes]]
) -> None:
    data = b"".join(parts) + end
    for where, length, what in changes:
        start = where % (len(data) + 1)
        data = data[:start] + what + data[start + length :]
    at_once, singly = both(cut(data, at), ":1:*", 100 if end else max(1, len(parts)))
    assert at_once == singly


def read(*parts: bytes, after: int = 0) -> tuple[int, DeliveredReader[Run]]:
    """Let a reader read frames. Return how many it took, and the reader."""
    reader = DeliveredReader(lambda run: run, FILTER, PLACE, after)
    end = reader.read_run(b"".join(parts), 0, b"", SID)
    assert end == len(b"".join(parts[: reader.count]))
    return reader.count, reader


FOUR = [frame(f"=.1.{number}", sequence=number + 1) for number in range(4)]


@pytest.mark.parametrize("header", ["live", "never", "kept", "conditional", "tombstone"])
@pytest.mark.parametrize("ack", [ACK, b"$JS.ACK.hub.AB12." + PLACE])
@pytest.mark.parametrize("end", [b"", b".random"])
def test_all_messages_but_the_last_are_read_at_once(header: str, ack: bytes, end: bytes) -> None:
    parts = [frame(f"=.1.{n}", HEADERS[header], n + 1, ack=ack, end=end) for n in range(50)]
    for rest in (b"", b"HMSG $KV.b.=.1.k", b"PING\r\n", frame(sid=b"other")):
        count, reader = read(*parts, rest)
        assert (count, reader.last) == (49, 49)
        (run,) = reader.decoded
        assert run.subjects == [b"$KV.b.=.1.%d" % number for number in range(49)]
        assert set(map(len, run)) == {49}


@pytest.mark.parametrize("what", ODD)
def test_an_unusual_message_is_left_to_the_parser(what: str) -> None:
    assert read(*[frame(**ODD[what])] * 3, *FOUR)[0] == 0
    assert read(*FOUR, frame(**ODD[what]), *FOUR)[0] in (0, len(FOUR) - 1)


def test_a_subject_with_the_prefix_twice_does_not_stand_in_for_one_without() -> None:
    outside = frame(subject=b"$KV.b.=.2.k")
    for between in string.punctuation:
        twice = frame(subject=f"$KV.b.=.1.a{between}$KV.b.=.1.b".encode())
        assert read(outside, twice, *FOUR)[0] == 0
        assert read(twice, *FOUR)[0] == 4


@pytest.mark.parametrize("change", [(-1, -1), (1, 1), (0, 1), (-1, 0)])
def test_messages_of_which_one_has_other_sizes_are_left_to_the_parser(
    change: tuple[int, int],
) -> None:
    size = int(FOUR[0].partition(b"\r\n")[0].split()[-1])
    other = frame(sizes=b"%d %d" % (size + change[0], size + change[1]))
    assert read(*FOUR, other, *FOUR)[0] in (0, len(FOUR) - 1)
    assert read(other, *FOUR)[0] == 0


def test_messages_are_read_up_to_those_of_another_consumer() -> None:
    other = [frame(sid=b"other", ack=b"$JS.ACK.KV_b.keys-4567.")] * 3
    count, reader = read(*FOUR, *other, *FOUR)
    assert (count, len(reader.decoded)) == (3, 1)
    assert read(*other, *FOUR)[0] == 0


def test_a_batch_with_many_unusual_messages_is_searched_only_a_few_times(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise the time would grow with the square of the size of the batch."""
    looks = []
    frames = delivered._frames

    def looking(length: int) -> object:
        looks.append(length)
        return frames(length)

    monkeypatch.setattr(delivered, "_frames", looking)
    each = Listed(at_once=True)
    each.wired.parser.feed(frame("=.1.a") + frame(subject=b"$KV.b.=.1.\xff") * 90)
    assert len(each.wired.waiter.answers[0]) == 91  # type: ignore[arg-type]
    assert 0 < len(looks) < 20


def test_messages_that_a_lost_consumer_has_delivered_are_left_to_the_parser() -> None:
    assert read(*FOUR, after=0)[0] == 3
    assert read(*FOUR, after=1)[0] == 0
    assert read(*FOUR[1:], after=1)[0] == 2


def test_messages_that_take_much_memory_are_left_to_the_parser() -> None:
    large = "A: " + "x" * 17_000 + "\r\n"
    assert read(*(frame(header=large) for _ in range(4)))[0] == 0
    assert read(*(frame(header=large[:10_000] + "\r\n") for _ in range(4)))[0] == 3


def test_bytes_like_a_message_within_the_last_header_are_not_a_message() -> None:
    header = f"A: b\r\nHMSG $KV.b.=.1.x {SID.decode()} {ACK.decode()}1.2.3.4.5 6 7\r\n"
    assert read(*FOUR, frame(header=header))[0] == 0


def test_a_single_message_and_a_part_of_one_are_left_to_the_parser() -> None:
    assert read(FOUR[0])[0] == 0
    assert read(FOUR[0][:-1])[0] == 0
    assert read(b"MSG a 1 0\r\n\r\n", *FOUR)[0] == 0


def test_a_batch_ends_with_the_number_of_messages_that_was_asked_for() -> None:
    each = Listed(at_once=True, batch=4)
    each.wired.parser.feed(b"".join(FOUR))
    assert each.reader is not None
    assert (each.reader.count, each.wired.waiter.unanswered, each.wired.ended) == (2, 0, [SID])
    assert each.result([]) == (
        [(f":1:{number}", number + 1) for number in range(4)],
        [b"$JS", b"API", b"CONSUMER", b"MSG"],
        [SID],
    )


def test_a_reader_interrupted_anywhere_fails_its_request_alone() -> None:
    at = 0
    while True:
        at += 1
        each = Listed(at_once=True)
        each.wired.table._loop_thread_id = 0  # the parser runs on the thread of a caller
        feed = each.wired.parser.feed
        if not interrupted(lambda: feed(b"".join(FOUR)), at, delivered.__file__):  # noqa: B023
            break
        assert each.wired.parser.interrupted is not None
        assert each.wired.parser.interrupted[0] == SID
        each.wired.table.interrupt(*each.wired.parser.interrupted)
        assert isinstance(each.wired.waiter.answers[0], OutcomeUnknown)
        feed(b"")
        assert (len(each.wired.table), each.wired.parser.held) == (0, 0)
    assert at > 15


def test_a_listing_without_a_wildcard_reads_message_by_message() -> None:
    assert Listed(at_once=True, pattern=":1:k").reader is None
