"""The reference pages are complete, and the permissions that the docs list suffice."""

from __future__ import annotations

import ast
import inspect
import json
import re
from pathlib import Path

import pytest
from django.test import override_settings

from django_nats import checks, exceptions
from django_nats.cache import NatsCache
from django_nats.checks import feeds
from django_nats.client import process as client_process
from django_nats.client.kv import tombstones
from django_nats.client.protocol import wire
from django_nats.conf import caches as conf
from django_nats.conf import nearcache, republish
from django_nats.conf.connection import CONNECTION_OPTIONS, EMBEDDED_OPTIONS, TLS_MEMBERS
from django_nats.conf.counters import COUNTER_OPTIONS, SOURCE_MEMBERS, counter_settings
from django_nats.conf.secrets import SECRET_MEMBERS, SECRETS
from django_nats.conf.streams import PLACEMENT_MEMBERS
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import PermissionDenied
from tests.conftest import PATIENT
from tests.counters.conftest import PATIENT as PATIENT_COUNTERS
from tests.support.logins import authorization

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
URL = "nats://127.0.0.1:4222"


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def column(page: str, number: int = 0) -> list[str]:
    """Return the cells of one column of all tables of a page."""
    rows = re.findall(r"^\| .*\|$", text_of(page), re.MULTILINE)
    split = [row.strip("| ").split(" | ") for row in rows]
    return [cells[number] for cells in split if len(cells) > number]


def test_every_option_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", text_of("reference/settings.md"), re.M)
    documented = {option: ast.literal_eval(default) for option, default in rows}

    config = conf.cache_config(URL, {})
    actual = {
        **{
            option: getattr(config.connection, name)
            for option, name in conf.CONNECTION_OPTIONS.items()
        },
        **{
            option: getattr(config.bucket, name)
            for option, name in conf.BUCKET_OPTIONS.items()
            if option not in ("PLACEMENT", "METADATA")
        },
        "PLACEMENT": {},
        "METADATA": {},
        "SERIALIZER": "django_nats.serializers." + type(config.codec.serializer).__name__,
        "ACCEPT": list(config.codec.accept),
        "PICKLE_VERSION": None,
        "COMPRESSOR": config.codec.compressor,
        "COMPRESS_MIN_LENGTH": config.codec.compress_min_length,
        "FAIL_OPEN": config.fail_open,
        "NEAR_CACHE": config.near_cache,
        "EMBEDDED_DIR": None,
        "ALLOW_EMBEDDED": False,
    }
    assert documented == actual
    assert documented.keys() == conf.CACHE_OPTIONS


def test_every_member_of_near_cache_is_documented_with_its_default() -> None:
    rows = re.findall(r'^\| `"([A-Z_]+)"` \| `([^`]+)` \|', text_of("reference/settings.md"), re.M)
    documented = {member: ast.literal_eval(default) for member, default in rows}

    assert documented.keys() == nearcache.MEMBERS
    spelt_out = conf.cache_config(URL, {"OPTIONS": {"NEAR_CACHE": documented}})
    assert spelt_out.near_cache == nearcache.NearCacheConfig()


def test_every_option_of_counters_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", text_of("reference/counters.md"), re.M)
    documented = {option: ast.literal_eval(default) for option, default in rows}

    with override_settings(NATS_COUNTERS={"default": {}}):
        entry = counter_settings("default")
    stream = {"STREAM", "PREFIX", "STORAGE", "REPLICAS", "HISTORY", "MAX_AGE", "SOURCES"}
    stream |= {"MAX_BYTES", "COMPRESSION", "DESCRIPTION", "READS"}
    actual = {
        "LOCATION": ",".join(entry.connection.servers),
        **{option: getattr(entry.stream, option.lower()) for option in stream},
        "SOURCES": [*entry.stream.sources],
        "PLACEMENT": {},
        "METADATA": {},
        "JS_DOMAIN": entry.stream.domain,
        "JS_API_PREFIX": entry.stream.api_prefix,
        **{
            option: getattr(entry.stream, option.lower())
            for option in ("DEADLINE", "REQUEST_TIMEOUT")
        },
        **{
            option: getattr(entry, option.lower())
            for option in ("FAIL_OPEN", "FLUSH_INTERVAL", "FLUSH_AT", "MAX_PENDING")
        },
    }
    assert documented == actual
    connection = text_of("reference/counters.md").partition("### Connection\n\n")[2]
    shared = {*re.findall(r"`([A-Z_]+)`", connection.partition("are [those of a cache]")[0])}
    assert shared == {*CONNECTION_OPTIONS, *EMBEDDED_OPTIONS}
    assert {*documented, *shared} == COUNTER_OPTIONS


def cell(page: str, option: str) -> str:
    """Return what a reference page says about an option: the fourth cell of its row."""
    (row,) = re.findall(rf"^\| `{option}` \| .*", text_of(page), re.MULTILINE)
    return str(row.split(" | ")[3])


SETTINGS, COUNTERS = "reference/settings.md", "reference/counters.md"


@pytest.mark.parametrize(
    ("page", "option", "members"),
    [
        (SETTINGS, "TLS", TLS_MEMBERS),
        (SETTINGS, "PLACEMENT", PLACEMENT_MEMBERS),
        (COUNTERS, "PLACEMENT", PLACEMENT_MEMBERS),
    ],
)
def test_every_member_of_an_option_is_documented(page: str, option: str, members: object) -> None:
    assert {*re.findall(r"`([A-Z_]+)`", cell(page, option))} == members


def test_every_member_of_republish_is_documented() -> None:
    table = text_of(SETTINGS).partition("### Republish\n")[2].partition("\n### ")[0]
    assert {*re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)} == republish.MEMBERS


def test_every_member_of_a_source_is_documented() -> None:
    (sentence,) = re.findall(r"^A dict in `SOURCES` has (.*?)\.$", text_of(COUNTERS), re.M | re.S)
    assert {*re.findall(r"`([A-Z_]+)`", sentence)} == SOURCE_MEMBERS


def test_every_secret_is_documented_as_an_option_that_may_be_a_function() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| .*\(#secrets\)", text_of(SETTINGS), re.MULTILINE)
    section = text_of(SETTINGS).partition("#### Secrets from a function\n")[2]
    listed, _, rest = section.partition(" may be a function")
    assert {*rows} == {*re.findall(r"`([A-Z_]+)`", listed)} == {*SECRETS}
    assert {*re.findall(r'`\{"([A-Z_]+)": ', rest)} == SECRET_MEMBERS


def test_every_environment_variable_is_documented() -> None:
    section = text_of(SETTINGS).partition("## Environment variables\n")[2].partition("\n## ")[0]
    sources = "".join(each.read_text() for each in (ROOT / "django_nats").rglob("*.py"))
    used = {*re.findall(r'"((?:DJANGO_)?NATS_[A-Z_]+)"', sources)}
    used -= {"NATS_COUNTERS", "NATS_LIMITS"}
    assert {*re.findall(r"^`([A-Z_]+)", section, re.MULTILINE)} == used


def operations(of: type = NatsCache) -> set[str]:
    return {
        name[1:]
        for name in dir(of)
        if name[1:]
        and hasattr(of, "a" + name[1:])
        and inspect.isgeneratorfunction(getattr(of, name))
    }


def both_methods(of: type) -> set[str]:
    """Return the names of all operations of a class, and those of their async versions."""
    return {prefix + name for name in operations(of) for prefix in ("", "a")}


def test_every_operation_on_counters_is_in_the_reference() -> None:
    documented = re.findall(r"automethod:: (Counters?)\.(\w+)", text_of("reference/counters.md"))

    assert {name for owner, name in documented if owner == "Counter"} == {
        *both_methods(Counter),
        "incr_later",
    }
    assert {name for owner, name in documented if owner == "Counters"} == {
        *both_methods(Counters),
        *("incr_later", "flush", "aflush"),
    }


def test_every_operation_of_the_cache_is_in_the_reference() -> None:
    pages = text_of("reference/api.md") + text_of("reference/near-cache.md")
    documented = re.findall(r"automethod:: NatsCache\.(\w+)", pages)

    assert sorted(documented) == sorted({*both_methods(NatsCache), "watch"})


def test_every_error_is_explained_and_exists() -> None:
    page = text_of("reference/errors.md")
    tree = page.split("```text")[1].split("```")[0]
    terms = re.findall(r"^(`.*`)\n: ", page, re.MULTILINE)
    kinds = {
        name
        for name, kind in vars(exceptions).items()
        if isinstance(kind, type) and issubclass(kind, (Exception, Warning))
    }
    errors = {name for name in kinds if issubclass(getattr(exceptions, name), exceptions.NatsError)}

    assert {*re.findall(r"(?:^|── |, )([A-Z]\w+)", tree, re.MULTILINE)} == errors
    explained = {name for term in terms for name in re.findall(r"`(\w+)`", term)}
    assert explained - {"ImproperlyConfigured"} == kinds - {"NatsError"}


def test_every_system_check_is_explained() -> None:
    ids = set(re.findall(r"django_nats\.[EW]\d{3}", inspect.getsource(checks)))

    assert {
        cell.strip("`") for cell in column("reference/checks.md") if "django_nats." in cell
    } == ids


def test_every_stored_header_is_on_the_wire_format_page() -> None:
    stored = set(re.findall(r'"((?:KV|Nats)-[\w-]+)"', inspect.getsource(tombstones)))
    documented = {cell.strip("`") for cell in column("reference/wire-format.md") if "-" in cell}

    assert documented >= {*stored, wire.FORMAT_HEADER, wire.KEY_HEADER}
    assert f"| `{tombstones.TOMBSTONE_TTL}` |" in text_of("reference/wire-format.md")


# Permissions ---------------------------------------------------------------------------------


def test_the_documented_permissions_suffice_for_a_cache() -> None:
    cells = [cell for cell in column("how-to/configure.md", 1) if "$KV.web_cache" in cell]
    publish = re.findall(r"`([^`]+)`", cells[0])
    config = json.dumps({"permissions": {"publish": publish, "subscribe": ["_INBOX.>"]}})
    users = authorization(f"users: [{{ user: web, password: secret, {config[1:-1]} }}]")
    options = {"USER": "web", "PASSWORD": "secret", "BUCKET": "web_cache", **PATIENT}
    with NatsServer(token="", config=users) as server:
        for reads in ("any", "leader"):
            cache = NatsCache(server.url, {"OPTIONS": {**options, "READS": reads}})
            cache.set_many({"a": 1, "b": 2})
            assert cache.get("a") == 1
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert cache.incr("a") == 2
            assert sorted(cache.keys()) == ["a", "b"]
            assert cache.delete("a")
            cache.clear()
            assert cache.stats().connected
        near_options = {**options, "NEAR_CACHE": {}}
        followed = {"web": NatsCache(server.url, {"OPTIONS": near_options})}
        assert [*feeds.check_feeds(followed)] == []
        elsewhere = NatsCache(server.url, {"OPTIONS": {**options, "BUCKET": "other"}})
        with pytest.raises(PermissionDenied):
            elsewhere.get("a")
        client_process.close()


def test_the_documented_permissions_suffice_for_counters() -> None:
    cells = [cell for cell in column("reference/counters.md", 1) if "`counters.>`" in cell]
    publish = re.findall(r"`([^`]+)`", cells[0])
    config = json.dumps({"permissions": {"publish": publish, "subscribe": ["_INBOX.>"]}})
    users = authorization(f"users: [{{ user: web, password: secret, {config[1:-1]} }}]")
    with NatsServer(token="", config=users) as server:
        entry = {"LOCATION": server.url, "USER": "web", "PASSWORD": "secret", **PATIENT_COUNTERS}
        aliases = {"default": entry, "other": {**entry, "STREAM": "OTHER"}}
        with override_settings(NATS_COUNTERS=aliases):
            counters = Counters()
            for number in range(1100):
                counters.incr_later(f"a.{number}")
            counters.flush()
            assert Counter("a.1").set(3) == 3
            assert Counter("a.1").value() == 3
            assert Counter("a.1").take()
            assert counters.get_many(["a.1", "a.2"]) == {"a.1": 2, "a.2": 1}
            assert counters.total("a.>") == 1101
            Counter("a.1").reset()
            with pytest.raises(PermissionDenied):
                Counters("other").incr("a")
        client_process.close()
