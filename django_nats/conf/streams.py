"""Read the options of a stream that buckets and counters share."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..client.streams.api import DEFAULT_PREFIX, domain_prefix
from .reader import Reader

PLACEMENT_MEMBERS = {"CLUSTER", "TAGS"}
_TOKEN = re.compile(r"[-_a-zA-Z0-9]+")
_SUBJECT = re.compile(r"[-_a-zA-Z0-9$]+(\.[-_a-zA-Z0-9$]+)*")
_MAX_PREFIX_LENGTH = 256
_MAX_DESCRIPTION_BYTES = 4 * 1024  # the server refuses more
_MAX_METADATA_BYTES = 128 * 1024


def stream_options(reader: Reader, description: str) -> dict[str, Any]:
    """Return those fields of a stream's configuration that buckets and counters share.

    ``description`` is the default. Raises ImproperlyConfigured if an option is not valid.
    """
    placement = reader.mapping("PLACEMENT", PLACEMENT_MEMBERS)
    tags = placement.get("TAGS", ())
    if not isinstance(tags, (list, tuple)) or not all(isinstance(tag, str) for tag in tags):
        reader.fail("PLACEMENT", "has TAGS that are not a list of strings")
    if not isinstance(placement.get("CLUSTER", ""), str):
        reader.fail("PLACEMENT", "has a CLUSTER that is not a string")
    replicas = reader.whole("REPLICAS", 1)
    if replicas > 5:
        reader.fail("REPLICAS", f"is {replicas}; it must be a number from 1 to 5")
    text = reader.text("DESCRIPTION", description)
    if len(text.encode()) > _MAX_DESCRIPTION_BYTES:
        reader.fail("DESCRIPTION", f"must have at most {_MAX_DESCRIPTION_BYTES:,} bytes")
    api_prefix, domain = _jetstream(reader)
    return {
        "api_prefix": api_prefix,
        "domain": domain,
        "replicas": replicas,
        "max_bytes": reader.size("MAX_BYTES"),
        "compression": reader.choice("COMPRESSION"),
        "placement_cluster": placement.get("CLUSTER"),
        "placement_tags": tuple(tags),
        "description": text,
        "metadata": _metadata(reader),
        "reads": reader.choice("READS"),
    }


def _jetstream(reader: Reader) -> tuple[str, str | None]:
    """Return the prefix of the JetStream API that has the stream, and the domain if one is named.

    >>> _jetstream(Reader("", {"JS_DOMAIN": "hub"}))
    ('$JS.hub.API', 'hub')
    """
    options = reader.options
    if options.get("JS_DOMAIN") is not None:
        if options.get("JS_API_PREFIX") is not None:
            reader.fail("JS_DOMAIN", "and JS_API_PREFIX both say where the stream is: choose one")
        domain = reader.text("JS_DOMAIN")
        if not _TOKEN.fullmatch(domain):
            reader.fail("JS_DOMAIN", f"is {domain!r}; it must be made of letters, digits, - and _")
        return domain_prefix(domain), domain
    if options.get("JS_API_PREFIX") is None:
        return DEFAULT_PREFIX, None
    prefix = reader.text("JS_API_PREFIX")
    if len(prefix) > _MAX_PREFIX_LENGTH or not _SUBJECT.fullmatch(prefix):
        reader.fail(
            "JS_API_PREFIX",
            f"is {prefix!r}; it must be a subject such as hub.API: letters, digits, -, _ and $, "
            f"with dots between them, and at most {_MAX_PREFIX_LENGTH} characters",
        )
    return prefix, None


def _metadata(reader: Reader) -> tuple[tuple[str, str], ...]:
    metadata = reader.options.get("METADATA", {})
    if not isinstance(metadata, Mapping) or not all(
        isinstance(each, str) for pair in metadata.items() for each in pair
    ):
        reader.fail("METADATA", "must be a dict of strings to strings")
    for name in metadata:
        if name.startswith("_nats"):
            reader.fail("METADATA", f"has {name!r}; names that begin with _nats are the server's")
    if sum(len(each.encode()) for pair in metadata.items() for each in pair) > _MAX_METADATA_BYTES:
        reader.fail("METADATA", f"must have at most {_MAX_METADATA_BYTES:,} bytes in all")
    return tuple(sorted(metadata.items()))
