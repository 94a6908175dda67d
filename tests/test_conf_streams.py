"""The options that buckets and the streams of counters share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from django_nats.conf.counters import counter_settings
from tests.support.configuring import config

MIB = 1024 * 1024


def bucket(**options: object) -> Any:
    return config(**options).bucket


def counters(**options: object) -> Any:
    with override_settings(NATS_COUNTERS={"default": options}):
        return counter_settings("default").stream


KINDS = [bucket, counters]
Read = Callable[..., Any]


@pytest.mark.parametrize("read", KINDS)
@pytest.mark.parametrize(
    ("option", "value", "attribute", "expected"),
    [
        ("REPLICAS", 3, "replicas", 3),
        ("MAX_BYTES", "64MiB", "max_bytes", 64 * MIB),
        ("MAX_BYTES", None, "max_bytes", None),
        ("COMPRESSION", "s2", "compression", "s2"),
        ("PLACEMENT", {"CLUSTER": "eu"}, "placement_cluster", "eu"),
        ("PLACEMENT", {"TAGS": ["ssd", "eu"]}, "placement_tags", ("ssd", "eu")),
        ("DESCRIPTION", "Pages", "description", "Pages"),
        ("METADATA", {"team": "web", "cost": ""}, "metadata", (("cost", ""), ("team", "web"))),
        ("METADATA", {}, "metadata", ()),
        ("READS", "leader", "reads", "leader"),
    ],
)
def test_an_option_sets_its_attribute(
    read: Read, option: str, value: object, attribute: str, expected: object
) -> None:
    assert getattr(read(**{option: value}), attribute) == expected
    assert hash(read(**{option: value})) == hash(read(**{option: value}))


@pytest.mark.parametrize("read", KINDS)
@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("REPLICAS", 6, "is 6; it must be a number from 1 to 5"),
        ("MAX_BYTES", 0, 'must be a number of bytes or a size like "64MiB", not 0'),
        ("COMPRESSION", "gzip", "is 'gzip'; it must be 'none' or 's2'"),
        ("PLACEMENT", "eu", "must be a dict with CLUSTER, TAGS"),
        ("PLACEMENT", {"TAGS": "ssd"}, "has TAGS that are not a list of strings"),
        ("PLACEMENT", {"CLUSTER": 1}, "has a CLUSTER that is not a string"),
        ("DESCRIPTION", 5, "must be a string, not int"),
        ("DESCRIPTION", "é" * 2049, "must have at most 4,096 bytes"),
        ("METADATA", "team=web", "must be a dict of strings to strings"),
        ("METADATA", None, "must be a dict of strings to strings"),
        ("METADATA", {"team": 5}, "must be a dict of strings to strings"),
        ("METADATA", {5: "team"}, "must be a dict of strings to strings"),
        (
            "METADATA",
            {"_nats.ver": "2.15"},
            "has '_nats.ver'; names that begin with _nats are the server's",
        ),
        ("METADATA", {"team": "x" * 131_069}, "must have at most 131,072 bytes in all"),
        ("READS", "all", "is 'all'; it must be 'any' or 'leader'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_a_wrong_value_names_alias_and_option(
    read: Read, option: str, value: object, message: str
) -> None:
    with pytest.raises(ImproperlyConfigured) as caught:
        read(**{option: value})
    assert '["' in str(caught.value)
    assert f": {option} {message}" in str(caught.value)


@pytest.mark.parametrize("read", KINDS)
def test_the_longest_description_and_metadata_are_accepted(read: Read) -> None:
    assert len(read(DESCRIPTION="x" * 4096).description) == 4096
    assert read(METADATA={"team": "x" * 131_068}).metadata == (("team", "x" * 131_068),)
