"""The driver's errors, made fit to be told of."""

from __future__ import annotations

import asyncio

from ..exceptions import NatsError


def without_frames(error: Exception) -> Exception:
    """The error without tracebacks: their frames hold credentials, and Django's debug page
    shows the variables of every frame, those of causes too."""
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def explain(error: BaseException) -> str:
    """What an error says, in a few words; never nothing."""
    if isinstance(error, NatsError):
        return str(error)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "no answer in time"
    return str(error) or type(error).__name__
