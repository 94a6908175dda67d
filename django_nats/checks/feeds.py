"""The check of NEAR_CACHE: that a process may follow the changes of its bucket."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from django.core.checks import CheckMessage, Warning

from ..cache import NatsCache
from ..client import bridge, wire
from ..client.feed import create_request
from ..client.kv import Bucket
from ..client.steps import Steps
from ..exceptions import NatsError, Unavailable
from .streams import outages_unlogged

_WITHIN = 1.0


def refused(caches: Mapping[str, NatsCache]) -> Iterator[CheckMessage]:
    """W010: feeds can be opened. Makes a consumer, as a feed does, and deletes it."""
    for alias, cache in caches.items():
        near = cache.near
        if near is None:
            continue
        bucket, session = cache._bucket, cache.session
        with outages_unlogged():
            try:
                if bridge.run(session, bucket.info()) is None:
                    continue  # made on first use
            except NatsError:
                continue  # W006
            try:
                bridge.run(session, _try(bucket, near.subjects))
            except NatsError as error:
                where = bucket.config.stream
                yield Warning(
                    f'CACHES["{alias}"] has NEAR_CACHE, but the change feed of the '
                    f"{bucket.config.title} cannot be had, and every read goes to the server: "
                    f"{error}",
                    hint=f"Let it publish to $JS.API.CONSUMER.CREATE.{where}.>, "
                    f"$JS.API.CONSUMER.DELETE.{where}.* and $JS.FC.{where}.>, and leave room for "
                    "a consumer of each process, or take NEAR_CACHE away.",
                    id="django_nats.W010",
                )


def _try(bucket: Bucket, subjects: Sequence[str]) -> Steps[None]:
    """Raises what the server refuses a feed, or its parts, with."""
    where = bucket.config.stream
    name = f"check-{secrets.token_hex(8)}"
    position = {"deliver_policy": "new"}
    create = create_request(bucket, name, f"_INBOX.{name}", subjects, _WITHIN, position)
    wire.parse_api((yield create))
    wire.parse_api((yield bucket.api_request(f"$JS.API.CONSUMER.DELETE.{where}.{name}")))
    with suppress(Unavailable):  # nobody need answer
        yield bucket.api_request(f"$JS.FC.{where}.{name}.{secrets.token_hex(4)}")
