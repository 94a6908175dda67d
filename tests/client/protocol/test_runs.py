"""Runs of messages that are read at once, on bytes."""

from __future__ import annotations

import pytest

from django_nats.client.protocol.runs import read_acknowledgements

SUBJECTS = [b"_INBOX.x.aa", b"_INBOX.x.bb", b"_INBOX.x.cc"]
BEFORE = b'{"stream":"KV_b", "seq":17}'


def frame(subject: bytes, sequence: bytes, stream: bytes = b"KV_b", sid: bytes = b"1") -> bytes:
    payload = b'{"stream":"%b", "seq":%b}' % (stream, sequence)
    return b"MSG %b %b %d\r\n%b\r\n" % (subject, sid, len(payload), payload)


FIRST, SECOND, THIRD = (
    frame(subject, sequence)
    for subject, sequence in zip(SUBJECTS, (b"18", b"21", b"99"), strict=True)
)


def read(data: bytes, start: int = 0) -> tuple[list[int], int]:
    return read_acknowledgements(data, start, SUBJECTS, b"1", BEFORE, 17)


def test_the_acknowledgements_of_all_subjects_are_read() -> None:
    data = FIRST + SECOND + THIRD
    assert read(data) == ([18, 21, 99], len(data))
    assert read(b"PING\r\n" + data, 6) == ([18, 21, 99], len(data) + 6)


def test_bytes_behind_the_last_subject_are_left() -> None:
    data = FIRST + SECOND + THIRD
    assert read(data + frame(b"_INBOX.x.dd", b"30")) == ([18, 21, 99], len(data))
    assert read_acknowledgements(data, 0, [], b"1", BEFORE, 17) == ([], 0)


@pytest.mark.parametrize(
    "other",
    [
        frame(SUBJECTS[2], b"22"),  # of another request
        frame(SUBJECTS[1], b"22", stream=b"KV_c"),
        frame(SUBJECTS[1], b"22", sid=b"2"),
        frame(SUBJECTS[1], b"220"),
        frame(SUBJECTS[1], b"2"),
        frame(SUBJECTS[1], b"02"),
        frame(SUBJECTS[1], b"-2"),
        frame(SUBJECTS[1], b" 2"),
        frame(SUBJECTS[1], b"2_"),
        frame(SUBJECTS[1], b"\xb2\xb2"),
        frame(SUBJECTS[1], b'22,"duplicate":true'),
        frame(SUBJECTS[1], b"22").replace(b", ", b","),
        frame(SUBJECTS[1], b"22").replace(b" 27\r", b" 28\r"),
        frame(SUBJECTS[1], b"22").replace(b" 1 27", b" 1 r 27"),
        frame(SUBJECTS[1], b"22").replace(b"MSG ", b"MSG  "),
        frame(SUBJECTS[1], b"22").replace(b"}", b"]"),
        frame(SUBJECTS[1], b"22").replace(b"}\r\n", b"}\n\r"),
        b"H" + frame(SUBJECTS[1], b"22"),
        b"PING\r\n" + frame(SUBJECTS[1], b"22"),
        b"\r\n",
        b"",
    ],
)
def test_nothing_is_read_from_the_first_difference_on(other: bytes) -> None:
    assert read(FIRST + other + THIRD) == ([18], len(FIRST))
    assert read(other + SECOND) == ([], 0)


def test_a_frame_that_is_not_complete_is_left() -> None:
    data = FIRST + SECOND
    for size in range(len(data)):
        count = 1 if size >= len(FIRST) else 0
        assert read(data[:size]) == ([18][:count], count * len(FIRST))


def test_digits_are_compared_only_where_the_sequence_is() -> None:
    """The stream's name may have digits, and braces are not escaped."""
    before = b'{"stream":"KV_17}","seq":17}'
    data = frame(SUBJECTS[0], b"18", stream=b"KV_17}").replace(b", ", b",").replace(b"29", b"28")
    assert read_acknowledgements(data, 0, SUBJECTS, b"1", before, 17) == ([18], len(data))
    other = data.replace(b"KV_17", b"KV_18")
    assert read_acknowledgements(other, 0, SUBJECTS, b"1", before, 17) == ([], 0)
