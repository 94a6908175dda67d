"""The methods by which every public operation runs its steps, and applies FAIL_OPEN.

A public operation is two methods over one generator of steps: one passes it to ``_run``, its
async version to ``_arun``. An operation that yields items uses ``_iterate`` and ``_aiterate``.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

from ..exceptions import BucketFull, NatsError, Unavailable, UnexpectedReply
from ..realtime import monotonic
from . import drivers
from .protocol.server_errors import is_single
from .protocol.steps import ItemSteps, Steps

if TYPE_CHECKING:
    from .transport.session import Session

logger = logging.getLogger("django_nats")

T = TypeVar("T")

AWAY = (Unavailable, BucketFull)
"""The errors that FAIL_OPEN hides: the server is unavailable, or has no room for a value."""

UNKNOWN: Any = object()
"""What a lookup in this process returns if only the server has the answer."""

_NOTHING: Any = object()
"""No result is given for the time when the server is away, so that its absence is an error."""
_QUIET_S = 10.0
"""How long no further warning of one request follows the last one."""
_last_warning = -_QUIET_S


def note_hidden(error: NatsError) -> None:
    """Log an error of one request that FAIL_OPEN is about to hide, at most once in 10 seconds.

    It is an unexpected reply, or a refusal by a stream that serves other requests. All other
    failures that FAIL_OPEN hides are logged where they are noticed.
    """
    global _last_warning
    if monotonic() - _last_warning < _QUIET_S:
        return
    for each in (error, error.__cause__):
        if isinstance(each, UnexpectedReply):
            what = "Unexpected reply"
        elif isinstance(each, NatsError) and is_single(each):
            what = "Refused"
        else:
            continue
        _last_warning = monotonic()
        logger.warning("%s; going on without it (FAIL_OPEN): %s", what, each)
        return


class Operations:
    """Base of the classes with public operations, which the caller may run by either driver."""

    __slots__ = ()

    if TYPE_CHECKING:

        @property
        def fail_open(self) -> bool:
            """Whether operations return a result, not raise, when the server is away."""

        @property
        def session(self) -> Session:
            """The session on which operations run."""

    def _run(
        self,
        steps: Steps[T],
        *,
        away: Any = _NOTHING,
        make_away: Callable[[], Any] | None = None,
    ) -> T:
        """Block until the steps end, and return their result.

        Under FAIL_OPEN, when the server is away, return ``away`` or what ``make_away`` returns.
        Without either, raise: the steps themselves handle FAIL_OPEN then.
        """
        try:
            return drivers.run(self.session, steps)
        except AWAY as error:
            return self._result_away(error, away, make_away)  # type: ignore[no-any-return]

    async def _arun(
        self,
        steps: Steps[T],
        *,
        away: Any = _NOTHING,
        make_away: Callable[[], Any] | None = None,
    ) -> T:
        """Async version of _run()."""
        try:
            return await drivers.arun(self.session, steps)
        except AWAY as error:
            return self._result_away(error, away, make_away)  # type: ignore[no-any-return]

    def _iterate(self, steps: ItemSteps[Iterable[T]]) -> Iterator[T]:
        """Yield what is in the steps' items. Under FAIL_OPEN, end when the server is away."""
        try:
            with closing(drivers.iterate(self.session, steps)) as batches:
                for batch in batches:
                    yield from batch
        except AWAY as error:
            self._result_away(error, None, None)

    async def _aiterate(self, steps: ItemSteps[Iterable[T]]) -> AsyncIterator[T]:
        """Async version of _iterate()."""
        try:
            async for batch in drivers.aiterate(self.session, steps):
                for each in batch:
                    yield each
        except AWAY as error:
            self._result_away(error, None, None)

    def _result_away(self, error: NatsError, away: Any, make_away: Callable[[], Any] | None) -> Any:
        if not self.fail_open or (away is _NOTHING and make_away is None):
            raise error
        note_hidden(error)
        return away if make_away is None else make_away()
