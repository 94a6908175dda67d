"""Why there is no connection, and what users should correct if the server refuses the login."""

from __future__ import annotations

from collections.abc import Mapping

from ...exceptions import AuthenticationFailed, DriverMismatch, NatsError, NotSent

_REFUSALS = ("authorization violation", "authentication expired", "authentication revoked")
_OPTIONS = "USER and PASSWORD, TOKEN, NKEY_SEED, CREDENTIALS or CREDENTIALS_CONTENT"


def is_refused(reason: str) -> bool:
    """Return whether there is no connection since the server refuses the login."""
    return any(each in reason.lower() for each in _REFUSALS)


def with_remedy(reason: str, entries: Mapping[str, str]) -> str:
    """Return why there is no connection and, if the login is refused, what to correct.

    ``entries`` are the entries of settings that log in, and what of each holds the credentials.

    >>> with_remedy("Authorization Violation", {'CACHES["default"]': "TOKEN"})
    'Authorization Violation. Correct TOKEN of CACHES["default"].'
    """
    if not is_refused(reason):
        return reason
    by_login: dict[str, list[str]] = {}
    for entry, login in entries.items():
        by_login.setdefault(login, []).append(entry)
    remedies = [
        f"{f'Correct {login}' if login else f'Set {_OPTIONS}'} of {' and '.join(those)}."
        for login, those in by_login.items()
    ]
    return " ".join([f"{reason}.", *remedies])


def no_connection(where: str, reason: str) -> str:
    """Return the message of refusal(): there is no connection to these servers, and why."""
    return f"No connection to NATS at {where}: {reason}"


def refusal(message: str, cause: Exception | None) -> NatsError:
    """Return the error for an operation that needs a connection when there is none."""
    if isinstance(cause, DriverMismatch):
        return DriverMismatch(message)
    error = (AuthenticationFailed if is_refused(message) else NotSent)(message)
    error.__cause__ = cause
    return error
