from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_nats.client import process
from django_nats.client.kv.config import BucketConfig
from django_nats.client.kv.copies import Bounds
from django_nats.client.transport.config import ConnectionConfig, TLSConfig
from django_nats.conf.caches import CACHE_OPTIONS, cache_config
from django_nats.conf.django_redis import PAGE, REPLACEMENTS
from django_nats.conf.nearcache import NearCacheConfig
from django_nats.serializers import JSONSerializer, PickleSerializer
from tests.support import accounts
from tests.support.configuring import URL, config, problem

MIB = 1024 * 1024


@pytest.fixture
def entries() -> Iterator[Any]:
    """Yield a function that sets CACHES: ``entries(web={…})`` adds this package's backend."""
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


def test_an_empty_entry_has_the_defaults() -> None:
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
def test_a_bucket_option_sets_its_attribute(
    option: str, value: object, attribute: str, expected: object
) -> None:
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
        ("MAX_RECONNECT_WAIT", 1, "max_reconnect_wait", 1.0),
        ("MAX_REFUSED_WAIT", 60, "max_refused_wait", 60.0),
        ("TLS", {}, "tls", TLSConfig()),
        (
            "TLS",
            {"CA": Path("ca"), "CERT": "crt", "KEY": "key", "HOSTNAME": "nats"},
            "tls",
            TLSConfig("ca", "crt", "key", "nats"),
        ),
        ("TLS", {"HANDSHAKE_FIRST": True}, "tls", TLSConfig(handshake_first=True)),
        ("DISCOVER", False, "discover", False),
        ("RANDOMIZE", False, "randomize", False),
    ],
)
def test_a_connection_option_sets_its_attribute(
    option: str, value: object, attribute: str, expected: object
) -> None:
    assert getattr(config(**{option: value}).connection, attribute) == expected


def test_combined_options_are_accepted() -> None:
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


def test_codec_options_configure_the_codec() -> None:
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
    ("option", "value", "message"),
    [
        ("BUCKET", "web.cache", "'web.cache'; a bucket's name is made of"),
        ("BUCKET", "", "a bucket's name is made of"),
        ("BUCKET", 5, "must be a string, not int"),
        ("STORAGE", "disk", "is 'disk'; it must be 'memory' or 'file'"),
        ("STORAGE", ["file"], "it must be"),
        ("REPLICAS", 0, "must be an integer of at least 1, not 0"),
        ("REPLICAS", 6, "it must be a number from 1 to 5"),
        ("REPLICAS", True, "must be an integer of at least 1"),
        ("REPLICAS", "3", "must be an integer of at least 1"),
        ("MAX_BYTES", 0, "must be a number of bytes or a size"),
        ("MAX_BYTES", -1, "must be a number of bytes"),
        ("MAX_BYTES", 1.5, "must be a number of bytes"),
        ("MAX_BYTES", True, "must be a number of bytes"),
        ("MAX_BYTES", "64 Mib", "not '64 Mib'"),
        ("MAX_BYTES", "MiB", "must be a number of bytes"),
        ("MAX_ENTRIES", -1, "must be an integer of at least 0"),
        ("MAX_ENTRIES", "many", "must be an integer of at least 0, not 'many'"),
        ("MAX_VALUE_SIZE", 0, "must be a number of bytes"),
        ("COMPRESS_MIN_LENGTH", -1, "must be a number of bytes"),
        ("COMPRESS_MIN_LENGTH", "1 kilo", "must be a number of bytes"),
        ("EVICT", 1, "must be True or False, not 1"),
        ("FAIL_OPEN", "yes", "must be True or False, not 'yes'"),
        ("PERSIST", "never", "it must be 'sync' or 'async'"),
        ("PERSIST", "async", 'only with STORAGE "file" and REPLICAS 1'),
        ("COMPRESSION", "gzip", "it must be 'none' or 's2'"),
        ("PLACEMENT", "eu", "must be a dict with CLUSTER, TAGS"),
        ("PLACEMENT", {"REGION": "eu"}, "has an unknown member 'REGION'"),
        ("PLACEMENT", {"TAGS": "ssd"}, "not a list of strings"),
        ("PLACEMENT", {"TAGS": [1]}, "not a list of strings"),
        ("PLACEMENT", {"TAGS": 1}, "not a list of strings"),
        ("PLACEMENT", {"CLUSTER": 1}, "CLUSTER that is not a string"),
        ("DESCRIPTION", None, "must be a string, not NoneType"),
        ("READS", "all", "it must be 'any' or 'leader'"),
        ("REQUEST_TIMEOUT", 0, "must be a number of seconds above 0 and below 3600, not 0"),
        ("REQUEST_TIMEOUT", True, "must be a number of seconds"),
        ("CONNECT_TIMEOUT", "2", "must be a number of seconds"),
        ("MAX_RECONNECT_WAIT", 0, "must be a number of seconds"),
        ("MAX_REFUSED_WAIT", None, "must be a number of seconds"),
        ("CONNECT_TIMEOUT", float("nan"), "must be a number of seconds"),
        ("CONNECT_TIMEOUT", 3600, "must be a number of seconds"),
        ("NAME", 1, "must be a string"),
        ("TLS", True, "must be a dict with CA, CERT, HANDSHAKE_FIRST, HOSTNAME, KEY"),
        ("TLS", {"CERTIFICATE": "x"}, "has an unknown member 'CERTIFICATE'"),
        ("TLS", {"CA": 5}, "has a CA that is not a string, but int"),
        ("TLS", {"KEY": "key.pem"}, "has a KEY, but no CERT"),
        ("TLS", {"HANDSHAKE_FIRST": "yes"}, "has a HANDSHAKE_FIRST that is not True or False"),
        ("DISCOVER", 0, "must be True or False, not 0"),
        ("RANDOMIZE", "no", "must be True or False, not 'no'"),
        ("INBOX_PREFIX", "a.>", "is not a NATS subject without wildcards"),
        ("INBOX_PREFIX", "a\r\nPUB b 0", "is not a NATS subject"),
        ("INBOX_PREFIX", "", "is not a NATS subject"),
        ("INBOX_PREFIX", "a..b", "is not a NATS subject"),
        ("INBOX_PREFIX", "bücher", "is not a NATS subject"),
        ("USER", "web", "and PASSWORD must be given together"),
        ("SERIALIZER", "nowhere.Serializer", "cannot be imported"),
        ("ACCEPT", "pickle", "not a list of serializers"),
        ("EMBEDDED_DIR", "data", 'and ALLOW_EMBEDDED need LOCATION "embedded"'),
    ],
)
def test_a_wrong_value_names_alias_and_option(
    entries: Any, option: str, value: object, message: str
) -> None:
    entries(web={"LOCATION": URL, "OPTIONS": {option: value}})
    with pytest.raises(ImproperlyConfigured) as caught:
        caches["web"]
    assert str(caught.value).startswith('CACHES["web"]: ')
    assert option in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("option", "replacement"),
    [
        ("CLIENT_CLASS", "There is one client"),
        ("IGNORE_EXCEPTIONS", "Use FAIL_OPEN"),
        ("SOCKET_TIMEOUT", "Use REQUEST_TIMEOUT"),
        ("USERNAME", "Use USER"),
        ("CONNECTION_POOL_KWARGS", "Each process has one connection"),
        ("pool_class", "Each process has one connection"),
    ],
)
def test_an_option_of_django_redis_is_refused_with_what_replaces_it(
    option: str, replacement: str
) -> None:
    message = problem(**{option: "x"})
    assert message.startswith(f'CACHES["?"]: unknown option {option!r}. It is an option of django')
    assert replacement in message
    assert message.endswith(f"{PAGE}.")


def test_the_page_about_moving_exists_and_has_that_title() -> None:
    title, path = re.fullmatch(r'See "(.*)" \((.*)\)', PAGE).groups()  # type: ignore[union-attr]
    page = (Path(__file__).parents[1] / path).read_text()
    assert page.startswith(f"# {title}\n")
    # What the page replaces, the messages replace as well.
    table = page[: page.index("## Methods")]
    ours = {*CACHE_OPTIONS, "TIMEOUT", "KEY_PREFIX", "VERSION", "KEY_FUNCTION", "LOCATION"}
    for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE):
        for option in re.findall(r"`([A-Z_]{3,})`", row):
            if not option.startswith(("DJANGO_REDIS", "REVERSE")):
                assert option in ours or option in REPLACEMENTS, option


def test_an_unknown_option_is_named_with_the_known_ones() -> None:
    message = problem(EXPIRY=5)
    assert message.startswith("CACHES[\"?\"]: unknown option 'EXPIRY'. Known: ACCEPT, ")
    assert "BUCKET, " in message


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("MAX_BYTE", "MAX_BYTES"),
        ("BUKCET", "BUCKET"),
        ("fail_open", "FAIL_OPEN"),
        ("CREDS", "CREDENTIALS"),
    ],
)
def test_a_misspelt_option_gets_a_suggestion(option: str, meant: str) -> None:
    message = problem(**{option: 1})
    assert message == f'CACHES["?"]: unknown option {option!r}. Did you mean {meant}?'


@pytest.mark.parametrize("option", ["PASSWORD", "TOKEN", "NKEY_SEED"])
@pytest.mark.parametrize("value", [271828, b"271828", ["271828"]])
def test_a_secret_of_a_wrong_type_is_not_shown(option: str, value: object) -> None:
    message = problem(**{option: value})
    assert option in message
    assert "271828" not in message


# NEAR_CACHE ----------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"NEAR_CACHE": None}])
def test_no_near_cache_is_configured_by_default(options: dict[str, object]) -> None:
    assert config(**options).near_cache is None


def test_a_near_cache_covers_every_key_by_default() -> None:
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
def test_a_member_of_near_cache_sets_its_bound(
    member: str, value: object, expected: NearCacheConfig
) -> None:
    assert config(NEAR_CACHE={member: value}).near_cache == expected


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, 'CACHES["web"]: NEAR_CACHE must be a dict with KEYS, MAX_AGE, MAX_BYTES, '),
        (["flags:*"], 'CACHES["web"]: NEAR_CACHE must be a dict with KEYS, '),
        ({"KEY": ["a"]}, "NEAR_CACHE has an unknown member 'KEY'. Did you mean KEYS?"),
        ({"max_stale": 1}, "NEAR_CACHE has an unknown member 'max_stale'. Did you mean MAX_STALE?"),
        ({"TTL": 1}, "NEAR_CACHE has an unknown member 'TTL'. Known: KEYS, MAX_AGE, "),
        ({1: 1}, "NEAR_CACHE has an unknown member 1. Known: KEYS, "),
        ({"KEYS": ["a\ud800:*"]}, "NEAR_CACHE: KEYS holds 'a\\ud800:*', which no key can match: "),
        ({"KEYS": "flags:*"}, "KEYS must be a list of patterns like [\"flags:*\"], not 'flags:*'"),
        ({"KEYS": []}, "KEYS must be a list of patterns"),
        ({"KEYS": None}, "KEYS must be a list of patterns"),
        ({"KEYS": {"flags:*"}}, "KEYS must be a list of patterns"),
        ({"KEYS": [""]}, "KEYS holds ''; a pattern is a string like \"flags:*\""),
        ({"KEYS": ["a", 1]}, "KEYS holds 1; a pattern is a string"),
        ({"KEYS": ["a", b"a"]}, "KEYS holds b'a'; a pattern is a string"),
        ({"MAX_ENTRIES": 0}, "MAX_ENTRIES must be an integer of at least 1"),
        ({"MAX_ENTRIES": -1}, "MAX_ENTRIES must be an integer of at least 1"),
        ({"MAX_ENTRIES": 1.5}, "MAX_ENTRIES must be an integer of at least 1"),
        ({"MAX_ENTRIES": True}, "MAX_ENTRIES must be an integer of at least 1"),
        ({"MAX_ENTRIES": None}, "MAX_ENTRIES must be an integer of at least 1"),
        ({"MAX_BYTES": 0}, "MAX_BYTES must be a number of bytes"),
        ({"MAX_BYTES": "64 megs"}, "MAX_BYTES must be a number of bytes"),
        ({"MAX_STALE": 0}, "MAX_STALE must be a number of seconds"),
        ({"MAX_STALE": 0.09}, "MAX_STALE must be at least 0.25 s, not 0.09 s"),
        ({"MAX_STALE": "1"}, "MAX_STALE must be a number of seconds"),
        ({"MAX_STALE": None}, "MAX_STALE must be a number of seconds"),
        ({"MAX_AGE": 0}, "MAX_AGE must be a number of seconds"),
        ({"MAX_AGE": 3600}, "MAX_AGE must be a number of seconds above 0 and below 3600"),
        ({"MAX_AGE": float("nan")}, "MAX_AGE must be a number of seconds"),
        ({"MISSES": 1}, "MISSES must be True or False, not 1"),
    ],
)
def test_a_wrong_near_cache_names_alias_and_member(
    entries: Any, value: object, message: str
) -> None:
    entries(web={"LOCATION": URL, "OPTIONS": {"NEAR_CACHE": value}})
    with pytest.raises(ImproperlyConfigured) as caught:
        caches["web"]
    assert str(caught.value).startswith('CACHES["web"]')
    assert "NEAR_CACHE" in str(caught.value)
    assert message in str(caught.value)


# Aliases -------------------------------------------------------------------------------------


def test_each_cache_knows_its_alias(entries: Any) -> None:
    entries(
        one={"LOCATION": "nats://a"},
        two={"LOCATION": "nats://b"},
        three={"LOCATION": "nats://b", "TIMEOUT": 5},
        four={"LOCATION": "nats://b", "OPTIONS": {"BUCKET": "other"}},
        five={},
    )
    for alias in ("one", "two", "three", "four", "five"):
        assert caches[alias].alias == alias


def test_a_renamed_alias_is_known_by_its_new_name(entries: Any) -> None:
    for alias in ("before", "after"):
        entries(**{alias: {"LOCATION": "nats://a", "OPTIONS": {"BUCKET": "renamed"}}})
        assert caches[alias].alias == alias


def test_equal_settings_are_read_once() -> None:
    assert config(BUCKET="once") is config(BUCKET="once")
    assert config(BUCKET="once") is not config(BUCKET="twice")


def test_aliases_with_equal_options_share_session_and_bucket() -> None:
    same = config(USER="web", PASSWORD="pw")
    # Only the serializer differs.
    other = config(USER="web", PASSWORD="pw", SERIALIZER=JSONSerializer)
    assert process.session(same.connection) is process.session(other.connection)
    assert process.bucket(same.connection, same.bucket) is process.bucket(
        other.connection, other.bucket
    )
    second = config(USER="web", PASSWORD="pw", BUCKET="second")
    assert process.session(same.connection) is process.session(second.connection)
    assert process.bucket(same.connection, same.bucket) is not process.bucket(
        second.connection, second.bucket
    )


def test_connections_with_other_credentials_or_tls_are_never_shared() -> None:
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
        {"TLS": {"HANDSHAKE_FIRST": True}},
        {"DISCOVER": False},
        {"RANDOMIZE": False},
    ]
    connections = [config(**options).connection for options in ways]
    assert len({id(process.session(each)) for each in connections}) == len(ways)
    buckets = {id(process.bucket(each, BucketConfig("web"))) for each in connections}
    assert len(buckets) == len(ways)


def test_reprs_show_no_secret() -> None:
    seed = accounts.user().seed
    content = accounts.Operator().credentials()
    for option, secret in (
        ("PASSWORD", "s3cr3t"),
        ("TOKEN", "s3cr3t"),
        ("NKEY_SEED", seed),
        ("CREDENTIALS_CONTENT", content),
    ):
        made = config(**{option: secret}, **({"USER": "web"} if option == "PASSWORD" else {}))
        session = process.session(made.connection)
        bucket = process.bucket(made.connection, made.bucket)
        for each in (made, made.connection, session, bucket, vars(session), vars(bucket)):
            assert secret.splitlines()[-2 if "\n" in secret else 0] not in repr(each)
