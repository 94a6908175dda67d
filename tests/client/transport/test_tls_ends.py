"""A connection over TLS that ends as soon as the handshake is done."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path

import pytest

from django_nats.client.transport.greeting import OpenTransport
from tests.client.plain.conftest import soon
from tests.support.certificates import Authority

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def ending(context: ssl.SSLContext) -> Handler:
    """Return a service that sends the end of TLS together with the end of the handshake."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        received, to_send = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = context.wrap_bio(received, to_send, server_side=True)
        done = False
        while not done:
            received.write(await reader.read(65536))
            try:
                tls.do_handshake()
                done = True
                tls.unwrap()
            except ssl.SSLWantReadError:
                pass
            writer.write(to_send.read())
        writer.close()

    return serve


async def test_an_end_that_comes_with_the_end_of_the_handshake_logs_no_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    authority = Authority(tmp_path)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*authority.issue("server", "127.0.0.1"))
    # With TLS 1.3, the client is done first, and the end of TLS arrives after that.
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    async with await asyncio.start_server(ending(context), "127.0.0.1", 0) as listener:
        streams = await asyncio.open_connection(*listener.sockets[0].getsockname())
        transport = OpenTransport(*streams, "the server")
        trusted = ssl.create_default_context(cafile=authority.ca)
        try:
            # asyncio notices the end during the handshake, or after it in Python 3.10.
            with suppress(ConnectionResetError):
                await transport.connect_tls("127.0.0.1", trusted, 0, 60)
            assert await soon(lambda: transport.socket.fileno() < 0)
        finally:
            transport.close()
            streams[1].transport.abort()
    assert [each.getMessage() for each in caplog.records if each.name == "asyncio"] == []
