"""Listing the keys of a bucket."""

from __future__ import annotations

from functools import partial
from itertools import compress

from ... import keys as key_names
from ...exceptions import InvalidKey
from ..protocol import wire
from ..protocol.steps import Item, ItemSteps, next_item
from ..streams.config import NANOSECONDS
from ..streams.delivered import Run
from ..streams.scan import BATCH, batches
from .bucket import Bucket
from .entry import format_of


def iter_keys(bucket: Bucket, pattern: str, batch: int = BATCH) -> ItemSteps[dict[str, int]]:
    """Yield the made keys that match a glob, with the revisions of their values, batch by batch.

    The server narrows to the pattern's leading parts and sends headers only; memory stays at
    one batch. Keys set or deleted meanwhile may or may not be listed, as with Redis's SCAN.
    """
    matches = None if key_names.is_prefix(pattern) else key_names.matcher(pattern)
    subject_filter = f"$KV.{bucket.config.name}.{key_names.subject_filter(pattern)}"
    decode = partial(_keys_of, bucket) if subject_filter.endswith(">") else None
    found = batches(bucket.stream, subject_filter, batch=batch, headers_only=True, decode=decode)
    try:
        while (item := (yield from next_item(found))) is not None:
            listed: dict[str, int] = {}
            now = bucket.clock.now()
            for (header, _, _, subject), revision, stored in item.value.delivered:
                if not _is_gone(header, stored, now):
                    key = key_of(bucket.config.name, subject, header)
                    if key is not None:
                        listed[key] = revision
            for keys in item.value.decoded:
                listed |= keys
            if matches is not None:
                listed = {key: revision for key, revision in listed.items() if matches(key)}
            if listed:
                yield Item(listed)
    finally:
        found.close()


def _is_gone(header: bytes, stored: float, now: float) -> bool:
    """Return True for a tombstone, and for a value that has expired."""
    if wire.is_tombstone(header):
        return True
    _, expires = format_of(wire.format_field(header), stored)
    return expires is not None and expires <= now


def _live(run: Run, now: float) -> Run:
    """Return the messages of a run that are not gone."""
    # Of values with the same header, the one stored first expires first.
    first = int(min(run.stored)) / NANOSECONDS
    doubtful = {header for header in set(run.headers) if _is_gone(header, first, now)}
    if not doubtful:
        return run
    live = [
        header not in doubtful or not _is_gone(header, int(stored) / NANOSECONDS, now)
        for header, stored in zip(run.headers, run.stored, strict=True)
    ]
    columns = [tuple(compress(column, live)) for column in run[1:]]
    return Run(list(compress(run.subjects, live)), *columns)


def _keys_of(bucket: Bucket, run: Run) -> dict[str, int]:
    """Return the made keys of the values of a run, with their revisions."""
    subjects, sequences, _, headers = _live(run, bucket.clock.now())
    revisions = map(int, sequences)
    name = bucket.config.name
    lines = "\n" + b"\n".join(subjects).decode()
    keys = key_names.decode_plain(lines.replace(f"\n$KV.{name}.", "\n")[1:])
    if keys is not None:
        return dict(zip(keys, revisions, strict=True))
    found = {}
    for subject, header, revision in zip(subjects, headers, revisions, strict=True):
        key = key_of(name, subject, header)
        if key is not None:
            found[key] = revision
    return found


def key_of(bucket: str, subject: bytes, header: bytes) -> str | None:
    """Return the made key of a message of a bucket; None if it is not a key of a Django cache."""
    try:
        subject_key = subject.decode()[len(bucket) + 5 :]
        key = key_names.decode(subject_key)
        if key is None:
            # The key in the header counts only if it is the one that is stored under this subject.
            key = wire.unquote_key(wire.field(header, wire.KEY_HEADER) or "")
            if key_names.encode(key) != subject_key:
                return None
    except (InvalidKey, UnicodeDecodeError):
        return None  # another client's key, or the package's own
    return key
