"""Buckets that have no room for a value: which limit refused it, what to do, and one log line."""

from __future__ import annotations

import logging
import math

from ...exceptions import BucketFull, NatsError, PermissionDenied, ServerError
from ...realtime import monotonic
from ..protocol import server_errors
from ..streams.refusals import Refusals
from .config import BucketConfig

logger = logging.getLogger("django_nats")

_QUIET_S = 10.0
"""A bucket that was full counts as one with room after this time without a refusal."""
_STREAM_LIMITS = ("maximum messages exceeded", "maximum bytes exceeded")
"""What the server says of a bucket that is full. Only these are mended by EVICT."""
REFUSALS = (BucketFull, PermissionDenied)
"""Refusals of single values, which Fullness logs."""


class Fullness:
    """Whether a bucket refuses values at the moment, which is logged once when it begins and ends.

    FAIL_OPEN may hide all the errors, so the log is the only place to notice.
    """

    def __init__(self, config: BucketConfig) -> None:
        self._config = config
        self.is_full = False
        self._said_kept = False
        self._refused = 0.0
        """When a value was last refused, by the monotonic clock."""
        self._warned = -math.inf
        """When a delete that was not permitted was last logged, by the monotonic clock."""

    def error(self, key: str, refusal: ServerError) -> ServerError:
        """Return the error to raise for a key whose value was refused, and log the first one."""
        reason = advice(self._config, refusal) if isinstance(refusal, BucketFull) else str(refusal)
        self._note(reason)
        return server_errors.reworded(refusal, f"{key!r} was not stored: {reason}")

    def creation_error(self, refusal: ServerError) -> ServerError:
        """Return the error to raise when the server refuses to create the bucket."""
        if not isinstance(refusal, BucketFull):
            return Refusals(self._config).creation(refusal)
        reason = f"{self._config.title} cannot be created: {advice(self._config, refusal)}"
        self._note(f"the {reason}")
        return server_errors.reworded(refusal, f"The {reason}")

    def note_stored(self) -> None:
        """Log that a value has been stored, where others were refused before.

        Not soon after a refusal: where room is short, small values are stored between large ones.
        """
        if monotonic() - self._refused >= _QUIET_S:
            self.is_full = self._said_kept = False
            logger.warning("The bucket %s takes values again", self._config.name)

    def note_kept(self, refusal: NatsError) -> None:
        """Log the first refusal after which the old value could not be deleted either."""
        if not self._said_kept:
            self._said_kept = True
            logger.warning("%s", refusal)

    def deletion_error(self, key: str, error: NatsError, *, is_purged: bool) -> NatsError:
        """Return the error to raise for a key that was not deleted, or was so without a tombstone.

        Log a missing permission, at most once in 10 seconds.
        """
        denied = isinstance(error, PermissionDenied)
        if not isinstance(error, ServerError) or not (denied or is_purged):
            return error
        what = f"was not deleted, and may still be readable: {error}"
        if is_purged:
            what = f"was deleted. {unannounced(error)}"
        error = server_errors.reworded(error, f"{key!r} {what}")
        if denied and monotonic() - self._warned >= _QUIET_S:
            self._warned = monotonic()
            # Without the key, which may be a secret, such as a session's.
            logger.warning("A key of the bucket %s %s", self._config.name, what)
        return error

    def _note(self, reason: str) -> None:
        self._refused = monotonic()
        if not self.is_full:
            self.is_full = True
            logger.warning("Values are not stored: %s", reason)


def unannounced(error: NatsError) -> str:
    """Return a sentence about a key that was purged without a tombstone."""
    return (
        "Its old value may still be readable in the near caches of other processes, since its "
        f"deletion could not be announced: {error}"
    )


def advice(config: BucketConfig, error: BucketFull) -> str:
    """Return a sentence that names what is full, and one that says what to do."""
    code = error.err_code
    if code == server_errors.STORE_FAILED and any(each in str(error) for each in _STREAM_LIMITS):
        if config.evict:
            return (
                f"the bucket {config.name} is full, and was made without EVICT, which settings "
                f"ask for. Run `manage.py nats setup`."
            )
        return (
            f"the bucket {config.name} is full and does not evict. Raise MAX_BYTES or MAX_ENTRIES, "
            f"or set EVICT to True."
        )
    if code == server_errors.STORE_FAILED:
        return f"the server could not store it. See its log and its disk. ({error})"
    in_memory = config.storage == "memory"
    storage = "memory" if in_memory else "file"
    if code in (server_errors.MEMORY_RESERVED, server_errors.STORAGE_RESERVED):
        limits = ("max_mem", "max_memory_store") if in_memory else ("max_file", "max_file_store")
        elsewhere = 'set STORAGE to "file", ' if in_memory else ""
        return (
            f"the account or the NATS server has not enough JetStream {storage} storage left to "
            f"reserve MAX_BYTES for the bucket {config.name} ({code}). Lower MAX_BYTES, "
            f"{elsewhere}or raise the limit ({limits[0]} of the account, {limits[1]} of the "
            "server)."
        )
    if code == server_errors.ACCOUNT_FULL:
        whose = "the account"
        limit = "max_mem" if in_memory else "max_file"
    else:
        whose = "the NATS server"
        limit = "max_memory_store" if in_memory else "max_file_store"
    return (
        f"{whose} has no JetStream {storage} storage left ({code}). Raise its limit ({limit}), "
        f"{_own_limit(config)}"
    )


def _own_limit(config: BucketConfig) -> str:
    """Return what the settings can do about a limit that is not the bucket's own."""
    if config.max_bytes is not None:
        return f"or lower MAX_BYTES of the bucket {config.name} and of others that share it."
    return f"or set MAX_BYTES in OPTIONS, so that the bucket {config.name} evicts before that."
