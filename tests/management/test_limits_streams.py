"""``manage.py nats setup`` and ``status`` for the streams of limits."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_nats.client.streams.config import NANOSECONDS
from django_nats.conf.limit_streams import limit_stream
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterMismatch
from tests.counters.conftest import Configure
from tests.limits.conftest import delete_streams
from tests.management.conftest import Declare, Nats
from tests.servers import request

__all__ = ["delete_streams"]

FailingNats = Callable[..., tuple[str, str]]


@pytest.fixture(autouse=True)
def _no_caches(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def test_setup_creates_the_streams_that_limits_use(
    counters: Counters, declare: Declare, server: NatsServer, nats: Nats
) -> None:
    api = declare("api", "5/s", "100/m", "9/d")
    declare("login", "5/m", lambda group, request: "9/h")

    output = nats("setup")

    name = counters.settings.stream.stream
    assert f"default: counter stream {name}_LIMITS_MINUTE on nats://" in output
    assert output.count("  created\n") == 3
    found: Any = request(server, "$JS.API.STREAM.NAMES")["streams"]
    assert {each for each in found if each.startswith(name)} == {
        *(name, f"{name}_LIMITS_MINUTE", f"{name}_LIMITS_DAY")
    }
    assert nats("setup").count("  nothing to do\n") == 3
    assert api.hit("ann")


def test_setup_lengthens_what_a_stream_keeps(
    counters: Counters, declare: Declare, server: NatsServer, nats: Nats
) -> None:
    limit = declare("api", "100/m")
    keep_for(30, counters, server)
    with pytest.raises(CounterMismatch):
        limit.hit("ann")

    assert "    max_age: 30 s → 2 min\n" in nats("setup")

    assert limit.hit("ann")


def keep_for(seconds: int, counters: Counters, server: NatsServer) -> None:
    """Create the stream for windows of a minute with another MAX_AGE."""
    document = limit_stream(counters.settings, 60).stream_config()
    document["max_age"] = seconds * NANOSECONDS
    assert "config" in request(server, f"$JS.API.STREAM.CREATE.{document['name']}", document)


def test_setup_sets_up_one_alias(
    configure: Configure, counters: Counters, declare: Declare, nats: Nats
) -> None:
    configure("eu")
    declare("api", "100/m")
    declare("login", "5/m", alias="eu")

    output = nats("setup", "--plan", "--alias", "eu")

    assert output.count("_eu_LIMITS_MINUTE on ") == 1
    assert "_default_LIMITS" not in output


def test_the_streams_of_limits_that_are_off_are_left_out(
    counters: Counters, declare: Declare, nats: Nats
) -> None:
    declare("api", "100/m")

    with override_settings(NATS_LIMITS={"ENABLED": False}):
        assert "LIMITS" not in nats("setup", "--plan")
        assert "LIMITS" not in nats("status")

    assert "LIMITS" in nats("status")


def test_limits_are_found_that_only_the_projects_views_declare(
    counters: Counters, nats: Nats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    views = "from django_nats.limits import Limit\napi = Limit('api', '9/d')\nurlpatterns = []\n"
    (tmp_path / "urls_with_limits.py").write_text(views)
    monkeypatch.syspath_prepend(tmp_path)

    with override_settings(ROOT_URLCONF="urls_with_limits"):
        try:
            assert "_LIMITS_DAY on " in nats("setup", "--plan")
        finally:
            sys.modules.pop("urls_with_limits", None)


def test_urls_that_cannot_be_imported_do_not_stop_a_command(
    counters: Counters, declare: Declare, nats: Nats
) -> None:
    declare("api", "9/d")

    with override_settings(ROOT_URLCONF="no.such.module"):
        assert "_LIMITS_DAY on " in nats("setup", "--plan")


def test_status_shows_the_limits_of_a_stream_and_what_is_counted(
    counters: Counters, declare: Declare, nats: Nats
) -> None:
    for name, rate in (("api", "9/d"), ("api", "5/7h"), ("login\n", "5/d")):
        declare(name, rate).hit("ann")

    output = nats("status")

    assert "  limits   api, login\\n\n" in output
    assert "  counters 3, each kept for 2 days after its last change\n" in output
    document = json.loads(nats("status", "--json"))
    (found,) = document["limits"]
    assert found["stream"] == f"{counters.settings.stream.stream}_LIMITS_DAY"
    assert (found["limits"], found["counters"]) == (["api", "login\n"], 3)
    assert [each["stream"] for each in document["counters"]] == [counters.settings.stream.stream]


def test_status_does_not_create_an_absent_stream(
    counters: Counters, declare: Declare, server: NatsServer, nats: Nats
) -> None:
    declare("api", "9/d")

    assert nats("status").count("  absent: created on first use") == 2

    name = counters.settings.stream.stream
    assert name not in str(request(server, "$JS.API.STREAM.NAMES")["streams"])
