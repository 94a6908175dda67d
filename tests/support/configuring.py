"""Functions that read the settings of one cache, or the error that they raise."""

from __future__ import annotations

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_nats.conf.caches import CacheConfig, cache_config

URL = "nats://127.0.0.1:4222"


def config(location: object = URL, **options: object) -> CacheConfig:
    return cache_config(location, {"OPTIONS": options})


def problem(location: object = URL, **options: object) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        config(location, **options)
    return str(caught.value)
