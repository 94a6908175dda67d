"""The streams that limits share."""

from __future__ import annotations

import pytest
from django.test import override_settings

from django_nats.conf.counters import counter_settings
from django_nats.conf.limit_streams import limit_stream
from django_nats.devserver import NatsServer
from django_nats.limits import Limit
from tests.counters.conftest import Configure, api_level, configure

__all__ = ["configure"]


@pytest.mark.parametrize("timeout", [None, 0.05, 30.0])
@override_settings(NATS_COUNTERS={"default": {}})
def test_the_timeout_of_a_limit_does_not_change_its_stream(timeout: float | None) -> None:
    settings = counter_settings("default")

    stream = limit_stream(settings, 60, timeout)

    assert stream.stream_config() == limit_stream(settings, 60).stream_config()
    assert stream.request_timeout == (timeout or settings.stream.request_timeout)


def test_limits_with_other_timeouts_share_a_stream(
    configure: Configure, server: NatsServer
) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    configure(DEADLINE=40)
    limits = [Limit(f"of {timeout} s", "1/h", timeout=timeout) for timeout in (10.0, 40.0)]

    assert [each.hit("a").allowed for each in limits] == [True, True]
    assert [each.hit("a").allowed for each in limits] == [False, False]
