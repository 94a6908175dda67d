"""The two shells of an operation: a method that blocks, and one that is awaited."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from ..exceptions import BucketFull, Unavailable
from . import bridge
from .session import Session
from .steps import Steps

P = ParamSpec("P")
T = TypeVar("T")

AWAY = (Unavailable, BucketFull)
"""What FAIL_OPEN covers: a server that cannot be asked, and a bucket that takes nothing more."""


UNKNOWN: Any = object()
"""Only the server can tell."""


class Host(Protocol):
    """What an object with operations has."""

    @property
    def fail_open(self) -> bool: ...

    @property
    def session(self) -> Session: ...


H = TypeVar("H", bound=Host)


def twins(
    steps: Callable[Concatenate[H, P], Steps[T]],
    away: Callable[P, Any] | None = None,
    at_once: Callable[Concatenate[H, P], T] | None = None,
) -> tuple[Callable[Concatenate[H, P], T], Callable[Concatenate[H, P], Coroutine[Any, Any, T]]]:
    """The sync and the async method of an operation.

    ``away`` makes what both return under fail_open when the server is away, from the same
    arguments; without it the steps themselves see to that. ``at_once`` answers where no server
    need be asked, or else UNKNOWN, and then the steps are taken.
    """

    @functools.wraps(steps)
    def sync_shell(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if at_once is not None:
            found = at_once(self, *args, **kwargs)
            if found is not UNKNOWN:
                return found
        try:
            return bridge.run(self.session, steps(self, *args, **kwargs))
        except AWAY:
            if away is None or not self.fail_open:
                raise
            return away(*args, **kwargs)  # type: ignore[no-any-return]

    @functools.wraps(steps)
    async def async_shell(self: H, /, *args: P.args, **kwargs: P.kwargs) -> T:
        if at_once is not None:
            found = at_once(self, *args, **kwargs)
            if found is not UNKNOWN:
                return found
        try:
            return await bridge.arun(self.session, steps(self, *args, **kwargs))
        except AWAY:
            if away is None or not self.fail_open:
                raise
            return away(*args, **kwargs)  # type: ignore[no-any-return]

    return _named(sync_shell, ""), _named(async_shell, "a")


def iterator_twins(
    steps: Callable[Concatenate[H, P], Steps[None]],
) -> tuple[
    Callable[Concatenate[H, P], Iterator[Any]], Callable[Concatenate[H, P], AsyncIterator[Any]]
]:
    """The sync and the async iterator of an operation that yields items."""

    @functools.wraps(steps)
    def sync_shell(self: H, /, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        try:
            yield from bridge.iterate(self.session, steps(self, *args, **kwargs))
        except AWAY:
            if not self.fail_open:
                raise

    @functools.wraps(steps)
    async def async_shell(self: H, /, *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Any]:
        try:
            async for item in bridge.aiterate(self.session, steps(self, *args, **kwargs)):
                yield item
        except AWAY:
            if not self.fail_open:
                raise

    return _named(sync_shell, ""), _named(async_shell, "a")


F = TypeVar("F", bound=Callable[..., Any])


def _named(shell: F, prefix: str) -> F:
    operation = shell.__name__.lstrip("_")
    shell.__qualname__ = shell.__qualname__.replace(shell.__name__, prefix + operation)
    shell.__name__ = prefix + operation
    # What help() and editors show: the operation's own parameters, and what it returns in the end.
    signature = inspect.signature(shell)
    returns = re.sub(r"^Steps\[(.*)\]$", r"\1", str(signature.return_annotation))
    if inspect.isgeneratorfunction(shell):
        returns = "Iterator[Any]"
    elif inspect.isasyncgenfunction(shell):
        returns = "AsyncIterator[Any]"
    signature = signature.replace(return_annotation=returns)
    shell.__signature__ = signature  # type: ignore[attr-defined]
    shell.__annotations__ = {**shell.__annotations__, "return": returns}
    del shell.__wrapped__  # type: ignore[attr-defined]  # tools would show the generator
    return shell
