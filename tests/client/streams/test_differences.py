"""Differences between a bucket and its settings, and those that the server can change."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers
from django_nats.client.kv.config import MIB, BucketConfig
from django_nats.client.streams.differences import differences, update
from django_nats.exceptions import ServerError
from tests.conftest import MakeCache, api


def info(cache: NatsCache) -> dict[str, Any]:
    return api(cache, f"STREAM.INFO.{cache.bucket.config.stream}")


WANTED = BucketConfig("web", storage="file")


@pytest.mark.parametrize(
    ("change", "state", "fixable"),
    [
        ({"description": "Pages"}, {}, True),
        ({"max_bytes": 10 * MIB}, {}, True),
        ({"max_bytes": 10}, {"bytes": 11}, True),
        ({"discard": "new"}, {}, True),
        ({"compression": "s2"}, {}, True),
        ({"max_msg_size": -1}, {}, True),
        ({"max_msgs_per_subject": 5}, {"messages": 2, "num_subjects": 2}, True),
        ({"max_msgs_per_subject": 5}, {"messages": 3, "num_subjects": 2}, False),
        ({"placement": {"cluster": "", "tags": ["ssd"]}}, {}, True),
        ({"num_replicas": 3}, {}, True),
        ({"storage": "memory"}, {}, False),
        ({"persist_mode": "async"}, {}, False),
    ],
    ids=str,
)
def test_differences_say_what_can_be_changed(
    change: dict[str, Any], state: dict[str, int], fixable: bool
) -> None:
    existing = {**WANTED.stream_config(), **change}
    (found,) = differences(WANTED, existing, state)
    assert (found.field, found.fixable) == (next(iter(change)), fixable)
    assert "on the server" in str(found)
    assert "in settings" in str(found)


@pytest.mark.parametrize(
    ("options", "state", "fixable"),
    [
        ({"max_bytes": 100}, {"bytes": 100}, True),
        ({"max_bytes": 100}, {"bytes": 101}, False),
        ({"max_entries": 5}, {"messages": 5}, True),
        ({"max_entries": 5}, {"messages": 6}, False),
        ({"max_value_size": 5}, {"bytes": 1000, "messages": 6}, True),
    ],
    ids=str,
)
def test_a_limit_below_the_stored_messages_is_not_fixable(
    options: dict[str, Any], state: dict[str, int], fixable: bool
) -> None:
    existing = BucketConfig("web").stream_config()
    (found,) = differences(BucketConfig("web", **options), existing, state)
    assert found.fixable is fixable


@pytest.mark.parametrize("storage", ["memory", "file"])
def test_the_server_changes_what_differences_call_fixable(
    make_cache: MakeCache, storage: str
) -> None:
    before = make_cache(
        OPTIONS={"STORAGE": storage, "EVICT": False, "COMPRESSION": "s2", "MAX_ENTRIES": 50}
    )
    before.set("key", "kept", None)
    after = make_cache(OPTIONS={"STORAGE": storage, "MAX_BYTES": MIB, "DESCRIPTION": "Pages"})
    found = differences(after.bucket.config, info(before)["config"], info(before)["state"])
    assert {each.field for each in found if each.fixable} == {each.field for each in found}
    assert {each.field for each in found} >= {"discard", "max_msgs", "max_bytes", "compression"}
    existing = info(before)["config"]
    drivers.run(after.session, update(after.bucket.stream, existing))
    assert differences(after.bucket.config, info(after)["config"], {}) == []
    assert after.get("key") == "kept"


@pytest.mark.parametrize(
    ("options", "field"),
    [({"STORAGE": "file"}, "storage"), ({"STORAGE": "file", "PERSIST": "async"}, "persist_mode")],
)
def test_the_server_refuses_what_differences_call_unfixable(
    make_cache: MakeCache, options: dict[str, object], field: str
) -> None:
    before = make_cache(OPTIONS={} if field == "storage" else {"STORAGE": "file"})
    if field == "persist_mode" and api(before, "INFO")["api"]["level"] < 2:
        pytest.skip("PERSIST needs nats-server 2.12")
    before.get("key")
    existing = info(before)["config"]
    wanted = make_cache(OPTIONS=options).bucket
    (found,) = differences(wanted.config, existing, {})
    assert (found.field, found.fixable) == (field, False)
    with pytest.raises(ServerError):
        drivers.run(before.session, update(wanted.stream, existing))
