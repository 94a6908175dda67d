"""An outage between a cache and its server."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django_nats.cache import NatsCache
from tests.servers import eventually
from tests.support.proxy import Proxy


class Outage:
    """The time in which a cache cannot reach its server, which keeps its values."""

    def __init__(self, proxy: Proxy, make_cache: Callable[..., NatsCache]) -> None:
        self.proxy = proxy
        self._make_cache = make_cache

    def use(self, **options: Any) -> NatsCache:
        """Make a cache that will have the outage."""
        options = {"MAX_RECONNECT_WAIT": 0.1, **options}
        self._cache = self._make_cache(location=self.proxy.url, OPTIONS=options)
        return self._cache

    def begin(self) -> None:
        self.proxy.refusing = True
        self.proxy.cut()
        assert eventually(lambda: not self._cache.session.connected)

    def end(self) -> None:
        self.proxy.refusing = False
        assert eventually(lambda: self._cache.session.connected)
