"""The base classes, public attributes and annotations of NatsCache."""

from __future__ import annotations

import inspect

import pytest

from django_nats.cache import NatsCache
from django_nats.cache.core import Core
from tests.conftest import MakeCache


@pytest.mark.parametrize("name", ["bucket", "config", "near", "session"])
def test_public_attributes_are_read_only_and_documented(make_cache: MakeCache, name: str) -> None:
    cache = make_cache()
    with pytest.raises(AttributeError):
        setattr(cache, name, None)
    assert inspect.getdoc(getattr(NatsCache, name))


def test_config_and_bucket_follow_the_options_of_the_alias(make_cache: MakeCache) -> None:
    cache = make_cache(OPTIONS={"BUCKET": "composition"})
    assert cache.config.bucket.name == "composition"
    assert cache.bucket.config == cache.config.bucket


def test_each_mixin_inherits_from_core_alone() -> None:
    for mixin in NatsCache.__bases__:
        assert mixin.__bases__ == (Core,), mixin


@pytest.mark.parametrize(
    "method", ["incr", "decr", "incr_version", "decr_version", "ttl", "pttl", "set"]
)
def test_a_method_that_returns_none_under_fail_open_is_annotated_so(method: str) -> None:
    for name in (method, f"a{method}"):
        annotation = inspect.signature(getattr(NatsCache, name)).return_annotation
        assert annotation in ("int | None", "bool | None"), name
