"""Writes and deletes that the account is not permitted: what becomes of the old value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketFull, PermissionDenied, ValueTooLarge
from tests.conftest import PATIENT

_USERS = """
authorization { timeout: 60, users: [
  { user: admin, password: pw }
  { user: reader, password: pw, permissions: { publish: {
    deny: ["$KV.>", "$JS.API.STREAM.PURGE.>"]
  } } }
  { user: no-publish, password: pw, permissions: { publish: { deny: ["$KV.>"] } } }
  { user: no-purge, password: pw, permissions: { publish: { deny: ["$JS.API.STREAM.PURGE.>"] } } }
] }
"""
OLD_VALUE_KEPT = "Its old value may still be readable, since it could not be deleted either: "


@pytest.fixture(scope="module")
def users() -> Iterator[Callable[..., NatsCache]]:
    with NatsServer(config=_USERS, token="") as server:

        def make(user: str, **options: Any) -> NatsCache:
            options = {**PATIENT, **options, "USER": user, "PASSWORD": "pw"}
            return NatsCache(server.url, {"OPTIONS": options})

        yield make
        process.close()


def test_the_error_says_the_old_value_may_be_readable_without_permission_to_publish(
    users: Callable[..., NatsCache], caplog: pytest.LogCaptureFixture
) -> None:
    users("admin", BUCKET="reader").set("key", "old")
    cache = users("reader", BUCKET="reader")
    with pytest.raises(PermissionDenied) as raised:
        cache.set("key", "new")
    assert "':1:key' was not stored: No permission to publish to $KV.reader" in str(raised.value)
    assert f"{OLD_VALUE_KEPT}No permission to publish to $JS.API.STREAM" in str(raised.value)
    with pytest.raises(ValueTooLarge) as too_large:
        cache.set("key", "x" * 3_000_000)
    assert OLD_VALUE_KEPT in str(too_large.value)
    assert cache.get("key") == "old"
    assert cache.set_many({"key": "new"}) == ["key"]
    caplog.clear()
    hidden = users("reader", BUCKET="reader", FAIL_OPEN=True, NAME="hidden")
    for _ in range(3):
        assert hidden.set("key", "new") is None
    assert len([each for each in caplog.messages if OLD_VALUE_KEPT in each]) == 1
    assert hidden.set_many({"key": "new"}) == ["key"]


@pytest.mark.parametrize("fail_open", [False, True])
def test_a_set_without_permission_to_publish_leaves_no_value_if_purges_are_permitted(
    users: Callable[..., NatsCache], fail_open: bool
) -> None:
    bucket = f"no_publish_{fail_open}"
    admin = users("admin", BUCKET=bucket)
    admin.set_many({"key": "old", "many": "old"})
    cache = users("no-publish", BUCKET=bucket, FAIL_OPEN=fail_open)
    if fail_open:
        assert cache.set("key", "new") is None
    else:
        with pytest.raises(
            PermissionDenied, match="readable in the near caches of other"
        ) as raised:
            cache.set("key", "new")
        assert OLD_VALUE_KEPT not in str(raised.value)
    assert cache.set_many({"many": "new"}) == ["many"]
    assert admin.get_many(["key", "many"]) == {}


DELETES: dict[str, Callable[[NatsCache], object]] = {
    "delete": lambda cache: cache.delete("key"),
    "delete_many": lambda cache: cache.delete_many(["key"]),
    "delete_pattern": lambda cache: cache.delete_pattern("key"),
    "set": lambda cache: cache.set("key", 1, 0),
    "touch": lambda cache: cache.touch("key", 0),
}


@pytest.mark.parametrize("delete", DELETES.values(), ids=DELETES)
def test_a_delete_without_permission_to_publish_leaves_no_value_if_purges_are_permitted(
    users: Callable[..., NatsCache], delete: Callable[[NatsCache], object]
) -> None:
    admin = users("admin", BUCKET="deletes")
    cache = users("no-publish", BUCKET="deletes")
    admin.set_many({"key": "old", "other": 1})
    with pytest.raises(PermissionDenied, match=r"':1:key' was deleted[.] .* in the near caches"):
        delete(cache)
    assert admin.get_many(["key", "other"]) == {"other": 1}
    admin.set("key", "old")
    assert not delete(users("no-publish", BUCKET="deletes", FAIL_OPEN=True))
    assert admin.get_many(["key", "other"]) == {"other": 1}


def test_getdel_without_permission_to_publish_returns_the_value_that_it_purged(
    users: Callable[..., NatsCache],
) -> None:
    users("admin", BUCKET="getdel").set("key", "old")
    cache = users("no-publish", BUCKET="getdel")
    assert cache.getdel("key") == "old"
    assert cache.getdel("key") is None


def test_a_delete_that_is_not_permitted_at_all_is_logged(
    users: Callable[..., NatsCache],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("django_nats.client.kv.full._QUIET_S", 3600.0)
    users("admin", BUCKET="kept").set("key", "old")
    hidden = users("reader", BUCKET="kept", FAIL_OPEN=True)
    caplog.clear()
    for _ in range(2):
        assert hidden.delete("key") is False
        hidden.delete_many(["key"])
        assert hidden.getdel("key") is None
    assert hidden.get("key") == "old"
    kept = "A key of the bucket kept was not deleted, and may still be readable: No permission to"
    assert len([each for each in caplog.messages if kept in each]) == 1


def test_deletes_at_a_revision_raise_without_permission_to_publish(
    users: Callable[..., NatsCache],
) -> None:
    users("admin", BUCKET="revisions").set("key", "old")
    cache = users("reader", BUCKET="revisions")
    _, revision = cache.get_with_revision("key")
    with pytest.raises(PermissionDenied):
        cache.set("key", "new", 0, revision=revision)
    with pytest.raises(PermissionDenied):
        cache.delete_pattern("*")
    assert cache.get("key") == "old"


def test_the_error_says_the_old_value_may_be_readable_without_permission_to_purge(
    users: Callable[..., NatsCache], caplog: pytest.LogCaptureFixture
) -> None:
    options = {"BUCKET": "brimful", "EVICT": False, "MAX_ENTRIES": 2}
    users("admin", **options).set_many({"key": "old", "other": 1})
    users("admin", **options).delete("other")  # its tombstone takes the last place
    cache = users("no-purge", **options)
    with pytest.raises(BucketFull) as raised:
        cache.set("new", "x")
    assert f"{OLD_VALUE_KEPT}No permission to publish to $JS.API.STREAM.PURGE" in str(raised.value)
    caplog.clear()
    hidden = users("no-purge", **options, FAIL_OPEN=True, NAME="hidden")
    for _ in range(3):
        assert hidden.set("new", "x") is None
    assert len([each for each in caplog.messages if OLD_VALUE_KEPT in each]) == 1
