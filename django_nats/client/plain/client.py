"""A nats-py client that is connected as the settings say, and is the user's otherwise."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from math import ceil
from typing import Any
from weakref import WeakSet

from nats.aio.client import Client
from nats.errors import Error

from ...exceptions import DriverMismatch, NotSent, OutcomeUnknown
from ..transport import forks, login
from ..transport.asking import Asking
from ..transport.closing import close_within
from ..transport.config import ConnectionConfig
from ..transport.connector import Connector
from ..transport.driver_errors import explain, without_frames
from ..transport.greeting import OpenTransport
from ..transport.nats_client import NatsClient

__all__ = ["Client", "PlainClient", "connect", "connected"]

logger = logging.getLogger("django_nats")

PING_INTERVAL_S = 10
"""nats-py would notice only after minutes that a server no longer answers."""
_RENEWED = {"user", "password", "token", "tls"}
_CLOSE_S = 1.0
"""How long closing waits until the server has taken what was sent."""


class PlainClient(NatsClient):
    """nats-py's client. Only how it connects, reports and ends is the package's."""

    def __init__(self, config: ConnectionConfig, asking: Asking) -> None:
        """Make a client that Connector opens. It asks for the secrets again at each reconnect."""
        super().__init__()
        self._config = config
        self._asking = asking
        self._ended = False
        """Whether the user has closed it."""
        _clients.add(self)

    async def open(self, server: str, transport: OpenTransport, options: dict[str, Any]) -> None:
        """Log in to a server that is connected to. Raise what nats-py or the socket raised."""
        try:
            await self.log_in(
                server,
                transport,
                ping_interval=PING_INTERVAL_S,
                max_reconnect_attempts=-1,
                dont_randomize=not self._config.randomize,
                error_cb=self._report,
                disconnected_cb=self._report_loss,
                reconnected_cb=self._report_return,
                **options,
            )
        except BaseException:
            self.abort()
            raise

    def reconnect_when_lost(self) -> None:
        """Let nats-py open another connection when this one is lost, without end."""
        # This client has connected to one server only, as that is the way to a bounded first login.
        config = self._config
        self.options["allow_reconnect"] = True
        self.options["connect_timeout"] = config.connect_timeout
        if config.tls is None or config.tls.hostname is None:
            self.options.pop("tls_hostname", None)  # of the first server, and not of others
        known = {each.uri.netloc for each in self.server_pool}
        others = [url for url in config.servers if url.partition("//")[2] not in known]
        self._setup_server_pool(others)  # adds them

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        if not self._config.discover:
            info.pop("connect_urls", None)
        await super()._process_info(info, initial_connection)

    async def _connect_to_server(self, s: Any) -> None:
        if not self._logging_in:
            # nats-py leaves the socket and the tasks of an attempt that failed after its login.
            self.abort()
            # First, as a server does not wait long for the login of a connection that is open.
            await self._update_login()
        await super()._connect_to_server(s)

    async def _update_login(self) -> None:
        """Use the secrets and certificates that are valid by now to log in again."""
        login = await self._asking.options()
        self.options.update((each, login[each]) for each in _RENEWED & login.keys())
        if "nkeys_seed_str" in login or "user_credentials" in login:
            self._nkeys_seed_str = login.get("nkeys_seed_str")
            self._user_credentials = login.get("user_credentials")
            self._setup_nkeys_connect()

    async def _process_connect_init(self) -> None:
        if self._logging_in:
            return await super()._process_connect_init()
        try:
            await super()._process_connect_init()
        except BaseException as error:
            self.abort()  # nats-py would open the next socket and leave this one
            if isinstance(error, Exception) and not isinstance(error, (Error, OSError)):
                # After an error that it does not expect, nats-py would not try again.
                raise Error(explain(error)) from error
            raise

    async def _attempt_reconnect(self) -> None:
        # If the connection is lost again before nats-py has reconnected, it begins once more, and
        # both end the same future.
        with suppress(asyncio.InvalidStateError):
            await super()._attempt_reconnect()

    async def _process_err(self, err_msg: str) -> None:
        if not self.options["allow_reconnect"]:
            await super()._process_err(err_msg)
            return
        # nats-py would close the connection for good, and tell nobody. A server that wants it
        # closed closes it, as when credentials expire or were changed.
        text = err_msg.strip("'")
        self._err = Error(f"nats: {text}")
        await self._report(self._err)

    async def _process_pong(self) -> None:
        if self._pongs and self._pongs[0].done():
            # Its caller has stopped waiting. nats-py would raise an error, and read no more.
            self._pongs[0] = asyncio.get_running_loop().create_future()
        await super()._process_pong()

    async def _send_ping(self, future: asyncio.Future[bool] | None = None) -> None:
        if future is not None and self.is_connected and self._transport._io_writer.is_closing():
            # nats-py has yet to notice that. From here on, it would raise an error of asyncio's own
            # code, or wait for an answer. What is pending is sent once it has reconnected.
            raise ConnectionResetError("the connection was lost")
        if self.is_connected and self._pending:
            # nats-py would send the ping first, and the answer would confirm nothing.
            self._transport.writelines(self._pending)
            self._pending, self._pending_data_size = [], 0
        await super()._send_ping(future)

    @property
    def usable(self) -> bool:
        """Return True while there is a connection, which nobody has begun to close."""
        return self.is_connected and not self.is_draining

    async def close(self) -> None:
        """Close the connection."""
        self._ended = self._ended or self.is_connected
        await super().close()

    async def drain(self) -> None:
        """Close the connection, once callbacks have handled what has arrived."""
        await super().drain()
        self._ended = True

    async def _close(self, status: int, do_cbs: bool = True) -> None:
        if not self.is_connected:
            # nats-py would write it to a closed socket, fail, and leave subscriptions open.
            self._pending, self._pending_data_size = [], 0
        await super()._close(status, do_cbs)

    async def confirm(self) -> None:
        """Wait until the server has received what was published on the present connection.

        Raise OutcomeUnknown if that is not known within CONNECT_TIMEOUT.
        """
        if self._ended:
            return  # the user has closed it, and close() has raised what failed
        try:
            await asyncio.wait_for(self._flush_when_back(), self._config.connect_timeout)
        except Exception as error:  # nats-py does not expect all that a dead socket raises
            reason = error if self.is_connected else self.last_error or error
            raise OutcomeUnknown(
                f"The server may not have received what was published last: {explain(reason)}"
            ) from without_frames(error)

    async def _flush_when_back(self) -> None:
        if not self.is_connected and self._reconnection_task is not None:
            # nats-py's flush() would return at once, with nothing sent.
            await asyncio.wait([self._reconnection_task])
        await self.flush(ceil(self._config.connect_timeout))

    async def finish(self) -> None:
        """Close the connection, in a short time, and the socket in any case."""
        try:
            await close_within(_CLOSE_S, self)  # an error of it would replace one of the user
        finally:
            self.abort()

    async def _report(self, error: Exception) -> None:
        if not self.is_connected:
            logger.debug("%s: %s", self._where, explain(error))
        elif isinstance(error, Error) or asyncio.current_task() in self._own_tasks:
            logger.warning("%s: %s", self._where, explain(error))
        else:  # a callback of the user has raised it
            logger.error("%s: a callback has failed", self._where, exc_info=error)

    @property
    def _own_tasks(self) -> tuple[asyncio.Task[Any] | None, ...]:
        """Return nats-py's tasks that report errors of the socket, and call nothing of the user."""
        return self._flusher_task, self._reconnection_task

    async def _report_loss(self) -> None:
        if self.is_reconnecting:
            logger.warning("%s was lost", self._where)

    async def _report_return(self) -> None:
        logger.warning("%s is back", self._where)

    @property
    def _where(self) -> str:
        return f"A connection of {self._config.entry} to NATS at {self._config.where}"


async def connect(config: ConnectionConfig, asking: Asking) -> PlainClient:
    """Return a new client, connected within CONNECT_TIMEOUT on the running loop.

    Raise NotSent, AuthenticationFailed or DriverMismatch if that is not possible.
    """
    connector = Connector(config, asking, lambda: PlainClient(config, asking))
    try:
        client = await connector.connect([], callers_wait=True)
        if client.is_connected:
            return client
        # nats-py is closing it for good, as it may reconnect only after this. With TLS, that waits
        # for the server.
        client.abort()
        raise NotSent("the connection was lost right after the login") from client.last_error
    except Exception as error:
        cause = without_frames(error)
    if isinstance(cause, DriverMismatch):
        raise cause
    reason = login.with_remedy(explain(cause), {config.entry: config.login})
    raise login.refusal(login.no_connection(config.where, reason), cause)


@asynccontextmanager
async def connected(config: ConnectionConfig) -> AsyncIterator[Client]:
    """Connect a client for a block, and close it at the end.

    If the block raises nothing, wait until the server has received what was published on the last
    of the block's connections.
    """
    client = await connect(config, Asking(config))
    client.reconnect_when_lost()
    try:
        yield client
        await client.confirm()
    finally:
        await client.finish()


# Forks ---------------------------------------------------------------------------------------

_clients: WeakSet[PlainClient] = WeakSet()
# Objects of the parent, kept in a forked child, as in loop.py.
_inherited: list[object] = []


def _after_fork() -> None:
    clients = list(_clients)
    _inherited.append(clients)
    _clients.clear()
    for each in clients:
        forks.close_inherited(each.descriptors())


forks.call_in_child(_after_fork)
