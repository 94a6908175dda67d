"""A client that goes on late when the server closes its connection during the login."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client.transport.greeting import OpenTransport
from tests.client.lanes import soon
from tests.support.closing import ClosingServer


def go_on_late(monkeypatch: pytest.MonkeyPatch, server: ClosingServer, point: str) -> None:
    """Let each step that a point may end go on only once the client knows of the end."""
    read_line, shake_hands = asyncio.StreamReader.readline, OpenTransport._shake_hands
    greeted: list[bytes] = []

    async def end(known: Callable[[], bool]) -> None:
        assert await soon(lambda: server.closed.is_set() and known())

    async def read_line_late(reader: Any) -> bytes:
        server.connected.set()

        def known() -> bool:
            return reader._eof or reader.exception() is not None

        if greeted and point in ("asked", "denied"):
            await end(known)
        line = await read_line(reader)
        greeted.append(line)
        if point in ("greeted", "refused") or line == b"PONG\r\n":
            await end(known)
        return line

    async def shake_hands_late(self: Any, *args: Any) -> None:
        await shake_hands(self, *args)
        if point == "handshake":
            await end(lambda: self.closed)

    monkeypatch.setattr(asyncio.StreamReader, "readline", read_line_late)
    monkeypatch.setattr(OpenTransport, "_shake_hands", shake_hands_late)
