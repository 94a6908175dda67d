"""The time, for operations that are driven without a server."""

from __future__ import annotations

import pytest

from django_nats.client import copies, increments, kv, writing
from tests.support.answers import Clock


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """What operations and copies take for the time; it stands still unless it is moved."""
    made = Clock()
    for module in (copies, increments, kv, writing):
        monkeypatch.setattr(module, "monotonic", made)
    return made
