"""A client whose connection is lost while it logs in, or right after that, is not given out."""

from __future__ import annotations

import re

import pytest

from django_nats.client.plain.client import connected
from django_nats.client.transport.config import ConnectionConfig
from django_nats.exceptions import NotSent
from tests.client.plain.conftest import ENTRY
from tests.support.closing import ClosingServer, Ending
from tests.support.closing_late import go_on_late

WORDS = {
    "greeted": "closed the connection during the login$",
    "asked": "closed the connection during the login$",
    "accepted": "the connection was lost right after the login$",
}


@pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])
@pytest.mark.parametrize("point", WORDS)
async def test_a_connection_that_is_lost_at_once_is_named(
    monkeypatch: pytest.MonkeyPatch, point: str, reset: bool
) -> None:
    with ClosingServer(Ending(point, reset)).running() as server:
        go_on_late(monkeypatch, server, point)
        config = ConnectionConfig((server.url,), connect_timeout=600.0, entry=ENTRY, login="TOKEN")
        with pytest.raises(NotSent) as caught:
            async with connected(config):
                raise AssertionError
    assert re.search(WORDS[point], str(caught.value)), str(caught.value)
