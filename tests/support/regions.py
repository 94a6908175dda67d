"""A server for each region, and processes that count in several regions."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from django_nats.devserver import NatsServer
from tests.support.ports import free_port


class LeafNodes:
    """A hub, and a leaf node for each region. Each server has its own JetStream domain."""

    def __init__(self, *regions: str) -> None:
        self._directory = TemporaryDirectory(prefix="nats-regions-")
        self._port = free_port()
        listen = f'listen: "127.0.0.1:{self._port}", no_advertise: true'
        self.hub = self._server("hub", f"leafnodes {{ {listen} }}")
        self.leaves = {region: self._leaf(region) for region in regions}

    def _leaf(self, region: str, port: int | None = None, *, linked: bool = True) -> NatsServer:
        remotes = f'[{{ url: "nats://127.0.0.1:{self._port}" }}]' if linked else "[]"
        return self._server(region, f"leafnodes {{ remotes: {remotes} }}", port)

    def _server(self, domain: str, config: str, port: int | None = None) -> NatsServer:
        return NatsServer(
            token="",
            name=domain,
            port=port or free_port(),
            directory=Path(self._directory.name) / domain,
            config=f"jetstream {{ domain: {domain} }}\n{config}",
        )

    def __enter__(self) -> LeafNodes:
        try:
            for server in (self.hub, *self.leaves.values()):
                server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in (self.hub, *self.leaves.values()):
            server.stop(kill=True)
        self._directory.cleanup()

    def cut(self, region: str) -> None:
        """Kill a region's server, and start it without a link to the hub."""
        self._restart(region, linked=False)

    def join(self, region: str) -> None:
        """Kill a region's server, and start it with a link to the hub."""
        self._restart(region, linked=True)

    def _restart(self, region: str, *, linked: bool) -> None:
        old = self.leaves[region]
        old.kill()
        self.leaves[region] = self._leaf(region, old.port, linked=linked)
        self.leaves[region].start()


_BURST = """
import asyncio, json, sys
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests", NATS_COUNTERS=json.loads(sys.argv[1]))
from django_nats.counters import Counter
name, times, aliases = json.loads(sys.argv[2])

async def burst():
    await asyncio.gather(
        *(Counter(name, alias=alias).aincr() for _ in range(times) for alias in aliases)
    )

asyncio.run(burst())
"""


@contextmanager
def burst(
    entries: Mapping[str, object], aliases: Iterable[str], name: str, *, processes: int, times: int
) -> Iterator[None]:
    """Count in several processes during the block.

    Each process increments the counter ``name`` ``times`` times in each alias of NATS_COUNTERS.
    """
    work = json.dumps([name, times, list(aliases)])
    command = [sys.executable, "-c", _BURST, json.dumps(entries), work]
    started = [subprocess.Popen(command) for _ in range(processes)]
    try:
        yield
        assert [process.wait(120) for process in started] == [0] * processes
    finally:
        for process in started:
            process.kill()
            process.wait()
