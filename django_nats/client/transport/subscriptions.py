"""The subscriptions of one connection that are not for replies: change feeds, and notices."""

from __future__ import annotations

import logging
import os
from base64 import urlsafe_b64encode
from collections.abc import Callable
from contextlib import AbstractContextManager

from ...exceptions import NatsError, PermissionDenied
from ..protocol.steps import Follow
from ..protocol.wire import Reply

logger = logging.getLogger("django_nats")

_ID_BYTES = 9
"""Random bytes of a subscription's id, which make 12 characters."""
_LOST_MESSAGE = Reply(b"", b"", b"", b"")
"""What a listener gets in place of a message that could not be kept.

It has no subject, which ends a change feed.
"""


class Subscriptions:
    """The listeners of subscriptions, and what to call if the server refuses one of them.

    A subscription is begun by listen(), or by a request that needs it (Follow). The lock is that
    of the connection's requests. It is held while a listener is called.
    """

    def __init__(
        self,
        lock: AbstractContextManager[object],
        unsubscribe: Callable[[bytes], None],
        is_interruption: Callable[[BaseException], bool],
    ) -> None:
        """Make it empty.

        ``unsubscribe`` gets the id of a subscription that is over. ``is_interruption`` returns
        True if a signal's handler has raised an error.
        """
        self._lock = lock
        self._unsubscribe = unsubscribe
        self._is_interruption = is_interruption
        self.inbox = b""
        """Prefix of the subjects of change feeds. Empty before the connection is open."""
        self._listeners: dict[bytes, Callable[[Reply], None]] = {}
        self._on_refusal: dict[bytes, Callable[[NatsError], object]] = {}
        """What to call if the server refuses the subscription of a listener."""
        self._followed: dict[Follow, bytes] = {}
        """The ids of subscriptions that a request has begun."""
        self._unheard: set[bytes] = set()
        """Subscriptions on which nothing has arrived yet, so that the server may refuse them."""

    def listen(
        self, listener: Callable[[Reply], None], on_refusal: Callable[[NatsError], object]
    ) -> tuple[bytes, bytes]:
        """Register a function for all messages on a new subject, and one for its refusal.

        Both are called under the lock, the first on any thread. Return the subscription's id and
        the subject, to which the caller subscribes.
        """
        with self._lock:
            sid = self._add(listener, on_refusal)
        return sid, self._feed_subject(sid)

    def unlisten(self, sid: bytes) -> None:
        """Remove the functions that listen() has registered."""
        with self._lock:
            self._listeners.pop(sid, None)
            self._on_refusal.pop(sid, None)
            self._unheard.discard(sid)

    def follow(self, follow: Follow, frames: list[bytes]) -> None:
        """Add a subscription that a request needs, unless the connection has it.

        The caller holds the lock, and sends ``frames``.
        """
        if follow in self._followed:
            return

        def end(error: NatsError) -> None:
            self.unlisten(sid)
            self._unsubscribe(sid)
            follow.refused(error)

        self._followed[follow] = sid = self._add(follow.heard, end)
        frames.append(b"SUB %b %b\r\n" % (follow.subject.encode(), sid))

    def _add(
        self, listener: Callable[[Reply], None], on_refusal: Callable[[NatsError], object]
    ) -> bytes:
        # It is a part of the subject of a feed, which must not be guessed.
        sid = urlsafe_b64encode(os.urandom(_ID_BYTES))
        self._listeners[sid], self._on_refusal[sid] = listener, on_refusal
        self._unheard.add(sid)
        return sid

    def _feed_subject(self, sid: bytes) -> bytes:
        return b"%b%b.feed" % (self.inbox, sid)

    def notify(self, sid: bytes, message: Reply) -> None:
        """Pass a message to the listener of a subscription, if there is one.

        Raise only what a signal's handler raised. An error in the code is logged. The caller holds
        the lock.
        """
        listener = self._listeners.get(sid)
        if listener is not None:
            self._unheard.discard(sid)
            try:
                listener(message)
            except Exception as error:
                if self._is_interruption(error):
                    raise
                logger.exception("django-nats could not handle a message of a change feed")

    def notify_of_loss(self, sid: bytes) -> None:
        """Let the listener of a subscription, if there is one, know that a message was lost."""
        self.notify(sid, _LOST_MESSAGE)

    def refuse(self, message: str) -> bool:
        """End the subscriptions that the server has refused for lack of permission.

        ``message`` is the server's error in lower case, which names the subject. Return False if
        that is no subject of these subscriptions.
        """
        with self._lock:
            followed = [
                sid
                for each, sid in self._followed.items()
                if f'"{each.subject.lower()}"' in message
            ]
            for sid in followed:
                if sid in self._on_refusal:
                    self._on_refusal[sid](PermissionDenied("No permission to subscribe"))
            feeds = [
                on_refusal
                for sid, on_refusal in self._on_refusal.items()
                if f'"{self._feed_subject(sid).decode().lower()}"' in message
            ]
            for on_refusal in feeds:
                inbox = self.inbox.decode()
                on_refusal(PermissionDenied(f"No permission to subscribe to {inbox}*.feed"))
            return bool(followed or feeds)

    def refuse_unheard(self, error: NatsError) -> None:
        """End the subscriptions of which the server may have refused one, and does not say which.

        These are the ones on which nothing has arrived yet. Those of Follow make room for the
        others, which need theirs.
        """
        with self._lock:
            self._unheard.update(set(self._followed.values()) & self._on_refusal.keys())
            for sid in list(self._unheard):
                if sid in self._on_refusal:
                    self._on_refusal[sid](error)
