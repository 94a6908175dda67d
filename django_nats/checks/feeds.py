"""The system check of NEAR_CACHE, which needs a change feed of the bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from django.core.checks import CheckMessage, Warning

from ..cache import NatsCache
from ..client import drivers
from ..client.feed.feed import create_request
from ..client.kv.bucket import Bucket
from ..client.protocol import wire
from ..client.protocol.steps import Steps
from ..exceptions import NatsError, NotSent, OutcomeUnknown
from .streams import outages_unlogged

_MAX_SILENCE_S = 1.0


def check_feeds(caches: Mapping[str, NatsCache]) -> Iterator[CheckMessage]:
    """Yield W010 if the server refuses a change feed.

    Creates a consumer, as a feed does, and deletes it.
    """
    for alias, cache in caches.items():
        near = cache.near
        if near is None:
            continue
        bucket, session = cache.bucket, cache.session
        with outages_unlogged():
            try:
                if drivers.run(session, bucket.stream.opening.info()) is None:
                    continue  # the first use creates it
            except NatsError:
                continue  # reported as W006
            try:
                drivers.run(session, _open_and_close(bucket, near.subjects))
            except NatsError as error:
                stream, api = bucket.config.stream, bucket.stream.api
                yield Warning(
                    f'CACHES["{alias}"] has NEAR_CACHE, but the change feed of the '
                    f"{bucket.config.title} cannot be opened, so every read goes to the server: "
                    f"{error}",
                    hint=f"Allow the user to publish to {api.create_consumer('>')}, "
                    f"{api.delete_consumer('*')} and $JS.FC.{stream}.>, and allow a "
                    "consumer for each process, or remove NEAR_CACHE.",
                    id="django_nats.W010",
                )


def _open_and_close(bucket: Bucket, subjects: Sequence[str]) -> Steps[None]:
    """Send the requests of a feed. Raises the server's error if it refuses one."""
    stream = bucket.config.stream
    name = f"check-{secrets.token_hex(8)}"
    position = {"deliver_policy": "new"}
    create = create_request(bucket, name, f"_INBOX.{name}", subjects, _MAX_SILENCE_S, position)
    wire.parse_api((yield create))
    wire.parse_api((yield bucket.stream.api_request(bucket.stream.api.delete_consumer(name))))
    with suppress(NotSent, OutcomeUnknown):  # it gets no answer, unless it is refused
        yield bucket.stream.api_request(f"$JS.FC.{stream}.{name}.{secrets.token_hex(4)}")
