"""Subscriptions of change feeds and notices, on bytes without a server."""

from __future__ import annotations

import re
import threading

import pytest

from django_nats.client.protocol.steps import Follow
from django_nats.client.protocol.wire import Reply
from django_nats.client.transport.subscriptions import Subscriptions
from django_nats.exceptions import LimitReached, NatsError

INBOX = b"_INBOX.x."
MESSAGE = Reply(b"", b"news", b"", b"$KV.b.k")
REFUSAL = LimitReached("maximum subscriptions exceeded")


class Feed:
    """A listener that records what it gets."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self.heard: list[Reply] = []
        self.refused: list[NatsError] = []
        self.sid, subject = subscriptions.listen(self.heard.append, self.refused.append)
        self.subject = subject.decode()


class Notices:
    """Notices that a request follows."""

    def __init__(self, subscriptions: Subscriptions) -> None:
        self.heard: list[Reply] = []
        self.refused: list[NatsError] = []
        self.follow = Follow("the.Notices", self.heard.append, self.refused.append)
        self.frames: list[bytes] = []
        subscriptions.follow(self.follow, self.frames)
        self.sid = self.frames[0].split()[2]


def failing(subscriptions: Subscriptions, error: Exception) -> bytes:
    """Return the id of a subscription whose listener raises an error."""

    def fail(message: Reply) -> None:
        raise error

    return subscriptions.listen(fail, lambda refusal: None)[0]


@pytest.fixture
def ended() -> list[bytes]:
    return []


@pytest.fixture
def subscriptions(ended: list[bytes]) -> Subscriptions:
    made = Subscriptions(
        threading.RLock(), ended.append, lambda error: isinstance(error, InterruptedError)
    )
    made.inbox = INBOX
    return made


def test_each_feed_has_a_subject_that_cannot_be_guessed(subscriptions: Subscriptions) -> None:
    feeds = [Feed(subscriptions) for _ in range(100)]
    assert len({each.sid for each in feeds}) == 100
    for each in feeds:
        assert re.fullmatch(r"_INBOX\.x\.[-_A-Za-z0-9]{12}\.feed", each.subject)


def test_a_message_goes_to_the_listener_of_its_subscription(subscriptions: Subscriptions) -> None:
    one, other, notices = Feed(subscriptions), Feed(subscriptions), Notices(subscriptions)
    subscriptions.notify(one.sid, MESSAGE)
    subscriptions.notify(notices.sid, MESSAGE)
    subscriptions.notify(b"another", MESSAGE)
    assert (one.heard, other.heard, notices.heard) == ([MESSAGE], [], [MESSAGE])


def test_what_has_ended_hears_nothing_and_is_not_refused(subscriptions: Subscriptions) -> None:
    feed = Feed(subscriptions)
    subscriptions.unlisten(feed.sid)
    subscriptions.notify(feed.sid, MESSAGE)
    subscriptions.refuse_unheard(REFUSAL)
    assert not subscriptions.refuse(f'permissions violation for "{feed.subject}"'.lower())
    assert (feed.heard, feed.refused) == ([], [])


def test_notices_are_followed_by_one_subscription(subscriptions: Subscriptions) -> None:
    notices = Notices(subscriptions)
    subscriptions.follow(notices.follow, notices.frames)
    assert notices.frames == [b"SUB the.Notices %b\r\n" % notices.sid]


def test_an_error_of_a_listener_is_logged(
    subscriptions: Subscriptions, caplog: pytest.LogCaptureFixture
) -> None:
    sid = failing(subscriptions, ValueError())
    subscriptions.notify(sid, MESSAGE)
    assert caplog.messages == ["django-nats could not handle a message of a change feed"]


def test_what_a_signals_handler_raises_in_a_listener_is_passed_on(
    subscriptions: Subscriptions, caplog: pytest.LogCaptureFixture
) -> None:
    sid = failing(subscriptions, InterruptedError())
    with pytest.raises(InterruptedError):
        subscriptions.notify(sid, MESSAGE)
    assert caplog.messages == []


def test_a_refused_feed_ends_alone(subscriptions: Subscriptions, ended: list[bytes]) -> None:
    feed, other, notices = Feed(subscriptions), Feed(subscriptions), Notices(subscriptions)
    assert subscriptions.refuse(f'permissions violation for "{feed.subject}"'.lower())
    assert [str(each) for each in feed.refused] == ["No permission to subscribe to _INBOX.x.*.feed"]
    assert (other.refused, notices.refused, ended) == ([], [], [])


def test_refused_notices_end_their_subscription(
    subscriptions: Subscriptions, ended: list[bytes]
) -> None:
    feed, notices = Feed(subscriptions), Notices(subscriptions)
    for _ in range(2):  # the server may say it again
        assert subscriptions.refuse('permissions violation for "the.notices"')
    assert [str(each) for each in notices.refused] == ["No permission to subscribe"]
    assert (feed.refused, ended) == ([], [notices.sid])


def test_a_refusal_of_others_ends_nothing(subscriptions: Subscriptions) -> None:
    feed, notices = Feed(subscriptions), Notices(subscriptions)
    assert not subscriptions.refuse('permissions violation for "_inbox.x.a.feed"')
    assert (feed.refused, notices.refused) == ([], [])


def test_beyond_a_limit_notices_make_room_and_feeds_that_have_begun_go_on(
    subscriptions: Subscriptions,
) -> None:
    begun, new, notices = Feed(subscriptions), Feed(subscriptions), Notices(subscriptions)
    for each in (begun, notices):
        subscriptions.notify(each.sid, MESSAGE)
    subscriptions.refuse_unheard(REFUSAL)
    assert (begun.refused, new.refused, notices.refused) == ([], [REFUSAL], [REFUSAL])
