"""A proxy that ends TLS before a server that has none."""

from __future__ import annotations

import asyncio
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def terminator(port: int, certificate: str, key: str) -> Iterator[str]:
    """Run a proxy that speaks TLS with its client, and not with the server. Yield its URL."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    ready, ending = threading.Event(), asyncio.Event()
    found: list[tuple[asyncio.AbstractEventLoop, int]] = []
    open_ones: list[asyncio.StreamWriter] = []

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(10_000):
                sink.write(data)
        sink.close()

    async def forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        upstream, downstream = await asyncio.open_connection("127.0.0.1", port)
        open_ones.extend([writer, downstream])
        await asyncio.gather(pump(reader, downstream), pump(upstream, writer))

    async def serve() -> None:
        server = await asyncio.start_server(forward, "127.0.0.1", 0, ssl=context)
        async with server:
            loop = asyncio.get_running_loop()
            found.append((loop, server.sockets[0].getsockname()[1]))
            ready.set()
            await ending.wait()
            for each in open_ones:
                each.transport.abort()
            await asyncio.sleep(0)

    serving = threading.Thread(target=lambda: asyncio.run(serve()))
    serving.start()
    assert ready.wait(60)
    ((loop, own_port),) = found
    try:
        yield f"nats://127.0.0.1:{own_port}"
    finally:
        loop.call_soon_threadsafe(ending.set)
        serving.join()
