"""Opening a connection to one of the configured servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from random import SystemRandom
from typing import TYPE_CHECKING, Generic, TypeVar

from ...exceptions import NotSent
from .config import ConnectionConfig
from .nats_py import require_names

if TYPE_CHECKING:
    from ...devserver import Endpoint
    from .driver import Driver

D = TypeVar("D", bound="Driver")

_EMBEDDED_START_S = 15.0
"""How long the embedded server may take to start."""
_chance = SystemRandom()  # not the random module's state, which is the user's: tests seed it


class Connector(Generic[D]):
    """Opens the connections of one session, or other clients, on the running loop.

    It tries the configured servers, and those that the last connected server has announced as
    members of its cluster.
    """

    def __init__(self, config: ConnectionConfig, make: Callable[[], D]) -> None:
        """``make`` returns a new client for each attempt. It may be slow at first: it imports."""
        self._config = config
        self._make = make
        self._discovered: list[str] = []
        """URLs of the announced servers."""

    @property
    def server_count(self) -> int:
        """Return how many servers there are to choose from."""
        return len({*self._config.servers, *self._discovered})

    def learn_servers(self, connection: D) -> None:
        """Remember the servers that were announced on a connection."""
        self._discovered = [url.geturl() for url in connection.discovered_servers]

    async def connect(self, failures: list[Exception], *, callers_wait: bool) -> D:
        """Try each server once, in random order, and return the first connection.

        With ``callers_wait``, all attempts together take no longer than CONNECT_TIMEOUT,
        otherwise each of them. Add each server's failure to ``failures``. If no server can be
        connected to, raise the last failure.
        """
        require_names()
        config = self._config
        options = config.client_options()
        servers = [*config.servers, *self._discovered]
        if config.embedded is not None:
            starting = _embedded(config.embedded, temporary=config.test_run is not None)
            endpoint = await asyncio.wait_for(starting, _EMBEDDED_START_S)
            servers = [endpoint.url]
            options["token"] = endpoint.token
        _chance.shuffle(servers)
        options["connect_timeout"] = config.connect_timeout / (len(servers) if callers_wait else 1)
        for server in servers:
            connection = self._make()
            try:
                opening = asyncio.ensure_future(
                    connection.open(server, options, config.inbox_prefix)
                )
                # If it is cancelled at exit, it may fail all the same. Then nothing else
                # retrieves the error, which asyncio would log.
                opening.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.wait_for(opening, options["connect_timeout"])
            except Exception as error:
                failures.append(error)
            else:
                return connection
        raise failures[-1] if failures else NotSent("no server is configured")


async def _embedded(directory: str, *, temporary: bool) -> Endpoint:
    from ... import devserver

    start = partial(devserver.embedded, directory, temporary=temporary)
    return await asyncio.get_running_loop().run_in_executor(None, start)
