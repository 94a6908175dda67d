"""A change feed that is reopened when it may have missed a change, or its connection is lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import Any

from ...exceptions import (
    AuthenticationFailed,
    LimitReached,
    NatsError,
    NotSent,
    PermissionDenied,
    Unavailable,
)
from ..kv.bucket import Bucket
from ..protocol.steps import Steps
from ..transport.driver_errors import explain
from ..transport.session import Session
from .feed import CONSUMER_PREFIX, Broken, Feed, Listener

logger = logging.getLogger("django_nats")

WHOLE = "whole"
"""The state of a watcher that cannot have missed a change."""

_RETRY_FIRST_S, _RETRY_MAX_S = 0.05, 0.4
_RETRY_REFUSED_S = 30.0
_NAMES_OF_A_TRY = re.compile(rf"{CONSUMER_PREFIX}[0-9a-f]{{16}}\S*|_INBOX\.\S*")
"""The names of the consumer and of the subject for changes, which differ from try to try."""
_chance = SystemRandom()  # not the random module's state, which is the user's: tests seed it


class Watcher:
    """Keeps a feed open for a listener, from start() to stop()."""

    def __init__(
        self,
        session: Session,
        bucket: Bucket,
        drive: Callable[[Session, Steps[Any]], Awaitable[Any]],
        filters: Sequence[str],
        listener: Listener,
        within: float = 1.0,
    ) -> None:
        """Make a watcher that is not started.

        ``within`` is in seconds: a feed that cannot prove itself current for so long is reopened.
        """
        self._session = session
        self._bucket = bucket
        self._drive = drive
        self._filters = filters
        self._listener = listener
        self._within = within
        self._reset()

    def _reset(self) -> None:
        self.state = "not started"
        """WHOLE while no change can have been missed, otherwise a text that says why not."""
        self.started = False
        """Whether the watcher keeps a feed open, or tries to."""
        self._refused = ""
        """Why the server refuses the feed, without the names of one try; empty if it does not."""
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        """Show the subjects, and the state."""
        return f"<Watcher {', '.join(self._filters)}: {self.state}>"

    # For every thread ------------------------------------------------------------------------

    @property
    def lag(self) -> float:
        """Return the seconds from the time the last change was stored until it arrived."""
        feed = self._feed
        return 0.0 if feed is None else feed.lag

    def start(self) -> None:
        """Open the feed in the background, unless it is started.

        Raise NotSent if the background loop cannot be started.
        """
        if self.started:
            return
        self.started = True
        try:
            self._session.call(self._begin)
        except BaseException:
            self.started = False
            raise

    def stop(self, then: Callable[[], object] = lambda: None) -> None:
        """Close the feed in the background, and then call a function on the loop's thread.

        If that thread does not run, call the function at once.
        """
        if not self._session.call_if_running(partial(self._end, then)):
            then()

    def forget(self) -> None:
        """Return to the state before start(), as the loop has ended. Inform the listener."""
        self._reset()
        self._listener.ended(NotSent("The connection has been closed"))

    def after_fork(self) -> None:
        """Return to the state before start() in a forked child: the loop is the parent's."""
        _inherited.append((self._task, self._feed))
        self.forget()

    # On the loop -----------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._task is not None:
            return  # two threads have started it at once
        self.started = True  # a close() may have reset it meanwhile
        self._task = asyncio.get_running_loop().create_task(self._keep())
        # By a callback, since a task that is cancelled before it has begun runs no code at all.
        self._task.add_done_callback(self._ended)

    def _end(self, then: Callable[[], object]) -> None:
        if self._task is None:
            then()
        else:
            self._task.add_done_callback(lambda task: then())
            self._task.cancel()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._reset()
        if task.cancelled():
            return  # it was stopped, or its loop is ending
        error = task.exception()
        text = (
            f"The change feed of the {self._bucket.config.title} has ended by an unexpected error"
        )
        log = partial(logger.error, "%s", text, exc_info=error)
        asyncio.get_running_loop().run_in_executor(None, log)  # as in _log
        ended = NotSent(text)
        ended.__cause__ = error
        self._listener.ended(ended)

    async def _keep(self) -> None:
        pause = _RETRY_FIRST_S
        while True:
            try:
                async with self._opened() as feed:
                    if self._refused:
                        await self._log("is available again")
                    self._refused, pause, self.state = "", _RETRY_FIRST_S, WHOLE
                    await feed.follow()
            except (PermissionDenied, LimitReached) as error:
                pause = await self._refuse(error)
            except (Broken, Unavailable) as error:
                pause, self.state = min(pause, _RETRY_MAX_S), explain(error)
                if isinstance(error, AuthenticationFailed):  # the session logs it
                    self._listener.refused(error)
            except NatsError as error:
                pause = await self._refuse(error)
            await asyncio.sleep(_chance.uniform(pause / 2, pause))
            pause = min(pause * 2, max(pause, _RETRY_MAX_S))

    async def _refuse(self, error: NatsError) -> float:
        """Inform the listener, log a new reason, and return the next pause."""
        self.state = explain(error)
        self._listener.refused(error)
        reason = _NAMES_OF_A_TRY.sub("", self.state)
        if self._refused != reason:
            self._refused = reason
            await self._log(f"is unavailable: {self.state}")
            if isinstance(error, LimitReached) and not error.err_code:
                return _RETRY_MAX_S  # the connection ends a subscription that it can do without
        return _RETRY_REFUSED_S

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Feed]:
        await self._drive(self._session, self._bucket.stream.opening.ready())
        connection = self._session.connection
        if connection is None:
            raise NotSent("The connection was lost")
        drive = partial(self._drive, self._session)
        feed = Feed(connection, self._bucket, self._filters, self._listener, self._within, drive)
        try:
            await self._drive(self._session, feed.open())
            if self._session.connection is not connection:
                raise NotSent("The connection was lost")
            self._feed = feed
            yield feed
        finally:
            feed.close()

    async def _log(self, what: str) -> None:
        # On another thread, as a log handler may use the cache and so wait for this one.
        text = f"The change feed of the {self._bucket.config.title} {what}"
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, logger.warning, "%s", text)


# Objects of the parent, kept in a forked child, as in transport/loop.py.
_inherited: list[object] = []
