"""Opening a connection to one of the configured servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, cast
from weakref import WeakSet

from ..protocol.steps import Lane
from .config import ConnectionConfig
from .nats_py import require_names
from .race import Race

if TYPE_CHECKING:
    from ...devserver import Endpoint
    from .connection import Connection

_EMBEDDED_START_S = 15.0
"""How long the embedded server may take to start."""
_chance = SystemRandom()  # not the random module's state, which is the user's: tests seed it


class Connector:
    """Opens the connections of one session, on the loop's thread.

    It tries the configured servers, and those that the last connected server has announced as
    members of its cluster.
    """

    def __init__(
        self,
        config: ConnectionConfig,
        on_timeout: Callable[[Lane], str | None],
        on_received: Callable[[], None],
    ) -> None:
        """Make a connector. The two functions are those that a Connection takes."""
        self._config = config
        self._on_timeout = on_timeout
        self._on_received = on_received
        self._discovered: list[str] = []
        """URLs of the announced servers."""
        self._discovered_in_plain = False
        """Whether they were announced before TLS, where anyone on the way can change them."""
        self._made: WeakSet[Connection] = WeakSet()
        """The connections that are or were open, or about to open."""

    @property
    def server_count(self) -> int:
        """Return how many servers there are to choose from."""
        return len({*self._config.servers, *self._discovered})

    def learn_servers(self, connection: Connection) -> None:
        """Remember the servers that were last announced on a connection."""
        if self._config.discover:
            self._discovered = [f"{connection.scheme}://{each}" for each in connection.announced]
            self._discovered_in_plain = connection.announced_in_plain

    def descriptors(self) -> list[int]:
        """Return the file descriptors of all connections, which a forked child closes."""
        return [each for connection in self._made for each in connection.descriptors()]

    async def connect(self, failures: list[Exception], *, callers_wait: bool) -> Connection:
        """Return a connection to the first server that accepts one: see race.py.

        With ``callers_wait``, all attempts together take no longer than CONNECT_TIMEOUT,
        otherwise each that has reached a server. Add the failure of each to ``failures``. If no
        server can be connected to, raise the one that says most.
        """
        # nats-py takes about 100 ms to import. It is imported here, at first use, so that not
        # every manage.py command pays for it.
        require_names()
        from .attempts import LookUp, Terms

        config = self._config
        options = config.client_options()
        servers = config.servers
        if config.embedded is not None:
            starting = _embedded(config.embedded, temporary=config.test_run is not None)
            endpoint = await asyncio.wait_for(starting, _EMBEDDED_START_S)
            servers = (endpoint.url,)
            options["token"] = endpoint.token
        # nats-py's own timeout, for each step of a login, must not pass before the race's.
        options["connect_timeout"] = 2 * config.connect_timeout
        terms = Terms(
            make=self._make,
            options=options,
            inbox_prefix=config.inbox_prefix,
            seconds=config.connect_timeout,
            shuffle=_chance.shuffle if config.randomize else None,
            certificate=config.tls is not None and config.tls.certificate is not None,
            hosts=config.hosts,
            announced_in_plain=self._discovered_in_plain,
        )
        attempts = [LookUp(url, terms) for url in servers]
        attempts += [
            LookUp(url, terms, announced=True) for url in self._discovered if url not in servers
        ]
        if config.randomize:
            _chance.shuffle(attempts)
        race = Race(attempts, config.connect_timeout, together=callers_wait)
        return cast("Connection", await race.run(failures))

    def _make(self) -> Connection:
        from .connection import Connection

        connection = Connection(self._on_timeout, self._on_received)
        self._made.add(connection)
        return connection


async def _embedded(directory: str, *, temporary: bool) -> Endpoint:
    from ... import devserver

    start = partial(devserver.embedded, directory, temporary=temporary)
    return await asyncio.get_running_loop().run_in_executor(None, start)
