"""Opening a connection to one of the configured servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Generic, TypeVar, cast
from weakref import WeakSet

from ...realtime import monotonic
from .asking import Asking
from .config import ConnectionConfig
from .nats_py import require_names
from .race import Race

if TYPE_CHECKING:
    from ...devserver import Endpoint
    from .nats_client import NatsClient

D = TypeVar("D", bound="NatsClient")

_EMBEDDED_START_S = 15.0
"""How long the embedded server may take to start."""
_LEAST_S = 0.1
"""What servers have of CONNECT_TIMEOUT at least, if reading the secrets has taken the rest."""
_chance = SystemRandom()  # not the random module's state, which is the user's: tests seed it


class Connector(Generic[D]):
    """Opens the connections of one session, or other clients, on the running loop.

    It tries the configured servers, and those that the last connected server has announced as
    members of its cluster.
    """

    def __init__(self, config: ConnectionConfig, asking: Asking, make: Callable[[], D]) -> None:
        """``make`` returns a new client for each attempt. It may be slow at first: it imports."""
        self._config = config
        self._asking = asking
        self._make = make
        self._discovered: list[str] = []
        """URLs of the announced servers."""
        self._discovered_in_plain = False
        """Whether they were announced before TLS, where anyone on the way can change them."""
        self._made: WeakSet[D] = WeakSet()
        """The clients that are or were connected, or about to connect."""

    @property
    def server_count(self) -> int:
        """Return how many servers there are to choose from."""
        return len({*self._config.servers, *self._discovered})

    def learn_servers(self, connection: D) -> None:
        """Remember the servers that were last announced on a connection."""
        if self._config.discover:
            self._discovered = [f"{connection.scheme}://{each}" for each in connection.announced]
            self._discovered_in_plain = connection.announced_in_plain

    def descriptors(self) -> list[int]:
        """Return the file descriptors of all clients, which a forked child closes."""
        return [each for client in self._made for each in client.descriptors()]

    async def connect(self, failures: list[Exception], *, callers_wait: bool) -> D:
        """Return a connection to the first server that accepts one: see race.py.

        With ``callers_wait``, all attempts together take no longer than CONNECT_TIMEOUT,
        otherwise each that has reached a server. Add the failure of each to ``failures``. If no
        server can be connected to, raise the one that says most.
        """
        require_names()
        # It imports nats-py, which takes about 100 ms. It is imported here, at first use, so that
        # not every manage.py command pays for it.
        from .attempts import LookUp, Terms

        config = self._config
        began = monotonic()
        options = await self._asking.options()
        seconds = config.connect_timeout
        if callers_wait:
            seconds = max(seconds - (monotonic() - began), _LEAST_S)
        servers = config.servers
        if config.embedded is not None:
            starting = _embedded(config.embedded, temporary=config.test_run is not None)
            endpoint = await asyncio.wait_for(starting, _EMBEDDED_START_S)
            servers = (endpoint.url,)
            options["token"] = endpoint.token
        # nats-py's own timeout, for each step of a login, must not pass before the race's.
        options["connect_timeout"] = 2 * config.connect_timeout
        shuffle = _chance.shuffle if config.randomize else None
        terms = Terms(config, self._new, options, shuffle, self._discovered_in_plain)
        attempts = [LookUp(url, terms) for url in servers]
        attempts += [
            LookUp(url, terms, announced=True) for url in self._discovered if url not in servers
        ]
        if shuffle is not None:
            shuffle(attempts)
        race = Race(attempts, seconds, together=callers_wait)
        return cast("D", await race.run(failures))

    def _new(self) -> D:
        client = self._make()
        self._made.add(client)
        return client


async def _embedded(directory: str, *, temporary: bool) -> Endpoint:
    from ... import devserver

    start = partial(devserver.embedded, directory, temporary=temporary)
    return await asyncio.get_running_loop().run_in_executor(None, start)
