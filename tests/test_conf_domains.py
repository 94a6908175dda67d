"""JS_DOMAIN and JS_API_PREFIX: where the JetStream is that has the stream."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_nats.client import process
from django_nats.client.streams.api import Api
from django_nats.conf.counters import counter_settings
from tests.support.configuring import URL, config, problem


@pytest.mark.parametrize(
    ("options", "prefix", "domain"),
    [
        ({}, "$JS.API", None),
        ({"JS_DOMAIN": "hub"}, "$JS.hub.API", "hub"),
        ({"JS_DOMAIN": "eu-west_1"}, "$JS.eu-west_1.API", "eu-west_1"),
        ({"JS_API_PREFIX": "owner.API"}, "owner.API", None),
        ({"JS_API_PREFIX": "$JS.hub.API"}, "$JS.hub.API", None),
        ({"JS_DOMAIN": None, "JS_API_PREFIX": None}, "$JS.API", None),
        ({"JS_DOMAIN": "hub", "JS_API_PREFIX": None}, "$JS.hub.API", "hub"),
        ({"JS_DOMAIN": None, "JS_API_PREFIX": "owner.API"}, "owner.API", None),
    ],
)
def test_an_option_says_where_the_stream_is(
    options: dict[str, Any], prefix: str, domain: str | None, settings: Any
) -> None:
    settings.NATS_COUNTERS = {"default": {"LOCATION": URL, **options}}
    for stream in (config(**options).bucket, counter_settings("default").stream):
        assert (stream.api_prefix, stream.domain) == (prefix, domain)


WRONG_DOMAINS = ["", "a.b", "*", ">", "a b", "hub\r\n", "größe", "hub.>", "$JS"]
WRONG_PREFIXES = ["", "*.API", "hub.>", ".API", "hub.", "a..b", "a b", "hub\r\nPUB", "é", "x" * 257]


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [("JS_DOMAIN", each, f"JS_DOMAIN is {each!r}; it must be made of") for each in WRONG_DOMAINS]
    + [("JS_API_PREFIX", each, f"JS_API_PREFIX is {each!r}; it must") for each in WRONG_PREFIXES]
    + [
        ("JS_DOMAIN", 5, "JS_DOMAIN must be a string, not int"),
        ("JS_API_PREFIX", ["a"], "JS_API_PREFIX must be a string, not list"),
    ],
)
def test_a_wrong_value_names_the_option(
    option: str, value: object, message: str, settings: Any
) -> None:
    assert problem(**{option: value}).startswith(f'CACHES["?"]: {message}')
    settings.NATS_COUNTERS = {"default": {"LOCATION": URL, option: value}}
    with pytest.raises(ImproperlyConfigured) as caught:
        counter_settings("default")
    assert str(caught.value).startswith(f'NATS_COUNTERS["default"]: {message}')


def test_a_domain_and_a_prefix_cannot_both_be_given() -> None:
    assert problem(JS_DOMAIN="hub", JS_API_PREFIX="$JS.hub.API") == (
        'CACHES["?"]: JS_DOMAIN and JS_API_PREFIX both say where the stream is: choose one.'
    )


def test_buckets_of_the_same_name_in_two_domains_share_nothing_but_the_connection() -> None:
    own, hub = config(), config(JS_DOMAIN="hub")
    assert own.connection == hub.connection
    one, other = (process.bucket(each.connection, each.bucket) for each in (own, hub))
    assert one.stream.recent is not other.stream.recent
    assert one._near_caches.copies is not other._near_caches.copies


def test_no_subject_of_the_api_leaves_the_prefix() -> None:
    api = Api("hub.API", "KV_web")
    subjects = [each for name, each in vars(api).items() if not name.startswith("_")]
    made = (api.create_consumer("c"), api.delete_consumer("c"), api.next_messages("c"))
    for subject in (*subjects, *made):
        assert subject.startswith("hub.API")
