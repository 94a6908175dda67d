from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_nats.client import bridge
from django_nats.client.bucket import BucketConfig
from django_nats.client.config import ConnectionConfig, TLSConfig
from django_nats.client.copies import Bounds
from django_nats.conf.caches import CacheConfig, cache_config
from django_nats.conf.nearcache import NearCacheConfig
from django_nats.serializers import JSONSerializer, PickleSerializer
from tests.support import accounts

URL = "nats://127.0.0.1:4222"
MIB = 1024 * 1024


def config(location: object = URL, **options: object) -> CacheConfig:
    return cache_config(location, {"OPTIONS": options})


def problem(location: object = URL, **options: object) -> str:
    with pytest.raises(ImproperlyConfigured) as caught:
        config(location, **options)
    return str(caught.value)


@pytest.fixture
def entries() -> Iterator[Any]:
    """``entries(web={…})`` sets CACHES, all with the backend of this package."""
    overrides: list[Any] = []

    def set_caches(**caches: dict[str, object]) -> None:
        made = {
            alias: {"BACKEND": "django_nats.cache.NatsCache", **entry}
            for alias, entry in caches.items()
        }
        overrides.append(
            override_settings(CACHES={"default": {"BACKEND": DUMMY, "LOCATION": "-"}, **made})
        )
        overrides[-1].enable()

    yield set_caches
    for override in reversed(overrides):
        override.disable()


DUMMY = "django.core.cache.backends.dummy.DummyCache"


# Options -------------------------------------------------------------------------------------


def test_defaults() -> None:
    made = config("")
    assert made.connection == ConnectionConfig(servers=(URL,))
    assert made.bucket == BucketConfig("django_cache")
    assert made.fail_open is False
    assert isinstance(made.codec.serializer, PickleSerializer)
    assert cache_config("", {}).bucket == made.bucket


@pytest.mark.parametrize(
    ("option", "value", "attribute", "expected"),
    [
        ("BUCKET", "web-cache_2", "name", "web-cache_2"),
        ("STORAGE", "file", "storage", "file"),
        ("REPLICAS", 3, "replicas", 3),
        ("MAX_BYTES", 5 * MIB, "max_bytes", 5 * MIB),
        ("MAX_BYTES", "64MiB", "max_bytes", 64 * MIB),
        ("MAX_BYTES", " 2 GB ", "max_bytes", 2 * 10**9),
        ("MAX_BYTES", "8192", "max_bytes", 8192),
        ("MAX_BYTES", None, "max_bytes", None),
        ("MAX_ENTRIES", 10, "max_entries", 10),
        ("MAX_ENTRIES", 0, "max_entries", None),
        ("MAX_VALUE_SIZE", "8kB", "max_value_size", 8000),
        ("MAX_VALUE_SIZE", "8KiB", "max_value_size", 8192),
        ("EVICT", False, "evict", False),
        ("COMPRESSION", "s2", "compression", "s2"),
        ("PLACEMENT", {"CLUSTER": "eu"}, "placement_cluster", "eu"),
        ("PLACEMENT", {"TAGS": ["ssd", "eu"]}, "placement_tags", ("ssd", "eu")),
        ("DESCRIPTION", "Pages", "description", "Pages"),
        ("READS", "leader", "reads", "leader"),
        ("REQUEST_TIMEOUT", 2, "request_timeout", 2.0),
    ],
)
def test_bucket_options(option: str, value: object, attribute: str, expected: object) -> None:
    assert getattr(config(**{option: value}).bucket, attribute) == expected


@pytest.mark.parametrize(
    ("option", "value", "attribute", "expected"),
    [
        ("NAME", "shop", "name", "shop"),
        ("TOKEN", "s3cret", "token", "s3cret"),
        ("NKEY_SEED", "SUA", "nkey_seed", "SUA"),
        ("CREDENTIALS", "/etc/web.creds", "credentials", "/etc/web.creds"),
        ("CREDENTIALS", Path("/etc/web.creds"), "credentials", "/etc/web.creds"),
        ("INBOX_PREFIX", "_WEB.cache", "inbox_prefix", "_WEB.cache"),
        ("CONNECT_TIMEOUT", 0.5, "connect_timeout", 0.5),
        ("TLS", {}, "tls", TLSConfig()),
        (
            "TLS",
            {"CA": Path("ca"), "CERT": "crt", "KEY": "key", "HOSTNAME": "nats"},
            "tls",
            TLSConfig("ca", "crt", "key", "nats"),
        ),
    ],
)
def test_connection_options(option: str, value: object, attribute: str, expected: object) -> None:
    assert getattr(config(**{option: value}).connection, attribute) == expected


def test_options_that_go_together() -> None:
    login = config(USER="web", PASSWORD="pw").connection
    assert (login.user, login.password) == ("web", "pw")
    assert config(PERSIST="async", STORAGE="file").bucket.persist == "async"
    assert config(FAIL_OPEN=True).fail_open is True


@pytest.mark.parametrize(
    ("max_bytes", "expected"),
    [(1, 1), (4 * MIB - 4, MIB - 1), (4 * MIB, MIB), (1024 * MIB, MIB)],
)
def test_one_value_cannot_fill_a_bucket(max_bytes: int, expected: int) -> None:
    assert config(MAX_BYTES=max_bytes).bucket.max_value_size == expected
    assert "MAX_VALUE_SIZE" in problem(MAX_BYTES=max_bytes, MAX_VALUE_SIZE=max_bytes)


def test_codec_options() -> None:
    codec = config(
        SERIALIZER="django_nats.serializers.JSONSerializer",
        ACCEPT=["django_nats.serializers.PickleSerializer"],
        COMPRESSOR="django_nats.compressors.ZlibCompressor",
        COMPRESS_MIN_LENGTH="2KiB",
        MAX_VALUE_SIZE="100MiB",
    ).codec
    assert isinstance(codec.serializer, JSONSerializer)
    assert codec.compressor is not None
    assert (codec.compress_min_length, codec.max_size) == (2048, 100 * MIB)
    assert config(COMPRESS_MIN_LENGTH=0).codec.compress_min_length == 0


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("BUCKET", "web.cache", "'web.cache'; a bucket's name is made of"),
        ("BUCKET", "", "a bucket's name is made of"),
        ("BUCKET", 5, "must be a string, not int"),
        ("STORAGE", "disk", "is 'disk'; it can be 'memory' or 'file'"),
        ("STORAGE", ["file"], "it can be"),
        ("REPLICAS", 0, "must be a whole number, not 0"),
        ("REPLICAS", 6, "NATS keeps 1 to 5"),
        ("REPLICAS", True, "must be a whole number"),
        ("REPLICAS", "3", "must be a whole number"),
        ("MAX_BYTES", 0, "must be a number of bytes or a size"),
        ("MAX_BYTES", -1, "must be a number of bytes"),
        ("MAX_BYTES", 1.5, "must be a number of bytes"),
        ("MAX_BYTES", True, "must be a number of bytes"),
        ("MAX_BYTES", "64 Mib", "not '64 Mib'"),
        ("MAX_BYTES", "MiB", "must be a number of bytes"),
        ("MAX_ENTRIES", -1, "must be a whole number"),
        ("MAX_ENTRIES", "many", "must be a whole number, not 'many'"),
        ("MAX_VALUE_SIZE", 0, "must be a number of bytes"),
        ("COMPRESS_MIN_LENGTH", -1, "must be a number of bytes"),
        ("COMPRESS_MIN_LENGTH", "1 kilo", "must be a number of bytes"),
        ("EVICT", 1, "must be True or False, not 1"),
        ("FAIL_OPEN", "yes", "must be True or False, not 'yes'"),
        ("PERSIST", "never", "it can be 'sync' or 'async'"),
        ("PERSIST", "async", 'only with STORAGE "file" and REPLICAS 1'),
        ("COMPRESSION", "gzip", "it can be 'none' or 's2'"),
        ("PLACEMENT", "eu", "must be a dict with CLUSTER, TAGS"),
        ("PLACEMENT", {"REGION": "eu"}, "has an unknown member 'REGION'"),
        ("PLACEMENT", {"TAGS": "ssd"}, "not a list of strings"),
        ("PLACEMENT", {"TAGS": [1]}, "not a list of strings"),
        ("PLACEMENT", {"TAGS": 1}, "not a list of strings"),
        ("PLACEMENT", {"CLUSTER": 1}, "CLUSTER that is not a string"),
        ("DESCRIPTION", None, "must be a string, not NoneType"),
        ("READS", "all", "it can be 'any' or 'leader'"),
        ("REQUEST_TIMEOUT", 0, "must be a number of seconds between 0 and 3600, not 0"),
        ("REQUEST_TIMEOUT", True, "must be a number of seconds"),
        ("CONNECT_TIMEOUT", "2", "must be a number of seconds"),
        ("CONNECT_TIMEOUT", float("nan"), "must be a number of seconds"),
        ("CONNECT_TIMEOUT", 3600, "must be a number of seconds"),
        ("NAME", 1, "must be a string"),
        ("TLS", True, "must be a dict with CA, CERT, HOSTNAME, KEY"),
        ("TLS", {"CERTIFICATE": "x"}, "has an unknown member 'CERTIFICATE'"),
        ("TLS", {"CA": 5}, "has a CA that is no string, but int"),
        ("TLS", {"KEY": "key.pem"}, "has a KEY, but no CERT"),
        ("INBOX_PREFIX", "a.>", "is no NATS subject without wildcards"),
        ("INBOX_PREFIX", "a\r\nPUB b 0", "is no NATS subject"),
        ("INBOX_PREFIX", "", "is no NATS subject"),
        ("INBOX_PREFIX", "a..b", "is no NATS subject"),
        ("INBOX_PREFIX", "bücher", "is no NATS subject"),
        ("USER", "web", "and PASSWORD go together"),
        ("SERIALIZER", "nowhere.Serializer", "cannot be imported"),
        ("ACCEPT", "pickle", "not a list of serializers"),
        ("EMBEDDED_DIR", "/tmp", 'LOCATION "embedded" only'),
    ],
)
def test_a_wrong_value_names_alias_and_option(
    entries: Any, option: str, value: object, said: str
) -> None:
    entries(web={"LOCATION": URL, "OPTIONS": {option: value}})
    with pytest.raises(ImproperlyConfigured) as caught:
        caches["web"]
    assert str(caught.value).startswith('CACHES["web"]: ')
    assert option in str(caught.value)
    assert said in str(caught.value)


def test_an_unknown_option_is_named_with_those_there_are() -> None:
    said = problem(EXPIRY=5)
    assert said.startswith("CACHES[\"?\"]: unknown option 'EXPIRY'. Known: ACCEPT, ")
    assert "BUCKET, " in said


@pytest.mark.parametrize(
    ("option", "meant"),
    [("MAX_BYTE", "MAX_BYTES"), ("BUKCET", "BUCKET"), ("fail_open", "FAIL_OPEN")],
)
def test_a_misspelt_option_is_answered_with_the_one_meant(option: str, meant: str) -> None:
    said = problem(**{option: 1})
    assert said == f'CACHES["?"]: unknown option {option!r}. Did you mean {meant}?'


@pytest.mark.parametrize("option", ["PASSWORD", "TOKEN", "NKEY_SEED"])
@pytest.mark.parametrize("value", [271828, b"271828", ["271828"]])
def test_a_secret_of_a_wrong_type_is_not_shown(option: str, value: object) -> None:
    said = problem(**{option: value})
    assert option in said
    assert "271828" not in said


# NEAR_CACHE ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"NEAR_CACHE": None}])
def test_without_a_near_cache(options: dict[str, object]) -> None:
    assert config(**options).near_cache is None


def test_a_near_cache_is_of_every_key_by_default() -> None:
    assert config(NEAR_CACHE={}).near_cache == NearCacheConfig(
        keys=("*",), bounds=Bounds(10_000, 64 * MIB, max_stale=1.0, max_age=60.0, misses=False)
    )


@pytest.mark.parametrize(
    ("member", "value", "expected"),
    [
        ("KEYS", ["flags:*", "config"], NearCacheConfig(keys=("flags:*", "config"))),
        ("KEYS", ("*",), NearCacheConfig()),
        ("MAX_ENTRIES", 1, NearCacheConfig(bounds=Bounds(max_entries=1))),
        ("MAX_BYTES", "8MiB", NearCacheConfig(bounds=Bounds(max_bytes=8 * MIB))),
        ("MAX_BYTES", 1, NearCacheConfig(bounds=Bounds(max_bytes=1))),
        ("MAX_BYTES", None, NearCacheConfig()),
        ("MAX_STALE", 0.25, NearCacheConfig(bounds=Bounds(max_stale=0.25))),
        ("MAX_STALE", 2, NearCacheConfig(bounds=Bounds(max_stale=2.0))),
        ("MAX_AGE", 0.5, NearCacheConfig(bounds=Bounds(max_age=0.5))),
        ("MISSES", True, NearCacheConfig(bounds=Bounds(misses=True))),
    ],
)
def test_members_of_near_cache(member: str, value: object, expected: NearCacheConfig) -> None:
    assert config(NEAR_CACHE={member: value}).near_cache == expected


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (True, 'CACHES["web"]: NEAR_CACHE must be a dict with KEYS, MAX_AGE, MAX_BYTES, '),
        (["flags:*"], 'CACHES["web"]: NEAR_CACHE must be a dict with KEYS, '),
        ({"KEY": ["a"]}, "NEAR_CACHE has an unknown member 'KEY'. Did you mean KEYS?"),
        ({"max_stale": 1}, "NEAR_CACHE has an unknown member 'max_stale'. Did you mean MAX_STALE?"),
        ({"TTL": 1}, "NEAR_CACHE has an unknown member 'TTL'. Known: KEYS, MAX_AGE, "),
        ({1: 1}, "NEAR_CACHE has an unknown member 1. Known: KEYS, "),
        ({"KEYS": ["a\ud800:*"]}, "NEAR_CACHE: KEYS holds 'a\\ud800:*', which is no key's: "),
        ({"KEYS": "flags:*"}, "KEYS must be a list of patterns like [\"flags:*\"], not 'flags:*'"),
        ({"KEYS": []}, "KEYS must be a list of patterns"),
        ({"KEYS": None}, "KEYS must be a list of patterns"),
        ({"KEYS": {"flags:*"}}, "KEYS must be a list of patterns"),
        ({"KEYS": [""]}, "KEYS holds ''; a pattern is a string like \"flags:*\""),
        ({"KEYS": ["a", 1]}, "KEYS holds 1; a pattern is a string"),
        ({"KEYS": ["a", b"a"]}, "KEYS holds b'a'; a pattern is a string"),
        ({"MAX_ENTRIES": 0}, "MAX_ENTRIES must be a whole number"),
        ({"MAX_ENTRIES": -1}, "MAX_ENTRIES must be a whole number"),
        ({"MAX_ENTRIES": 1.5}, "MAX_ENTRIES must be a whole number"),
        ({"MAX_ENTRIES": True}, "MAX_ENTRIES must be a whole number"),
        ({"MAX_ENTRIES": None}, "MAX_ENTRIES must be a whole number"),
        ({"MAX_BYTES": 0}, "MAX_BYTES must be a number of bytes"),
        ({"MAX_BYTES": "64 megs"}, "MAX_BYTES must be a number of bytes"),
        ({"MAX_STALE": 0}, "MAX_STALE must be a number of seconds"),
        ({"MAX_STALE": 0.09}, "MAX_STALE is 0.09 seconds; 0.25 is the least"),
        ({"MAX_STALE": "1"}, "MAX_STALE must be a number of seconds"),
        ({"MAX_STALE": None}, "MAX_STALE must be a number of seconds"),
        ({"MAX_AGE": 0}, "MAX_AGE must be a number of seconds"),
        ({"MAX_AGE": 3600}, "MAX_AGE must be a number of seconds between 0 and 3600"),
        ({"MAX_AGE": float("nan")}, "MAX_AGE must be a number of seconds"),
        ({"MISSES": 1}, "MISSES must be True or False, not 1"),
    ],
)
def test_a_wrong_near_cache_names_alias_and_member(entries: Any, value: object, said: str) -> None:
    entries(web={"LOCATION": URL, "OPTIONS": {"NEAR_CACHE": value}})
    with pytest.raises(ImproperlyConfigured) as caught:
        caches["web"]
    assert str(caught.value).startswith('CACHES["web"]')
    assert "NEAR_CACHE" in str(caught.value)
    assert said in str(caught.value)


# LOCATION ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("location", "servers"),
    [
        ("", [URL]),
        ("nats://a", ["nats://a:4222"]),
        ("nats://a:1/", ["nats://a:1"]),
        ("NATS://A:1", ["nats://a:1"]),
        ("a", ["nats://a:4222"]),
        ("a:1", ["nats://a:1"]),
        ("tls://a:1", ["tls://a:1"]),
        ("nats://[::1]:1", ["nats://[::1]:1"]),
        ("[::1]", ["nats://[::1]:4222"]),
        ("nats://a:1,nats://b:2", ["nats://a:1", "nats://b:2"]),
        ("a:1; tls://b:2 ,c", ["nats://a:1", "tls://b:2", "nats://c:4222"]),
        (["nats://a:1", "b"], ["nats://a:1", "nats://b:4222"]),
        (("a",), ["nats://a:4222"]),
    ],
)
def test_location(location: object, servers: list[str]) -> None:
    assert config(location).connection == ConnectionConfig(servers=tuple(servers))


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("nats://web:s3cret@a:1", {"user": "web", "password": "s3cret"}),
        ("web:s3cret@a:1", {"user": "web", "password": "s3cret"}),
        ("nats://w%40b:s%3A%2F@a:1", {"user": "w@b", "password": "s:/"}),
        ("nats://s3cret@a:1", {"token": "s3cret"}),
        (["nats://s3cret@a:1", "a:1"], {"token": "s3cret"}),
    ],
)
def test_credentials_in_the_location(location: object, expected: dict[str, str]) -> None:
    connection = config(location).connection
    assert set(connection.servers) == {"nats://a:1"}
    assert {"user", "password", "token"} & vars(connection).keys()
    assert {name: getattr(connection, name) for name in expected} == expected
    assert "s3cret" not in connection.where


@pytest.mark.parametrize(
    ("location", "options"),
    [
        ("nats://a:s3cret@a,nats://a:0ther@b", {}),
        ("nats://s3cret@a", {"TOKEN": "0ther"}),
        ("nats://a:s3cret@a", {"USER": "b", "PASSWORD": "s3cret"}),
    ],
)
def test_differing_credentials_are_refused(location: str, options: dict[str, str]) -> None:
    said = problem(location, **options)
    assert "LOCATION has credentials that are not the same everywhere" in said
    assert "s3cret" not in said
    assert "0ther" not in said


@pytest.mark.parametrize(
    "location",
    [
        "redis://:s3cret@a:1",
        "ws://:s3cret@a:1",
        "nats://",
        "nats://s3cret@",
        "nats://:s3cret@a:port",
        "nats://:s3cret@a:70000",
        "nats://a:0",
        "nats://:s3cret@a:1/path",
        "nats://a:1?tls=s3cret",
        "nats://[s3cret",
        "a,,b",
        [],
        None,
        5,
        [None],
        {"a": 1},
    ],
)
def test_a_wrong_location_is_refused_without_repeating_it(location: object) -> None:
    said = problem(location)
    assert said.startswith('CACHES["?"]: LOCATION must be ')
    assert '"embedded"' in said
    assert "s3cret" not in said


@pytest.mark.parametrize(
    ("location", "shown"),
    [
        ("redis://127.0.0.1:6379", "'redis://127.0.0.1:6379'"),
        ("http://user:s3cret@a:1/path", "'http://***@a:1***'"),
        ("nats://user:s3cret", "'nats://user***'"),
        ("nats://user:1234567", "'nats://user***'"),
        ("nats://user:12s3cret", "'nats://user***'"),
        ("nats://a:1,http://b", "'http://b'"),
        (["nats://a", 5], "int"),
        ("nats://a,,nats://b", "''"),
        (None, "None"),
        ([], "[]"),
    ],
)
def test_a_wrong_location_is_shown_but_for_what_may_be_a_secret(
    location: object, shown: str
) -> None:
    assert problem(location).endswith(f', or "embedded", not {shown}.')


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"USER": "a", "PASSWORD": "b", "TOKEN": "c"}, "TOKEN and USER are two ways to log in"),
        ({"TOKEN": "c", "NKEY_SEED": "d"}, "NKEY_SEED and TOKEN are two ways"),
        ({"NKEY_SEED": "d", "CREDENTIALS": "e"}, "CREDENTIALS and NKEY_SEED are two ways"),
        ({"PASSWORD": "b"}, "USER and PASSWORD go together"),
    ],
)
def test_one_way_to_log_in(options: dict[str, str], said: str) -> None:
    assert said in problem(**options)


# The embedded server -------------------------------------------------------------------------


def test_embedded_is_for_development(tmp_path: Path) -> None:
    with override_settings(DEBUG=True, BASE_DIR=tmp_path):
        assert config("embedded").connection.embedded == str(tmp_path / ".nats")
    # The same entry, once more: what was read under other settings does not stand.
    with override_settings(DEBUG=False, BASE_DIR=tmp_path):
        assert "DEBUG is off" in problem("embedded")
        assert "in tests use the pytest fixture nats_cache" in problem("embedded")
        assert "set ALLOW_EMBEDDED to True" in problem("embedded")
        assert "DEBUG is off" in problem("embedded", ALLOW_EMBEDDED=False)
        allowed = config("embedded", ALLOW_EMBEDDED=True).connection
        assert allowed.embedded == str(tmp_path / ".nats")
    with override_settings(DEBUG=True, BASE_DIR=str(tmp_path / "moved")):
        assert config("embedded").connection.embedded == str(tmp_path / "moved" / ".nats")
        chosen = config("embedded", EMBEDDED_DIR=tmp_path / "x").connection
        assert chosen.embedded == str(tmp_path / "x")


def test_what_is_embedded_is_kept_in_files_unless_settings_say_otherwise() -> None:
    with override_settings(DEBUG=True):
        assert config("embedded").bucket.storage == "file"
        assert config("embedded", STORAGE="memory").bucket.storage == "memory"
    assert config(URL).bucket.storage == "memory"


@pytest.mark.parametrize(
    ("option", "value"),
    [("TOKEN", "s3cret"), ("CREDENTIALS", "s3cret"), ("TLS", {"CA": "s3cret"})],
)
def test_embedded_takes_no_credentials(option: str, value: object) -> None:
    with override_settings(DEBUG=True):
        said = problem("embedded", **{option: value})
    assert f'{option} does not go with LOCATION "embedded"' in said
    assert "s3cret" not in said


# Aliases -------------------------------------------------------------------------------------


def test_aliases_are_told_apart(entries: Any) -> None:
    entries(
        one={"LOCATION": "nats://a"},
        two={"LOCATION": "nats://b"},
        three={"LOCATION": "nats://b", "TIMEOUT": 5},
        four={"LOCATION": "nats://b", "OPTIONS": {"BUCKET": "other"}},
        five={},
    )
    for alias in ("one", "two", "three", "four", "five"):
        assert caches[alias].alias == alias


def test_an_alias_that_was_renamed_is_called_by_its_new_name(entries: Any) -> None:
    for alias in ("before", "after"):
        entries(**{alias: {"LOCATION": "nats://a", "OPTIONS": {"BUCKET": "renamed"}}})
        assert caches[alias].alias == alias


def test_settings_are_read_once_for_all_the_objects_of_an_alias() -> None:
    assert config(BUCKET="once") is config(BUCKET="once")
    assert config(BUCKET="once") is not config(BUCKET="twice")


def test_aliases_that_say_the_same_share_session_and_bucket() -> None:
    same = config(USER="web", PASSWORD="pw")
    # Only how values are written differs.
    other = config(USER="web", PASSWORD="pw", SERIALIZER=JSONSerializer)
    assert bridge.session(same.connection) is bridge.session(other.connection)
    assert bridge.bucket(same.connection, same.bucket) is bridge.bucket(
        other.connection, other.bucket
    )
    second = config(USER="web", PASSWORD="pw", BUCKET="second")
    assert bridge.session(same.connection) is bridge.session(second.connection)
    assert bridge.bucket(same.connection, same.bucket) is not bridge.bucket(
        second.connection, second.bucket
    )


def test_what_differs_in_credentials_or_tls_never_shares() -> None:
    ways: list[dict[str, Any]] = [
        {},
        {"USER": "web", "PASSWORD": "pw"},
        {"USER": "web", "PASSWORD": "other"},
        {"USER": "other", "PASSWORD": "pw"},
        {"TOKEN": "web"},
        {"NKEY_SEED": "web"},
        {"CREDENTIALS": "web"},
        {"TLS": {}},
        {"TLS": {"CA": "web"}},
        {"TLS": {"CERT": "web"}},
        {"TLS": {"HOSTNAME": "web"}},
    ]
    connections = [config(**options).connection for options in ways]
    assert len({id(bridge.session(each)) for each in connections}) == len(ways)
    buckets = {id(bridge.bucket(each, BucketConfig("web"))) for each in connections}
    assert len(buckets) == len(ways)


def test_no_secret_in_a_repr() -> None:
    seed = accounts.user().seed
    for options in (
        {"USER": "web", "PASSWORD": seed},
        {"TOKEN": seed},
        {"NKEY_SEED": seed},
    ):
        made = config(**options)
        session = bridge.session(made.connection)
        bucket = bridge.bucket(made.connection, made.bucket)
        for each in (made, made.connection, session, bucket, vars(session), vars(bucket)):
            assert seed not in repr(each)
