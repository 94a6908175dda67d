"""The cache that Django's tests use instead of the local-memory cache."""

from __future__ import annotations

import re
from typing import Any

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer


def in_place_of_locmem(server: NatsServer, options: dict[str, Any]) -> type[NatsCache]:
    """Return a NatsCache that has a bucket for each location, as LocMemCache has a dictionary."""

    class InPlaceOfLocMem(NatsCache):
        def __init__(self, location: str, params: dict[str, Any]) -> None:
            bucket = "locmem_" + re.sub(r"\W", "_", location)
            own = {"TOKEN": server.token, "BUCKET": bucket, **options}
            super().__init__(server.url, {**params, "OPTIONS": own})

    return InPlaceOfLocMem
