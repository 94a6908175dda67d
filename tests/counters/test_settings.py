"""The setting NATS_COUNTERS: its defaults, its options and the values it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_nats.client.counters.config import CounterConfig, SourceConfig
from django_nats.client.transport.config import ConnectionConfig
from django_nats.conf.counters import COUNTER_OPTIONS, CounterSettings, counter_settings
from django_nats.conf.reader import Options
from django_nats.counters import Counter, Counters, counters
from tests.counters.conftest import PATIENT

URL = "nats://127.0.0.1:4222"


def read(**options: object) -> CounterSettings:
    with override_settings(NATS_COUNTERS={"default": options}):
        return counter_settings("default")


def problem(**options: object) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        read(**options)
    return str(caught.value)


def test_an_empty_alias_has_the_defaults() -> None:
    settings = read()
    assert settings.connection == ConnectionConfig(servers=(URL,))
    assert settings.fail_open is False
    assert settings.stream == CounterConfig(
        stream="COUNTERS",
        prefix="counters",
        storage="file",
        replicas=1,
        history=8,
        max_age=None,
        deadline=10.0,
        request_timeout=1.0,
        sources=(),
    )


@pytest.mark.parametrize(
    ("option", "value", "attribute", "expected"),
    [
        ("STREAM", "HITS-1_x", "stream", "HITS-1_x"),
        ("STREAM", "HITS", "prefix", "hits"),
        ("PREFIX", "app.count", "prefix", "app.count"),
        ("STORAGE", "memory", "storage", "memory"),
        ("STORAGE", "memory", "history", 1),
        ("REPLICAS", 3, "replicas", 3),
        ("HISTORY", 64, "history", 64),
        ("MAX_AGE", 86400, "max_age", 86400.0),
        ("MAX_AGE", None, "max_age", None),
        ("DEADLINE", 2.5, "deadline", 2.5),
        ("REQUEST_TIMEOUT", 0.5, "request_timeout", 0.5),
        ("REQUEST_TIMEOUT", 10, "request_timeout", 10.0),
        ("DEADLINE", 0.5, "request_timeout", 0.5),
        ("MAX_AGE", 100 * 365 * 86400, "max_age", 100 * 365 * 86400.0),
        ("SOURCES", ["EU"], "sources", (SourceConfig("EU", "eu"),)),
        ("SOURCES", ["EU"], "history", 1),
    ],
)
def test_an_option_sets_its_attribute(
    option: str, value: object, attribute: str, expected: object
) -> None:
    assert getattr(read(**{option: value}).stream, attribute) == expected


def test_counters_share_the_connection_of_a_cache(make_cache: Any) -> None:
    """A process has one connection for all caches and counters on the same servers."""
    cache = make_cache()
    (url,) = cache.session.config.servers
    entry = {"LOCATION": url, "TOKEN": cache.session.config.token, **PATIENT}
    with override_settings(NATS_COUNTERS={"default": entry}):
        assert counters.session is cache.session


def test_sources_may_be_names_domains_or_api_prefixes() -> None:
    sources = [
        {"STREAM": "A"},
        {"STREAM": "COUNTERS", "PREFIX": "eu.counters", "DOMAIN": "eu"},
        {"STREAM": "C", "API_PREFIX": "from_us.api", "DELIVER_PREFIX": "from_us.deliver"},
    ]
    assert read(SOURCES=sources).stream.sources == (
        SourceConfig("A", "a"),
        SourceConfig("COUNTERS", "eu.counters", "$JS.eu.API"),
        SourceConfig("C", "c", "from_us.api", "from_us.deliver"),
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"STREM": "X"}, "unknown option 'STREM'. Did you mean STREAM?"),
        ({"OPTIONS": {}}, "OPTIONS is only for CACHES: write the options of counters beside"),
        ({"LOCATION": "embedded"}, 'set ALLOW_EMBEDDED to True in NATS_COUNTERS["default"].'),
        ({"STREAM": "a.b"}, "STREAM is 'a.b'"),
        ({"STREAM": ""}, "STREAM is ''"),
        ({"STREAM": 5}, "STREAM must be a string, not int"),
        ({"PREFIX": "a..b"}, "PREFIX is 'a..b'"),
        ({"PREFIX": "a.>"}, "PREFIX is 'a.>'"),
        ({"PREFIX": "a b"}, "PREFIX is 'a b'"),
        ({"PREFIX": "$JS"}, "PREFIX is '$JS'"),
        ({"PREFIX": "$SYS.a"}, "PREFIX is '$SYS.a'; names that begin with $ or _INBOX"),
        ({"PREFIX": "_INBOX.a"}, "PREFIX is '_INBOX.a'; names that begin with $ or _INBOX"),
        ({"STREAM": "KV_cache"}, "STREAM is 'KV_cache'; names with KV_ are those of buckets"),
        ({"PREFIX": "x" * 257}, "have at most 256"),
        ({"STORAGE": "disk"}, "STORAGE is 'disk'; it must be 'memory' or 'file'"),
        ({"REPLICAS": 6}, "REPLICAS is 6"),
        ({"REPLICAS": "3"}, "REPLICAS must be an integer of at least 1"),
        ({"HISTORY": 0}, "HISTORY must be an integer of at least 1"),
        ({"HISTORY": 10**20}, "HISTORY must be at most 1,000,000"),
        (
            {"REQUEST_TIMEOUT": 11},
            "REQUEST_TIMEOUT is 11 s; it must not be longer than DEADLINE",
        ),
        (
            {"REQUEST_TIMEOUT": 2, "DEADLINE": 1},
            "REQUEST_TIMEOUT is 2 s; it must not be longer than DEADLINE, 1 s",
        ),
        ({"MAX_AGE": float("inf")}, "to 100 years, not inf"),
        ({"MAX_AGE": 1e12}, "to 100 years, not 1000000000000.0"),
        ({"MAX_BYTES": 64}, "MAX_BYTES is 64; it must be at least 65536, since counters for which"),
        ({"DEADLINE": 0}, "DEADLINE must be a number of seconds"),
        ({"MAX_AGE": 29}, "MAX_AGE must be None, or a number of seconds from 30"),
        ({"MAX_AGE": True}, "MAX_AGE must be None, or a number of seconds from 30"),
        ({"MAX_AGE": float("nan")}, "MAX_AGE must be None, or a number of seconds from 30"),
        ({"MAX_AGE": "1 day"}, "MAX_AGE must be None, or a number of seconds from 30"),
        ({"FAIL_OPEN": 1}, "FAIL_OPEN must be True or False"),
        ({"SOURCES": "EU"}, "SOURCES must be a list"),
        ({"SOURCES": [5]}, "SOURCES holds 5"),
        ({"SOURCES": ["EU", "EU"]}, "SOURCES names 'EU' twice"),
        ({"SOURCES": ["COUNTERS"]}, "SOURCES names 'COUNTERS', the stream itself"),
        ({"SOURCES": ["a.b"]}, "SOURCES: STREAM is 'a.b'"),
        ({"SOURCES": [{"PREFIX": "a"}]}, "SOURCES: STREAM is ''"),
        ({"SOURCES": [{"STREAM": "A", "REGION": "x"}]}, "SOURCES: unknown option 'REGION'"),
        ({"SOURCES": [{"STREAM": "A", "PREFIX": "a.*"}]}, "SOURCES: PREFIX is 'a.*'"),
        ({"SOURCES": [{"STREAM": "A", "DOMAIN": "a.b"}]}, "SOURCES: DOMAIN is 'a.b'"),
        ({"SOURCES": [{"STREAM": "A", "API_PREFIX": "a.>"}]}, "SOURCES: API_PREFIX is 'a.>'"),
        (
            {"SOURCES": [{"STREAM": "A", "API_PREFIX": "a", "DELIVER_PREFIX": "*"}]},
            "SOURCES: DELIVER_PREFIX is '*'",
        ),
        ({"SOURCES": [{"STREAM": "A", "DELIVER_PREFIX": "d"}]}, "DELIVER_PREFIX needs"),
        ({"SOURCES": [{"STREAM": "A", "DOMAIN": "d", "API_PREFIX": "a"}]}, "choose one"),
        ({"LOCATION": "redis://localhost"}, "LOCATION must be nats://host:port"),
        ({"LOCATION": "embedded"}, "DEBUG is False"),
    ],
    ids=str,
)
def test_a_wrong_option_is_refused(options: dict[str, Any], words: str) -> None:
    message = problem(**options)
    assert message.startswith('NATS_COUNTERS["default"]: ')
    assert words in message


def test_a_source_may_have_the_name_of_a_stream_elsewhere() -> None:
    sources = [{"STREAM": "COUNTERS", "API_PREFIX": "eu.API"}, {"STREAM": "COUNTERS"}]
    assert len(read(STREAM="WORLD", SOURCES=sources).stream.sources) == 2


@pytest.mark.parametrize(
    ("here", "there"), [("counters", "counters"), ("web", "web.eu"), ("web.eu", "web")]
)
def test_sources_in_domains_with_overlapping_subjects_are_refused(here: str, there: str) -> None:
    sources = [{"STREAM": "A", "PREFIX": here}, {"STREAM": "B", "PREFIX": there, "DOMAIN": "eu"}]
    message = problem(SOURCES=sources)
    assert f"'A' with PREFIX '{here}' and 'B' with '{there}'" in message
    assert "Leaf nodes join the subjects" in message


@pytest.mark.parametrize(("here", "there"), [("web", "website"), ("web.us", "web.eu")])
def test_sources_in_domains_with_distinct_subjects_are_accepted(here: str, there: str) -> None:
    sources = [{"STREAM": "A", "PREFIX": here}, {"STREAM": "B", "PREFIX": there, "DOMAIN": "eu"}]
    assert len(read(SOURCES=sources).stream.sources) == 2


def test_secrets_are_not_shown() -> None:
    message = problem(LOCATION="nats://me:hush@127.0.0.1:99999", PASSWORD="hush", USER="me")
    assert "hush" not in message
    assert "hush" not in repr(read(USER="me", PASSWORD="hush"))


def test_a_missing_or_malformed_setting_raises_improperly_configured() -> None:
    with pytest.raises(ImproperlyConfigured, match="Counters need the setting NATS_COUNTERS"):
        Counter("k").value()
    with override_settings(NATS_COUNTERS={"other": {}}):
        with pytest.raises(ImproperlyConfigured, match='no alias "default", only other'):
            counters.incr("k")
        assert counters["other"].settings.alias == "other"
    for wrong in ([1], {"default": 5}):
        with (
            override_settings(NATS_COUNTERS=wrong),
            pytest.raises(
                ImproperlyConfigured, match="must be a dict with a dict of options for each alias"
            ),
        ):
            counters.incr("k")


def test_changed_settings_are_read_again() -> None:
    for stream in ("FIRST", "SECOND"):
        with override_settings(NATS_COUNTERS={"default": {"STREAM": stream}}):
            assert counters.settings.stream.stream == stream
            assert Counters("default").stream.config.stream == stream
    with pytest.raises(ImproperlyConfigured):
        _ = counters.settings


def test_every_option_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """An option that is accepted but never read would be silently ignored."""
    asked: set[object] = set()

    class Watching(Options):
        def get(self, key: Any, default: Any = None) -> Any:
            asked.add(key)
            return super().get(key, default)

        def __contains__(self, key: object) -> bool:
            asked.add(key)
            return super().__contains__(key)

    monkeypatch.setattr("django_nats.conf.counters.Options", Watching)
    read()
    read(LOCATION="embedded", ALLOW_EMBEDDED=True)
    assert asked >= COUNTER_OPTIONS
