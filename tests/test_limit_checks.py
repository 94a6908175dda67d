"""The system checks of limits and of NATS_LIMITS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks
from django.test import override_settings

from django_nats.checks import TAG
from django_nats.client.streams.config import NANOSECONDS
from django_nats.conf.limit_streams import limit_stream, quota_stream
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from django_nats.limits import Quota
from tests.counters.conftest import Configure, configure, counters
from tests.limits.conftest import delete_streams
from tests.management.conftest import Declare, declare
from tests.servers import request

__all__ = ["configure", "counters", "declare", "delete_streams"]

DEAD = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_caches(settings: Any) -> None:
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Run the checks of settings and limits, and return their messages by the end of the id."""
    return {
        str(each.id).removeprefix("django_nats."): each
        for each in run_checks(tags=[TAG], include_deployment_checks=deploy)
        if each.obj is None
        or str(each.obj).startswith(("Limit", "Quota"))  # the others are about models
    }


def make(stream: Any, server: NatsServer, **changes: object) -> None:
    """Create a stream with changes, as another program might."""
    document = {**stream.stream_config(), **changes}
    assert "config" in request(server, f"$JS.API.STREAM.CREATE.{document['name']}", document)


def test_correct_limits_get_no_messages(counters: Counters, declare: Declare) -> None:
    declare("api", "5/m", "9/d").hit("ann")
    declare("login", lambda group, request: "5/m", None)

    assert found(deploy=True) == {}


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"STATUS": 500}, "NATS_LIMITS: STATUS must be 403 or 429"),
        ({"EXEMPT": "no.such.function"}, "NATS_LIMITS: EXEMPT"),
        ({"ALIAS": "eu"}, "NATS_LIMITS: ALIAS is 'eu', which is no alias of NATS_COUNTERS"),
        ([], None),
        ({"ENABLED": False}, None),
    ],
    ids=str,
)
def test_a_mistake_in_the_setting_is_an_error(
    settings: Any, declare: Declare, limits: object, words: str | None
) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": DEAD}}
    settings.NATS_LIMITS = limits
    declare("api", "5/m")

    messages = found()

    assert messages.keys() == ({"E001"} if words else set())
    if words:
        assert messages["E001"].msg.startswith(words)
        assert messages["E001"].is_serious()


def test_limits_without_counters_are_an_error(settings: Any, declare: Declare) -> None:
    assert found(deploy=True) == {}
    declare("api", "5/m")

    message = found(deploy=True)["E011"]

    assert str(message.obj) == "Limit('api')"
    assert "there is no setting NATS_COUNTERS" in message.msg
    assert '"ENABLED": False' in str(message.hint)
    settings.NATS_LIMITS = {"ENABLED": False}
    assert found(deploy=True) == {}
    quota = Quota("exports", limit=5, per="day")
    assert found()["E011"].obj is quota
    assert "ENABLED" not in str(found()["E011"].hint)


@pytest.mark.parametrize(
    ("own", "aliases", "missing", "option"),
    [
        ("eu", ["default"], "eu", "Limit(alias=…)"),
        (None, ["eu"], "default", "ALIAS of NATS_LIMITS"),
        (None, ["limits"], None, ""),
        ("eu", ["eu"], None, ""),
    ],
)
def test_a_limit_of_an_unknown_alias_is_an_error(
    settings: Any,
    declare: Declare,
    own: str | None,
    aliases: list[str],
    missing: str | None,
    option: str,
) -> None:
    settings.NATS_COUNTERS = {alias: {"LOCATION": DEAD} for alias in aliases}
    declare("api", "5/m", alias=own)

    messages = found()

    assert messages.keys() == ({"E011"} if missing else set())
    if missing:
        assert str(messages["E011"].obj) == "Limit('api')"
        assert messages["E011"].msg == f'NATS_COUNTERS has no alias "{missing}".'
        assert option in str(messages["E011"].hint)


def test_one_error_names_all_limits_of_an_unknown_alias(settings: Any, declare: Declare) -> None:
    settings.NATS_COUNTERS = {"eu": {"LOCATION": DEAD}}
    for name in ("one", "two", "three"):
        declare(name, "5/m")
    message = found()["E011"]
    everything = f"{message.obj} {message.msg}"
    assert all(f"Limit('{name}')" in everything for name in ("one", "two", "three"))


def test_limits_of_one_name_with_different_rates_get_a_warning(
    settings: Any, declare: Declare
) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": DEAD}, "eu": {"LOCATION": DEAD}}
    declare("api", "5/m", fail_open=True)
    declare("api", "5/m", fail_open=False)
    declare("api", "9/m", alias="eu")
    assert found() == {}
    declare("api", "50/m")
    message = found()["W014"]
    assert message.msg.startswith("Two limits are called 'api'")
    assert "50/m (sliding)" in message.msg
    assert "5/m (sliding)" in message.msg


def test_a_stream_that_keeps_less_than_limits_need_is_an_error(
    counters: Counters, declare: Declare, server: NatsServer
) -> None:
    stream = limit_stream(counters.settings, 60)
    make(stream, server, max_age=90 * NANOSECONDS)
    declare("api", "5/m", "9/s", "9/d")
    declare("login", "5/20s")
    declare("day", "5/d")

    message = found(deploy=True)["E012"]

    assert message.is_serious()
    assert f"stream {stream.stream} of NATS_COUNTERS" in message.msg
    assert (
        "keeps what it counts for 1 min 30 s, and not for 2 min, twice its longest window"
        in message.msg
    )
    assert message.msg.endswith("It cannot be used by Limit('api'), Limit('login').")
    assert "manage.py nats setup" in str(message.hint)
    assert found() == {}


@pytest.mark.parametrize("seconds", [0, 120, 121])
def test_a_stream_that_keeps_hits_for_long_enough_is_no_error(
    counters: Counters, declare: Declare, server: NatsServer, seconds: int
) -> None:
    make(limit_stream(counters.settings, 60), server, max_age=seconds * NANOSECONDS)
    declare("api", "5/m")

    assert "E012" not in found(deploy=True)


def test_quotas_are_checked_as_limits_are_and_also_if_those_are_off(
    counters: Counters, server: NatsServer
) -> None:
    make(quota_stream(counters.settings, 3600), server, max_age=3600 * NANOSECONDS)
    quotas = Quota("exports", limit=5, per="hour"), Quota("mails", limit=5, per="day", alias="eu")

    with override_settings(NATS_LIMITS={"ENABLED": False}):
        messages = found(deploy=True)

    assert messages["E012"].msg.endswith("It cannot be used by Quota('exports').")
    assert messages["E011"].obj is quotas[1]
    assert "Quota(alias=…)" in str(messages["E011"].hint)


def test_a_stream_that_differs_from_settings_is_reported(
    counters: Counters, declare: Declare, server: NatsServer
) -> None:
    make(limit_stream(counters.settings, 60), server, max_msgs_per_subject=5)
    declare("api", "5/m")

    messages = found(deploy=True)

    assert messages.keys() == {"W005"}
    assert "_LIMITS_MINUTE of NATS_COUNTERS" in messages["W005"].msg


def test_a_stream_that_is_nearly_full_is_reported(
    configure: Configure, counters: Counters, declare: Declare
) -> None:
    configure(MAX_BYTES="64KiB")
    limit = declare("api", "5/d")
    limit.hit("ann")
    assert found(deploy=True) == {}
    for number in range(600):  # of more than 110 bytes each
        limit.hit(number)

    message = found(deploy=True)["W012"]

    assert "_LIMITS_DAY of NATS_COUNTERS" in message.msg
    assert "restart at 0" in message.msg


def test_an_unreachable_server_is_a_warning_and_limits_that_are_off_are_not_compared(
    settings: Any, declare: Declare
) -> None:
    settings.NATS_COUNTERS = {
        "default": {"LOCATION": "embedded", "ALLOW_EMBEDDED": True, "EMBEDDED_DIR": "/nowhere"},
        "away": {"LOCATION": DEAD},
    }
    declare("api", "5/m")
    declare("login", "5/m", alias="away")

    def compared() -> int:
        messages = run_checks(tags=[TAG], include_deployment_checks=True)
        return sum("_LIMITS_MINUTE" in each.msg for each in messages if each.id[-4:] == "W006")

    assert compared() == 1
    settings.NATS_LIMITS = {"ENABLED": False}
    assert compared() == 0


def test_urls_that_cannot_be_imported_are_a_warning(
    settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_urls.py").write_text("raise RuntimeError('no views today')\n")
    monkeypatch.syspath_prepend(tmp_path)
    settings.ROOT_URLCONF = "broken_urls"
    assert found() == {}
    settings.NATS_COUNTERS = {"default": {"LOCATION": DEAD}}

    assert found()["W013"].msg.endswith("cannot be imported: RuntimeError: no views today")
