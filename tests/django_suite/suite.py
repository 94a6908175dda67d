"""Django's own tests of caches, middleware and template fragments, on NATS.

The module can be imported only if Django's tests directory is on sys.path and the settings are
configured. ``python -m tests.django_suite`` does both.
"""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import Any
from unittest import mock

from asgiref.sync import async_to_sync
from cache import tests as caching
from django.conf import settings
from django.test import TestCase, override_settings
from template_tests.syntax_tests import test_cache as fragments

from .excusing import skip_excused


class AsyncTwins:
    """A cache, or the mapping of all caches, whose methods call the async versions."""

    def __init__(self, wrapped: Any) -> None:
        self.__dict__["wrapped"] = wrapped

    def __getitem__(self, alias: str) -> AsyncTwins:
        return AsyncTwins(self.wrapped[alias])

    def __getattr__(self, name: str) -> Any:
        twin = getattr(self.wrapped, f"a{name}", None)
        return async_to_sync(twin) if twin else getattr(self.wrapped, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.wrapped, name, value)

    def __contains__(self, key: str) -> bool:
        return async_to_sync(self.wrapped.ahas_key)(key)


@override_settings(
    CACHES=caching.caches_setting_for_tests(
        base=settings.CACHES["default"], exclude=caching.redis_excluded_caches
    )
)
class NatsCacheTests(caching.BaseCacheTests, TestCase):
    """The tests that all backends share, with aliases that share one bucket."""


class AsyncNatsCacheTests(NatsCacheTests):
    """The tests that all backends share, through the async methods."""

    def setUp(self) -> None:
        super().setUp()
        if iscoroutinefunction(getattr(type(self), self._testMethodName)):
            return
        for name in ("cache", "caches"):
            twins = mock.patch.object(caching, name, AsyncTwins(getattr(caching, name)))
            twins.start()
            self.addCleanup(twins.stop)


class UtilsTests(caching.CacheUtils):
    """The keys of cached pages."""


class PrefixedUtilsTests(caching.PrefixedCacheUtils):
    """The keys of cached pages with a KEY_PREFIX."""


class HeadTests(caching.CacheHEADTest):
    """HEAD requests answered from a cached GET."""


class I18nTests(caching.CacheI18nTest):
    """Pages cached by language and time zone."""


class PrefixedI18nTests(caching.PrefixedCacheI18nTest):
    """Pages cached by language and time zone, with a KEY_PREFIX."""


class MiddlewareTests(caching.CacheMiddlewareTest):
    """The cache middleware, and cache_page with several aliases and timeouts."""


class TemplateResponseTests(caching.TestWithTemplateResponse):
    """Template responses, which are rendered after the view has returned."""


class HandlerTests(caching.CacheHandlerTest):
    """``caches``, which has an object for each thread."""


class FragmentTagTests(fragments.CacheTagTests):
    """The template tag {% cache %}."""


class FragmentTests(fragments.CacheTests):
    """The template tag {% cache %} with an alias of its own."""


_CULLING = "as with Redis, the server decides which entries a full cache evicts"
_LAZY = "pickling a query set runs its query, which Django does not allow on an event loop"

EXCUSED = {
    (NatsCacheTests, "test_cull"): _CULLING,
    (NatsCacheTests, "test_zero_cull"): _CULLING,
    (NatsCacheTests, "test_cull_delete_when_store_empty"): _CULLING,
    (AsyncNatsCacheTests, "test_cache_read_for_model_instance_with_deferred"): _LAZY,
    (AsyncNatsCacheTests, "test_cache_write_for_model_instance_with_deferred"): _LAZY,
}
"""The tests that are skipped, and why."""

skip_excused(EXCUSED)
