"""The option REPUBLISH: its members, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest

from django_nats.client.kv.config import Republish
from tests.support.configuring import config, problem

EVERYTHING = "$KV.web.>"


def read(**members: object) -> Republish | None:
    return config(BUCKET="web", REPUBLISH=members).bucket.republish


@pytest.mark.parametrize(
    ("members", "expected"),
    [
        ({"dest": "changes.>"}, Republish(EVERYTHING, "changes.>", False)),
        ({"dest": "a.>", "headers_only": True}, Republish(EVERYTHING, "a.>", True)),
        ({"src": ">", "dest": "a.b.>"}, Republish(">", "a.b.>", False)),
        (
            {"src": "$KV.web.=.1.flags.*", "dest": "flags.{{wildcard(1)}}"},
            Republish("$KV.web.=.1.flags.*", "flags.{{wildcard(1)}}", False),
        ),
        (
            {"src": "$KV.*.=.*.x", "dest": "x.{{ partition(3, 1) }}.$2"},
            Republish("$KV.*.=.*.x", "x.{{ partition(3, 1) }}.$2", False),
        ),
        ({"dest": "$KV.copies.>"}, Republish(EVERYTHING, "$KV.copies.>", False)),
    ],
    ids=str,
)
def test_what_is_republished(members: dict[str, object], expected: Republish) -> None:
    assert read(**members) == expected


def test_nothing_is_republished_by_default() -> None:
    assert config().bucket.republish is None
    assert config(REPUBLISH=None).bucket.republish is None
    assert "republish" not in config().bucket.stream_config()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("changes.>", "REPUBLISH must be a dict with dest, headers_only, src"),
        ({"DEST": "a.>"}, "REPUBLISH has an unknown member 'DEST'"),
        ({}, "has dest None; it must be a NATS subject"),
        ({"dest": ""}, "has dest ''; it must be a NATS subject"),
        ({"dest": "a..>"}, "has dest 'a..>'; it must be a NATS subject"),
        ({"dest": "a.>.b"}, "has dest 'a.>.b'; it must be a NATS subject"),
        ({"dest": "a b.>"}, "has dest 'a b.>'; it must be a NATS subject"),
        ({"dest": "a.\x00.>"}, "it must be a NATS subject"),
        ({"dest": 5}, "has dest 5; it must be a NATS subject"),
        ({"dest": "$KV.web.x.>"}, "the bucket would store again what comes to $KV.web.>"),
        ({"dest": "$KV.>"}, "the bucket would store again"),
        ({"dest": "*.web.>"}, "the bucket would store again"),
        ({"dest": "*.other.>"}, "it must begin with a name that is none of the server's own"),
        ({"dest": "$JS.API.>"}, "none of the server's own ($JS, $SYS, _INBOX)"),
        ({"dest": "$SYS.>"}, "none of the server's own"),
        ({"dest": "_INBOX.>"}, "none of the server's own"),
        ({"dest": "a"}, "has src '$KV.web.>' and dest 'a'; both must end with >, or neither"),
        ({"src": "$KV.web.*", "dest": "a.>"}, "both must end with >, or neither"),
        ({"src": "$KV.web..x", "dest": "a"}, "has src '$KV.web..x', which is not a NATS subject"),
        ({"src": 5, "dest": "a"}, "has src 5, which is not a NATS subject"),
        ({"src": "$KV.api.>", "dest": "a.>"}, "but the bucket's subjects are $KV.web.>"),
        ({"src": "$KV.web", "dest": "a"}, "but the bucket's subjects are $KV.web.>"),
        ({"dest": "a.>", "headers_only": "no"}, "has headers_only 'no'; it must be True or False"),
    ],
    ids=str,
)
def test_a_wrong_value_is_refused(value: Any, message: str) -> None:
    found = problem(BUCKET="web", REPUBLISH=value)
    assert found.startswith('CACHES["?"]: REPUBLISH ')
    assert message in found
