"""Reading values written by others: unreadable, untrusted, or by another client."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest
from django.core.cache.backends.base import CacheKeyWarning
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.devserver import NatsServer
from tests.cache.conftest import Left, MakeTwin, plant, publish, stored
from tests.conftest import PATIENT, MakeCache
from tests.support.foreign import key_value, keys_of

PICKLE = "django_nats.serializers.PickleSerializer"
SIGNED = "django_nats.serializers.SignedPickleSerializer"
JSON = "django_nats.serializers.JSONSerializer"
MSGPACK = "django_nats.serializers.MsgPackSerializer"
ZLIB = "django_nats.compressors.ZlibCompressor"
ALL = [PICKLE, SIGNED, JSON, MSGPACK]
VALUE = {"text": "é", "list": [1, 2.5, None, True]}


class CreatesFile:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def assert_missing(twin: Any, caplog: pytest.LogCaptureFixture, key: str = "key") -> None:
    """Assert that every read treats the value as missing and logs one line with alias and key."""
    reads = [
        (lambda: twin.get(key, "default"), "default"),
        (lambda: twin.get_many([key]), {}),
        (lambda: twin.has_key(key), False),
        (lambda: twin.get_with_revision(key, "default")[0], "default"),
    ]
    for read, expected in reads:
        caplog.clear()
        assert read() == expected
        (record,) = [each for each in caplog.records if each.name == "django_nats"]
        assert record.levelno == logging.WARNING
        message = record.getMessage()
        assert repr(twin.plain.alias) in message
        assert repr(twin.plain.make_key(key)) in message
        assert record.exc_info is None


class TestUnreadable:
    @pytest.mark.parametrize("serializer", ALL)
    @pytest.mark.parametrize(
        "format", ["pickle", "signed", "json", "msgpack", "zlib", "", "?", "int;ms=soon"]
    )
    def test_a_malformed_payload_counts_as_missing(
        self,
        make_twin: MakeTwin,
        caplog: pytest.LogCaptureFixture,
        serializer: str,
        format: str,
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": serializer})
        plant(twin, "key", b"\xc1 secret garbage", format or "int")
        assert_missing(twin, caplog)
        assert "garbage" not in caplog.text

    def test_a_truncated_value_counts_as_missing(
        self, twin: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        twin.set("key", VALUE)
        entry = stored(twin, "key")
        assert entry is not None
        plant(twin, "key", entry.payload[:-1], entry.format)
        assert_missing(twin, caplog)

    @pytest.mark.parametrize("compressor", ["Zlib", "Lzma", "Lz4", "Zstd"])
    def test_a_truncated_compressed_value_counts_as_missing(
        self, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture, compressor: str
    ) -> None:
        twin = make_twin(OPTIONS={"COMPRESSOR": f"django_nats.compressors.{compressor}Compressor"})
        twin.set("key", "x" * 10_000)
        assert twin.get("key") == "x" * 10_000
        entry = stored(twin, "key")
        assert entry is not None
        assert len(entry.payload) < 1000
        plant(twin, "key", entry.payload[:-3], entry.format)
        assert_missing(twin, caplog)

    def test_the_warning_names_the_alias_of_the_settings(
        self, server: NatsServer, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture
    ) -> None:
        params = {"TIMEOUT": 17}
        bucket = make_twin().plain.bucket.config.name
        options = {"BUCKET": bucket, "TOKEN": server.token, **PATIENT}
        entry = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url}
        entry |= {"OPTIONS": options, **params}
        with override_settings(CACHES={"default": {"BACKEND": "x"}, "pages": entry}):
            twin = make_twin(**params)
        plant(twin, "key", b"garbage", "pickle")
        assert_missing(twin, caplog)
        assert "Cache 'pages'" in caplog.text

    @pytest.mark.parametrize("lifetime", [f"ms=1{'0' * 400}", f"ms=-{'9' * 400}", "at=never"])
    def test_a_value_with_an_invalid_lifetime_counts_as_missing(
        self, twin: Any, caplog: pytest.LogCaptureFixture, lifetime: str
    ) -> None:
        plant(twin, "key", b"1", f"int;{lifetime}")
        assert_missing(twin, caplog)
        assert twin.keys() == ["key"]

    def test_add_replaces_an_unreadable_value(self, twin: Any) -> None:
        plant(twin, "key", b"garbage", "pickle")
        assert twin.add("key", 1) is True
        assert twin.add("key", 2) is False
        assert twin.get("key") == 1

    def test_set_and_delete_work_on_an_unreadable_value(self, twin: Any) -> None:
        plant(twin, "key", b"garbage", "pickle")
        assert twin.delete("key") is True
        plant(twin, "key", b"garbage", "pickle")
        twin.set("key", 1)
        assert twin.get("key") == 1


class TestNothingIsExecuted:
    def test_a_pickle_is_not_loaded_where_json_is_configured(
        self, make_twin: MakeTwin, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        mark = tmp_path / "mark"
        payload = pickle.dumps(CreatesFile(mark))
        for format in ("pickle", "pickle+zlib", "signed", "json", None):
            twin = make_twin(OPTIONS={"SERIALIZER": JSON})
            plant(twin, "key", payload, format)
            if format is None:
                assert twin.get("key") == payload
            else:
                assert_missing(twin, caplog)
            assert not mark.exists()
        pickle.loads(payload)
        assert mark.exists()

    def test_a_pickle_with_a_wrong_signature_is_not_loaded(
        self, make_twin: MakeTwin, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        mark = tmp_path / "mark"
        with override_settings(SECRET_KEY="the attacker's"):
            attacker = make_twin(OPTIONS={"SERIALIZER": SIGNED})
            attacker.set("key", CreatesFile(mark))
        twin = make_twin(OPTIONS={"SERIALIZER": SIGNED, "ACCEPT": [JSON]})
        assert_missing(twin, caplog)
        plant(twin, "key", pickle.dumps(CreatesFile(mark)), "pickle")
        assert_missing(twin, caplog)
        plant(twin, "key", bytes(32) + pickle.dumps(CreatesFile(mark)), "signed-pickle")
        assert_missing(twin, caplog)
        assert not mark.exists()
        twin.set("key", CreatesFile(mark))
        twin.get("key")
        assert mark.exists()

    def test_a_signed_value_copied_to_another_key_is_missing(
        self, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": SIGNED})
        twin.set("is-admin:eve", False)
        twin.set("is-admin:ada", [True])
        entry = stored(twin, "is-admin:ada")
        assert entry is not None
        plant(twin, "is-admin:eve", entry.payload, entry.format)
        assert_missing(twin, caplog, "is-admin:eve")
        plant(twin, "is-admin:ada", entry.payload, entry.format)
        assert twin.get("is-admin:ada") == [True]

    @pytest.mark.parametrize("compressor", [None, ZLIB])
    @pytest.mark.parametrize(
        "origin",
        [
            {"OPTIONS": {"BUCKET": "drafts"}},
            {"KEY_PREFIX": "staging"},
            {"VERSION": 2},
        ],
        ids=["bucket", "prefix", "version"],
    )
    def test_a_signed_value_from_elsewhere_is_missing(
        self,
        make_twin: MakeTwin,
        caplog: pytest.LogCaptureFixture,
        origin: dict[str, Any],
        compressor: str | None,
    ) -> None:
        options = {"SERIALIZER": SIGNED, "COMPRESSOR": compressor, "COMPRESS_MIN_LENGTH": 0}
        twin = make_twin(OPTIONS=options)
        bucket = twin.plain.bucket.config.name
        moved = dict(origin, OPTIONS={**options, **origin.get("OPTIONS", {})})
        if "BUCKET" in moved["OPTIONS"]:
            moved["OPTIONS"]["BUCKET"] = f"{bucket}_drafts"
        other = make_twin(**moved)
        value = ["admin"] * 50
        other.set("key", value)
        entry = stored(other, "key")
        assert entry is not None
        plant(twin, "key", entry.payload, entry.format)
        assert_missing(twin, caplog)
        assert "copied here from another key or bucket" in caplog.text
        assert twin.get_or_set("key", "fallback") == "fallback"
        plant(other, "key", entry.payload, entry.format)
        assert other.get("key") == value

    def test_aliases_of_a_bucket_read_each_others_signed_values(self, make_twin: MakeTwin) -> None:
        signed = {"SERIALIZER": SIGNED}
        make_twin(OPTIONS=signed).set("key", ["value"])
        alias = make_twin(OPTIONS={**signed, "COMPRESSOR": ZLIB, "NEAR_CACHE": {"KEYS": ["*"]}})
        assert alias.get("key") == ["value"]
        assert alias.get_many(["key"]) == {"key": ["value"]}
        assert alias.incr_version("key") == 2
        assert alias.get("key", version=2) == ["value"]

    def test_a_signed_value_needs_the_secret_key_or_a_fallback(
        self, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture
    ) -> None:
        twin = make_twin(OPTIONS={"SERIALIZER": SIGNED})
        with override_settings(SECRET_KEY="old"):
            twin.set("key", "value")
        with override_settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=["old"]):
            assert twin.get("key") == "value"
        with override_settings(SECRET_KEY="new"):
            assert_missing(twin, caplog)


class TestAccept:
    def test_accept_lets_a_bucket_move_to_another_serializer(
        self, make_twin: MakeTwin, caplog: pytest.LogCaptureFixture
    ) -> None:
        before = make_twin(OPTIONS={"SERIALIZER": PICKLE, "COMPRESSOR": ZLIB})
        before.set_many({"small": VALUE, "large": ["x"] * 5000})
        moving = make_twin(OPTIONS={"SERIALIZER": JSON, "ACCEPT": [PICKLE]})
        assert moving.get_many(["small", "large"]) == {"small": VALUE, "large": ["x"] * 5000}
        moving.set("small", VALUE)
        after = make_twin(OPTIONS={"SERIALIZER": JSON})
        assert after.get("small") == VALUE
        assert_missing(after, caplog, "large")
        assert "ACCEPT" in caplog.text
        assert_missing(before, caplog, "small")

    def test_touch_and_incr_version_keep_an_accepted_value(self, make_twin: MakeTwin) -> None:
        make_twin(OPTIONS={"SERIALIZER": PICKLE}).set("key", VALUE)
        moving = make_twin(OPTIONS={"SERIALIZER": JSON, "ACCEPT": [PICKLE]})
        assert moving.touch("key", 100) is True
        assert moving.get("key") == VALUE
        moving.incr_version("key")
        assert make_twin(OPTIONS={"SERIALIZER": JSON}).get("key", version=2) == VALUE


@pytest.mark.parametrize("serializer", ALL)
@pytest.mark.parametrize("compressor", [None, ZLIB])
def test_values_of_every_serializer_are_read_back(
    make_twin: MakeTwin, serializer: str, compressor: str | None
) -> None:
    twin = make_twin(OPTIONS={"SERIALIZER": serializer, "COMPRESSOR": compressor})
    values = {"value": VALUE, "n": 2**70, "none": None, "large": ["x"] * 2000}
    if serializer == MSGPACK:
        values["bytes"] = b"\x00\xff"
    twin.set_many(values)
    assert twin.get_many(values) == values
    assert twin.incr("n") == 2**70 + 1


class TestOtherClients:
    """The other client is nats-py's own KeyValue."""

    def test_another_client_reads_what_the_cache_sets(
        self, server: NatsServer, make_cache: MakeCache
    ) -> None:
        cache = make_cache(OPTIONS={"SERIALIZER": JSON})
        cache.set("user:42", VALUE, 100)
        cache.set("n", -(10**40))
        long = "long:" + "x" * 2000
        with pytest.warns(CacheKeyWarning):
            cache.set(long, "value")
        cache.set("gone", 1)
        cache.delete("gone")

        async def read() -> dict[str, bytes | None]:
            async with key_value(server, cache) as bucket:
                keys = await keys_of(bucket)
                return {key: (await bucket.get(key)).value for key in keys}

        found = asyncio.run(read())
        assert json.loads(found.pop("=.1.user.42") or b"") == VALUE
        assert found.pop("=.1.n") == b"-1" + b"0" * 40
        ((name, payload),) = found.items()
        assert name.startswith("=.1.long.xxx")
        assert payload == b'"value"'

    def test_the_payload_is_exactly_the_serializers_output(self, cache: NatsCache) -> None:
        cache.set("key", VALUE)
        entry = stored(cache, "key")
        assert entry is not None
        assert entry.payload == pickle.dumps(VALUE, pickle.HIGHEST_PROTOCOL)

    def test_the_cache_reads_what_another_client_puts(
        self, server: NatsServer, make_twin: MakeTwin
    ) -> None:
        twin = make_twin()
        values = {"n": b"42", "negative": b"-7", "text": b"007", "bytes": b"\x80\x04N."}

        async def write() -> None:
            async with key_value(server, twin.plain) as bucket:
                for key, value in values.items():
                    await bucket.put(f"=.1.{key}", value)

        asyncio.run(write())
        assert twin.get("n") == 42
        assert twin.get_many(values) == {**values, "n": 42, "negative": -7}
        assert twin.ttl("n") is None
        assert twin.incr("n") == 43
        with pytest.raises(TypeError):
            twin.incr("text")
        assert twin.touch("bytes", 100) is True
        assert (twin.ttl("bytes"), twin.get("bytes")) == (Left(100), values["bytes"])

    def test_a_key_that_another_client_deletes_is_missing(
        self, server: NatsServer, make_twin: MakeTwin
    ) -> None:
        twin = make_twin()
        twin.set_many({"deleted": 1, "purged": 1})

        async def delete() -> None:
            async with key_value(server, twin.plain) as bucket:
                await bucket.delete("=.1.deleted")
                await bucket.purge("=.1.purged")

        asyncio.run(delete())
        keys = ["deleted", "purged"]
        assert [twin.get(key, "default") for key in keys] == ["default"] * 2
        assert twin.get_many(keys) == {}
        assert [twin.delete(key) for key in keys] == [False] * 2
        assert [twin.add(key, 2) for key in keys] == [True] * 2
        assert twin.get_many(keys) == {"deleted": 2, "purged": 2}

    def test_the_ttl_of_another_clients_value_applies(
        self, server: NatsServer, make_twin: MakeTwin
    ) -> None:
        twin = make_twin()

        async def write() -> None:
            async with key_value(server, twin.plain) as bucket:
                await bucket.create("=.1.n", b"1", msg_ttl=100)

        asyncio.run(write())
        assert twin.ttl("n") == Left(100)
        assert twin.incr("n") == 2
        assert twin.ttl("n") == Left(100)


class TestHeadersWithoutABlank:
    """The Java client writes no blank after the colon of a header line."""

    @pytest.mark.parametrize("operation", ["DEL", "PURGE", "  DEL"])
    def test_a_key_that_is_deleted_so_is_missing(self, make_twin: MakeTwin, operation: str) -> None:
        twin = make_twin()
        twin.set_many({"deleted": 1, "kept": 2})

        publish(twin, "deleted", b"", f"KV-Operation:{operation}")

        assert twin.get("deleted", "default") == "default"
        assert twin.get_many(["deleted", "kept"]) == {"kept": 2}
        assert twin.has_key("deleted") is False
        assert sorted(twin.keys()) == sorted(twin.keys("*")) == ["kept"]
        assert twin.touch("deleted") is twin.delete("deleted") is False
        assert twin.add("deleted", 3) is True
        assert twin.get("deleted") == 3

    def test_it_is_missing_for_the_leader_too(self, make_twin: MakeTwin) -> None:
        twin = make_twin(OPTIONS={"READS": "leader"})
        twin.set("deleted", 1)
        publish(twin, "deleted", b"", "KV-Operation:DEL")
        assert twin.get("deleted") is None
        assert twin.get_many(["deleted"]) == {}

    def test_a_ttl_that_is_written_so_applies(self, make_twin: MakeTwin) -> None:
        twin = make_twin()
        publish(twin, "n", b"1", "Nats-TTL:100")
        assert twin.ttl("n") == Left(100)
        assert twin.incr("n") == 2
        assert twin.ttl("n") == Left(100)

    def test_a_format_that_is_written_so_is_read(self, make_twin: MakeTwin) -> None:
        twin = make_twin(OPTIONS={"ACCEPT": [JSON]})
        publish(twin, "value", b'{"a": 1}', "Django-Nats:json;ms=100000", "Nats-TTL:100")
        assert twin.get("value") == {"a": 1}
        assert twin.get_many(["value"]) == {"value": {"a": 1}}
        assert twin.ttl("value") == Left(100)


def test_get_many_returns_the_keys_in_the_order_in_which_they_were_asked_for(
    cache: NatsCache,
) -> None:
    cache.set_many({"a": 1, "b": 2, "c": 3})

    for keys in (["a", "b", "c"], ["c", "a", "b"], ["b", "missing", "a"]):
        assert list(cache.get_many(keys)) == [key for key in keys if key != "missing"]
