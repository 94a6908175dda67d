"""The example of docs/how-to/raw-connection.md that publishes on commit, when NATS is away."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from django.test import override_settings

from django_nats.client import process
from tests.support.ports import free_port

PAGE = Path(__file__).parent.parent / "docs" / "how-to" / "raw-connection.md"
NATS = {"BACKEND": "django_nats.cache.NatsCache"}


@pytest.fixture
def announce() -> Iterator[Callable[..., None]]:
    found = re.search(r"```python\n(import json\n.*?)```", PAGE.read_text(), re.DOTALL)
    assert found
    page: dict[str, Any] = {}
    exec(found[1], page)
    yield page["announce"]
    process.close()


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("commit", [transaction.atomic, None])
def test_an_event_that_cannot_be_published_is_logged_and_raises_nothing(
    announce: Callable[..., None], caplog: pytest.LogCaptureFixture, commit: Any
) -> None:
    """Django before 6.1 raises another error for a function without a name, such as a partial."""
    entry = {**NATS, "LOCATION": f"nats://127.0.0.1:{free_port()}"}
    with override_settings(CACHES={"default": {**entry, "OPTIONS": {"CONNECT_TIMEOUT": 60.0}}}):
        if commit is None:
            announce("shop.ordered", {"order": 42})
        else:
            with commit():
                announce("shop.ordered", {"order": 42})
    (record,) = [each for each in caplog.records if each.name.startswith("django.")]
    assert "announce.<locals>.send in on_commit()" in record.getMessage()
    assert "No connection to NATS" in record.getMessage()
