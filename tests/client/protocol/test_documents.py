"""The shapes of the server's documents: each field that is read, and each way to be invalid."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from django_nats.client.kv.config import BucketConfig
from django_nats.client.protocol import documents
from django_nats.exceptions import UnexpectedReply
from tests.support.answers import stream_document

LONG = "9" * 5000
INFO = {
    **stream_document(BucketConfig("b"), num_subjects=3),
    "sources": [{"name": "S", "active": -1, "lag": 0, "external": {"api": "$JS.eu.API"}}],
}
INFO["config"]["sources"] = [{"name": "S", "subject_transforms": [{"src": "a", "dest": "b"}]}]
INFO["config"]["metadata"] = {"team": "web"}
EXAMPLES: list[tuple[documents.Shape, dict[str, Any]]] = [
    (documents.ERROR, {"error": {"code": 400, "err_code": 10071, "description": "because"}}),
    (documents.ACKNOWLEDGEMENT, {"stream": "KV_b", "seq": 1, "duplicate": True}),
    (
        documents.STORED_MESSAGE,
        {"message": {"subject": "s", "seq": 1, "hdrs": "", "time": "2026-01-02T03:04:05Z"}},
    ),
    (documents.PURGED, {"success": True, "purged": 0}),
    (documents.CONSUMER, {"num_pending": 0}),
    (documents.ACCOUNT, {"api": {"level": 2}}),
    (documents.STREAM, INFO),
    (documents.GREETING, {"max_payload": 1, "version": "2.15.1", "connect_urls": ["a:1"]}),
    (documents.SERVER_CHANGED, {}),
]


def read(document: object, shape: documents.Shape) -> dict[str, Any]:
    return documents.read(json.dumps(document).encode(), "the answer", shape)


@pytest.mark.parametrize(("shape", "document"), EXAMPLES)
def test_a_document_of_the_shape_is_returned(
    shape: documents.Shape, document: dict[str, Any]
) -> None:
    assert read({**document, "more": [None]}, shape) == {**document, "more": [None]}


def _places(
    document: Any, shape: Any, path: tuple[Any, ...] = ()
) -> list[tuple[tuple[Any, ...], bool]]:
    """Return where each field of a shape is in a document, and whether it may be missing."""
    found = []
    for name, expected in shape.items():
        field = name.removesuffix("?")
        if field not in document:
            continue
        here = (*path, field)
        found.append((here, field != name))
        if isinstance(expected, dict):
            found += _places(document[field], expected, here)
        elif isinstance(expected, list):
            found += _places(document[field][0], expected[0], (*here, 0))
    return found


PLACES = [
    (shape, document, place, optional)
    for shape, document in EXAMPLES
    for place, optional in _places(document, shape)
]


@pytest.mark.parametrize(
    ("shape", "document", "place", "optional"),
    PLACES,
    ids=[".".join(map(str, place)) for *_, place, _ in PLACES],
)
def test_each_invalid_field_is_named(
    shape: documents.Shape, document: dict[str, Any], place: tuple[Any, ...], optional: bool
) -> None:
    *parents, field = place
    kept = type(_at(document, place))
    for odd in (None, True, -(2**70), 2**64, 1.5, float("inf"), "\ud800", [7], {"a": 7}, "€"):
        changed = copy.deepcopy(document)
        _at(changed, parents)[field] = odd
        if type(odd) is kept and odd not in (-(2**70), 2**64, "\ud800"):
            continue
        if odd is None and kept is list:
            continue
        with pytest.raises(UnexpectedReply) as raised:
            read(changed, shape)
        assert str(field) in str(raised.value)
    changed = copy.deepcopy(document)
    del _at(changed, parents)[field]
    if optional:
        read(changed, shape)
    else:
        with pytest.raises(UnexpectedReply, match=f"lacks the field {field}"):
            read(changed, shape)


def _at(document: Any, place: Any) -> Any:
    for each in place:
        document = document[each]
    return document


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "The answer is not valid JSON"),
        ("<html>", "not valid JSON"),
        ("\ud800", "not valid JSON"),
        ('{"seq": ' + LONG + "}", "not valid JSON"),
        ("[" * 100_000, "not valid JSON"),
        ("[]", "The answer is a list that does not fit, not an object"),
        ("7", "The answer is 7, not an object"),
        ("null", "The answer is null, not an object"),
        ('"secret"', "The answer is a text that does not fit, not an object"),
    ],
)
def test_anything_but_an_object_is_refused(text: str, says: str) -> None:
    with pytest.raises(UnexpectedReply, match=says) as raised:
        documents.read(text.encode(errors="surrogatepass"), "the answer", documents.ANYTHING)
    assert "secret" not in str(raised.value)
    assert len(str(raised.value)) < 200


def test_errors_show_numbers_but_no_texts() -> None:
    for odd, shown in ((0, "is 0"), ("secret", "is a text"), (10**4000, "far too large")):
        with pytest.raises(UnexpectedReply) as raised:
            read({"stream": "s", "seq": odd}, documents.ACKNOWLEDGEMENT)
        assert shown in str(raised.value)
        assert "secret" not in str(raised.value)
