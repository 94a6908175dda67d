"""The driver's errors, made safe to keep and short enough to show."""

from __future__ import annotations

import asyncio
import re

from ...exceptions import NatsError
from ...printable import printable

_KEY = re.compile(r'(\$KV\.[^.\s"]+\.)[^>\s"][^\s"]*', re.IGNORECASE)


class Interrupted(ConnectionAbortedError):
    """A signal's handler raised while a caller held received bytes that cannot be recovered."""


def without_frames(error: Exception) -> Exception:
    """Remove the tracebacks from an error and its causes, and return it.

    The frames hold credentials, and Django's debug page shows the variables of every frame.
    """
    each: BaseException | None = error
    while each is not None:
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error


def explain(error: BaseException) -> str:
    """Return what an error says, in a few words, and its class's name if it says nothing."""
    if isinstance(error, NatsError):
        return str(error)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError)):
        return "no answer in time"
    return printable(str(error)) or type(error).__name__


def without_key(text: str) -> str:
    """Return a text in which subjects end after the name of the bucket: a key may be a secret."""
    return _KEY.sub(r"\1…", text)
