"""Fixtures that choose the loop."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from django_nats.client import process
from django_nats.client.transport.loop import LOOP_VARIABLE


@pytest.fixture(params=["asyncio", "uvloop"])
def loop_name(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test on each of the loops."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    process.close()
    monkeypatch.setenv(LOOP_VARIABLE, request.param)
    yield str(request.param)
    process.close()
