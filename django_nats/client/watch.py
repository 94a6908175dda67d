"""A change feed that is made anew whenever it may have missed something, or its connection went."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from random import SystemRandom
from typing import Any

from ..exceptions import AuthenticationFailed, NatsError, NotSent, Unavailable
from .faults import explain
from .feed import Broken, Feed, Listener
from .kv import Bucket
from .session import Session
from .steps import Steps

logger = logging.getLogger("django_nats")

WHOLE = "whole"

_RETRY_FIRST, _RETRY_MOST = 0.05, 0.4
_RETRY_REFUSED = 30.0
_chance = SystemRandom()  # the random module's state is the user's


class Watcher:
    """Keeps one feed open for a listener, from its start until it is stopped."""

    def __init__(
        self,
        session: Session,
        bucket: Bucket,
        drive: Callable[[Session, Steps[Any]], Awaitable[Any]],
        filters: Sequence[str],
        listener: Listener,
        within: float = 1.0,
    ) -> None:
        """``within``: seconds after which a feed that cannot prove itself current is broken."""
        self._session = session
        self._bucket = bucket
        self._drive = drive
        self._filters = filters
        self._listener = listener
        self._within = within
        self._reset()

    def _reset(self) -> None:
        self.state = "not started"
        """In words: "whole" while nothing can have been missed, otherwise what is the matter."""
        self.started = False
        """Whether the feed is open, or being opened."""
        self._feed: Feed | None = None
        self._task: asyncio.Task[None] | None = None

    def __repr__(self) -> str:
        return f"<Watcher {', '.join(self._filters)}: {self.state}>"

    # For every thread ------------------------------------------------------------------------

    @property
    def lag(self) -> float:
        """Seconds between the last change that was told of and its arrival."""
        feed = self._feed
        return 0.0 if feed is None else feed.lag

    def start(self) -> None:
        """Open the feed in the background, unless that has been done. Raises NotSent."""
        if self.started:
            return
        self.started = True
        try:
            self._session.call(self._begin)
        except BaseException:
            self.started = False
            raise

    def stop(self, then: Callable[[], object] = lambda: None) -> None:
        """End it, in the background, and call a function on the loop's thread when it has ended;
        at once when there is no such thread."""
        if not self._session.call_if_running(partial(self._end, then)):
            then()

    def forget(self) -> None:
        """Its loop is no more: not started, which the listener is told."""
        self._reset()
        self._listener.ended(NotSent("The connection has been closed"))

    def after_fork(self) -> None:
        """In a forked child: the loop is the parent's."""
        _inherited.append((self._task, self._feed))
        self.forget()

    # On the loop -----------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._task is not None:
            return  # two threads have started it at once
        self.started = True  # a close() has said otherwise, meanwhile
        self._task = asyncio.get_running_loop().create_task(self._keep())
        # Not in the task itself: cancelled before it has begun, it never gets there.
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
            return  # stopped, or about to be forgotten with the loop
        error = task.exception()
        text = f"The change feed of the {self._bucket.config.title} has ended by a mistake"
        log = partial(logger.error, "%s", text, exc_info=error)
        asyncio.get_running_loop().run_in_executor(None, log)  # as in _log
        ended = NotSent(text)
        ended.__cause__ = error
        self._listener.ended(ended)

    async def _keep(self) -> None:
        refused = ""
        pause = _RETRY_FIRST
        while True:
            try:
                async with self._opened() as feed:
                    if refused:
                        await self._log("can be opened now")
                    refused, pause, self.state = "", _RETRY_FIRST, WHOLE
                    await feed.follow()
            except (Broken, Unavailable) as error:
                pause, self.state = min(pause, _RETRY_MOST), explain(error)
                if isinstance(error, AuthenticationFailed):  # which the session logs
                    self._listener.refused(error)
            except NatsError as error:
                pause, self.state = _RETRY_REFUSED, explain(error)
                self._listener.refused(error)
                if refused != self.state:
                    refused = self.state
                    await self._log(f"cannot be opened, and is done without: {refused}")
            await asyncio.sleep(_chance.uniform(pause / 2, pause))
            pause = min(pause * 2, max(pause, _RETRY_MOST))

    @contextlib.asynccontextmanager
    async def _opened(self) -> AsyncIterator[Feed]:
        await self._drive(self._session, self._bucket.ready())
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
        # A handler of the log may use the cache, which waits for this thread: not on it, then.
        text = f"The change feed of the {self._bucket.config.title} {what}"
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, logger.warning, "%s", text)


_inherited: list[object] = []
