"""What operations do about values that could not be stored."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ..client.kv.bucket import Bucket
from ..client.protocol.server_errors import is_single
from ..client.protocol.steps import Steps
from ..exceptions import NatsError, PermissionDenied, Unavailable, WrongRevision
from .core import logger


def raise_unavailable(failed: Mapping[str, NatsError]) -> None:
    """Raise the first error that says that the server is away, if there is one.

    An operation on many keys reports the keys that failed. A server that is away has failed for all
    of them, which is an error of the operation. Permissions may differ from key to key, and a
    server that has too much to do may refuse some keys and store others.
    """
    for error in failed.values():
        of_one_key = isinstance(error, PermissionDenied) or is_single(error)
        if isinstance(error, Unavailable) and not of_one_key:
            raise error


def raise_failure(failed: Mapping[str, NatsError]) -> None:
    """Raise the first error, if there is one that does not say that the key has changed."""
    for error in failed.values():
        if not isinstance(error, WrongRevision):
            raise error


def discard_unstored(
    bucket: Bucket, alias: str, made_keys: Collection[str], error: Exception
) -> Steps[None]:
    """Delete keys whose new values the serializer or the compressor refused with an error.

    Their old values are as outdated as after a refusal by the server. A ``cached_db`` session would
    go on with the old value: Django logs the error, and only the database has the new one.
    """
    failed: Mapping[str, NatsError]
    try:
        failed = yield from bucket.delete_many(made_keys)
    except NatsError as failure:
        failed = dict.fromkeys(made_keys, failure)
    for made_key, reason in failed.items():
        logger.warning(
            "Cache %r: the value of %r was not stored (%s), and the old one may still be "
            "readable: %s",
            alias,
            made_key,
            type(error).__name__,
            reason,
        )
