"""Messages that a consumer delivers: their place in the stream, and checks of unexpected ones."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_nats.client.protocol.wire import Reply
from django_nats.client.streams import scan
from django_nats.exceptions import UnexpectedReply
from tests.support import answers
from tests.support.answers import document

STREAM_AND_CONSUMER = b"KV_b.c."


@pytest.mark.parametrize(
    "reply_to",
    [
        b"$JS.ACK.KV_b.c.1.7.3.1700000000500000000.2",
        b"$JS.ACK.hub.AB12.KV_b.c.1.7.3.1700000000500000000.2",
        b"$JS.ACK.hub.AB12.KV_b.c.1.7.3.1700000000500000000.2.random",
        b"$JS.ACK._.AB12.KV_b.c.1.7.3.1700000000500000000.2.random",
    ],
)
def test_a_reply_subject_gives_sequence_time_and_pending(reply_to: bytes) -> None:
    delivery = scan.delivery_of(Reply(b"", b"", reply_to), STREAM_AND_CONSUMER)
    assert delivery == (7, 3, 1700000000.5, 2)


@pytest.mark.parametrize(
    "reply_to",
    [
        b"",
        b"$JS.ACK",
        b"_INBOX.x.1",
        b"$JS.FC.KV_b.c.1.7.3.1.2",
        b"$JS.ACK.KV_b.c.1.7.3.1",
        b"$JS.ACK.KV_b.c.1.7.3.1.2.3.4.5.6.7",
        b"$JS.ACK.KV_b.c.1.-7.3.1.2",
        b"$JS.ACK.KV_b.c.1.x.3.1.2",
        b"$JS.ACK.KV_b.c.1.7.3.%d.2" % 2**63,
        b"$JS.ACK.KV_b.c.1.%b.3.1.2" % (b"9" * 5000),
        b"$JS.ACK.KV_b.another.1.7.3.1.2",
        b"$JS.ACK.KV_another.c.1.7.3.1.2",
    ],
)
def test_other_reply_subjects_raise_unexpected_reply(reply_to: bytes) -> None:
    with pytest.raises(UnexpectedReply, match=r"consumer KV_b\.c"):
        scan.delivery_of(Reply(b"", b"", reply_to), STREAM_AND_CONSUMER)


def test_a_message_that_does_not_match_the_filter_raises() -> None:
    bucket = answers.opened()
    steps = scan.last_messages(bucket.stream, "$KV.b.=.1.>")
    create = next(steps)
    name = create.subject.rpartition(b".")[2]
    steps.send(document({"num_pending": 2}))
    reply_to = b"$JS.ACK.KV_b.%b.1.7.1.1700000000000000000.1" % name
    with pytest.raises(UnexpectedReply, match=r"asked for \$KV\.b\.=\.1\.>"):
        steps.send([Reply(b"", b"", reply_to, b"$KV.b.=.2.k")])
    assert bucket.stream.server.posted  # the consumer is still deleted


@pytest.mark.parametrize("pending", ["2", -1, True, 2**64, 1.5])
def test_an_invalid_number_of_pending_messages_raises(pending: object) -> None:
    steps = scan.last_messages(answers.opened().stream, "$KV.b.>")
    next(steps)
    with pytest.raises(UnexpectedReply, match="num_pending"):
        steps.send(document({"num_pending": pending}))


def test_the_reply_to_another_listing_raises() -> None:
    steps = scan.last_messages(answers.opened().stream, "$KV.b.>")
    next(steps)
    with pytest.raises(UnexpectedReply, match="a consumer other than keys-"):
        steps.send(document({"name": "keys-another", "num_pending": 0}))


words = st.sampled_from(["a", "b", "$KV", "=.", "a.b", "\n"])
tokens = st.lists(words | st.sampled_from(["*"]), min_size=1, max_size=4)


@given(tokens, st.sampled_from(["", ">"]), st.lists(words, min_size=1, max_size=5))
def test_a_filter_matches_what_the_server_matches(
    head: list[str], tail: str, subject: list[str]
) -> None:
    filtered = ".".join([*head, tail] if tail else head)
    asked, found = filtered.split("."), ".".join(subject).split(".")
    if "" in asked or "" in found:
        return
    rest = found[len(asked) - 1 :] if tail else found[len(asked) :]
    expected = bool(rest) if tail else not rest and len(found) == len(asked)
    for wanted, token in zip(asked[:-1] if tail else asked, found, strict=False):
        expected = expected and wanted in ("*", token)
    expected = expected and len(found) >= len(asked)
    matches = scan.subject_matcher(filtered)
    assert bool(matches(".".join(found).encode())) is expected


def test_a_subject_of_any_bytes_is_matched() -> None:
    for pattern in ("a.>", "a.*", ">", "*.*"):
        assert scan.subject_matcher(pattern)(b"a.\xff")
