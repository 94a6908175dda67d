"""The system checks of NATS_COUNTERS."""

from __future__ import annotations

import socket
from typing import Any

import pytest
from django.core.checks import CheckMessage, run_checks

from django_nats.checks import TAG
from django_nats.counters import Counters
from django_nats.devserver import NatsServer
from tests.counters.conftest import Configure, api_level, configure, fill

__all__ = ["configure"]

DEAD = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _no_caches(settings: Any, server: NatsServer) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def found(*, deploy: bool = False) -> dict[str, CheckMessage]:
    """Run the checks of settings and return their messages by the end of the id, each once."""
    messages = [
        each
        for each in run_checks(tags=[TAG], include_deployment_checks=deploy)
        if each.obj is None  # the others are about the test suite's models
    ]
    by_id = {str(each.id).removeprefix("django_nats."): each for each in messages}
    assert len(by_id) == len(messages)
    return by_id


def test_correct_settings_get_no_messages(configure: Configure) -> None:
    configure("default").incr("hits")
    configure("eu")

    assert found(deploy=True) == {}


@pytest.mark.parametrize("value", [[1, 2], {"default": 5}, "xy"])
def test_a_setting_that_is_not_a_dict_of_dicts_is_an_error(settings: Any, value: object) -> None:
    settings.NATS_COUNTERS = value

    assert "NATS_COUNTERS must be a dict with a dict of options" in found(deploy=True)["E001"].msg


def test_a_mistake_is_reported_for_its_alias(settings: Any) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": DEAD}, "eu": {"REPLICAS": 9}}

    messages = found()

    assert messages.keys() == {"E001"}
    assert messages["E001"].msg.startswith('NATS_COUNTERS["eu"]: REPLICAS is 9')
    assert messages["E001"].is_serious()


def test_credentials_in_a_location_are_a_warning_that_does_not_show_them(settings: Any) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": "nats://user:s3cret@127.0.0.1:1"}}

    messages = found()

    assert messages.keys() == {"W001"}
    assert 'NATS_COUNTERS["default"]' in messages["W001"].msg
    assert "s3cret" not in str(messages["W001"])


def test_aliases_that_disagree_on_their_stream_are_an_error(settings: Any) -> None:
    settings.NATS_COUNTERS = {
        "default": {"LOCATION": DEAD},
        "open": {"LOCATION": DEAD, "FAIL_OPEN": True},
    }
    assert found() == {}
    settings.NATS_COUNTERS = {**settings.NATS_COUNTERS, "eu": {"LOCATION": DEAD, "HISTORY": 2}}

    messages = found()

    assert messages.keys() == {"E002"}
    assert 'NATS_COUNTERS["default"] and NATS_COUNTERS["eu"] share' in messages["E002"].msg
    assert "max_msgs_per_subject 8 or 2" in messages["E002"].msg
    assert "STREAM" in str(messages["E002"].hint)


def test_a_stream_that_differs_from_settings_is_reported(configure: Configure) -> None:
    configure(HISTORY=8).incr("hits")
    configure(HISTORY=2)

    messages = found(deploy=True)

    assert messages.keys() == {"W005"}
    assert 'NATS_COUNTERS["default"] differs' in messages["W005"].msg
    assert "max_msgs_per_subject: 8 on the server, 2 in settings" in messages["W005"].msg
    assert "nats setup" in str(messages["W005"].hint)


def test_a_stream_that_is_nearly_full_is_reported(configure: Configure) -> None:
    counters = configure(MAX_BYTES="64KiB", HISTORY=1)
    fill(counters, 0.7)
    assert found(deploy=True) == {}

    fill(counters, 0.9)

    messages = found(deploy=True)
    assert messages.keys() == {"W012"}
    assert 'NATS_COUNTERS["default"] is nearly full: ' in messages["W012"].msg
    assert "restart at 0" in messages["W012"].msg
    assert "Raise MAX_BYTES" in str(messages["W012"].hint)
    assert found() == {}


def test_aliases_that_disagree_on_metadata_are_an_error(settings: Any) -> None:
    for first, second in (({}, {"team": "a"}), ({"team": "a"}, {}), ({"team": "a"}, {"x": "y"})):
        settings.NATS_COUNTERS = {
            "default": {"LOCATION": DEAD, "METADATA": first},
            "eu": {"LOCATION": DEAD, "METADATA": second},
        }
        assert "metadata" in found()["E002"].msg


def test_an_unreachable_server_is_a_warning(settings: Any) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": DEAD}}

    messages = found(deploy=True)

    assert messages.keys() == {"W006"}
    assert f"No connection to NATS at {DEAD}" in messages["W006"].msg


def test_the_embedded_server_is_not_started(settings: Any, tmp_path: Any) -> None:
    settings.DEBUG = True
    entry = {"LOCATION": "embedded", "EMBEDDED_DIR": tmp_path / "nats"}
    settings.NATS_COUNTERS = {"default": entry}

    assert found(deploy=True) == {}
    assert not (tmp_path / "nats").exists()


def test_only_deployment_checks_open_connections(settings: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        settings.NATS_COUNTERS = {"default": {"LOCATION": url, "CONNECT_TIMEOUT": 1}}

        assert found() == {}
        assert Counters().settings.alias == "default"
        with pytest.raises(BlockingIOError):
            listener.accept()

        assert found(deploy=True).keys() == {"W006"}
        listener.accept()[0].close()


@pytest.mark.parametrize(
    ("own", "other", "wrong"),
    [
        ({"JS_DOMAIN": "hub"}, {"JS_DOMAIN": "leaf"}, True),
        ({"JS_DOMAIN": "hub"}, {}, True),
        ({"JS_DOMAIN": "hub", "PREFIX": "visits.hub"}, {"PREFIX": "visits"}, True),
        ({"JS_DOMAIN": "hub", "STREAM": "OTHER", "PREFIX": "visits"}, {"PREFIX": "visits"}, True),
        ({"JS_DOMAIN": "hub", "PREFIX": "visits.hub"}, {"PREFIX": "visits.leaf"}, False),
        ({"JS_DOMAIN": "hub", "PREFIX": "visitshub"}, {"PREFIX": "visits"}, False),
        ({"JS_DOMAIN": "hub"}, {"JS_DOMAIN": "hub"}, False),
        ({"JS_DOMAIN": "hub"}, {"LOCATION": "nats://127.0.0.1:2"}, False),
        ({"JS_DOMAIN": "hub"}, {"JS_API_PREFIX": "owner.API"}, False),
        ({"JS_DOMAIN": "hub", "SOURCES": ["A"]}, {}, False),
        (
            {"JS_DOMAIN": "hub", "LOCATION": [DEAD, "nats://b"]},
            {"LOCATION": ["nats://b", DEAD]},
            True,
        ),
    ],
)
def test_counters_of_two_domains_under_the_same_subjects_are_an_error(
    settings: Any, own: dict[str, Any], other: dict[str, Any], wrong: bool
) -> None:
    common = {"LOCATION": DEAD, "STREAM": "VISITS"}
    settings.NATS_COUNTERS = {"default": {**common, **other}, "hub": {**common, **own}}

    messages = found()

    assert messages.keys() == ({"E010"} if wrong else set())
    if wrong:
        text = messages["E010"].msg
        assert text.startswith('NATS_COUNTERS["default"] and NATS_COUNTERS["hub"] count in diff')
        assert "Give each a PREFIX of its own" in str(messages["E010"].hint)
