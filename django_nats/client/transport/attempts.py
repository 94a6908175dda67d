"""The attempts of a race: a server's name is looked up, and each of its addresses is tried."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from ...exceptions import NotSent, UnexpectedReply
from . import progress
from .addresses import is_address, look_up
from .config import ConnectionConfig
from .driver_errors import explain
from .greeting import OpenTransport
from .nats_client import NatsClient
from .progress import Stage

_OTHER_NAME = (62, 64)
"""OpenSSL's numbers for a certificate of another host name or IP address."""
_CLOSED = (ConnectionError, ssl.SSLEOFError, ssl.SSLZeroReturnError, RuntimeError)
"""Errors that say only that the connection is closed. The last is uvloop's."""


@dataclass(frozen=True)
class Terms:
    """What all attempts of a race have in common."""

    config: ConnectionConfig
    make: Callable[[], NatsClient]
    options: dict[str, Any]
    """Arguments for nats-py's connect()."""
    shuffle: Callable[[list[str]], object] | None
    """Called with the addresses of a host, unless their order is to be kept."""
    announced_in_plain: bool
    """Whether servers were announced before TLS, where anyone on the way can change that."""


class LookUp:
    """The attempt to find the addresses of a server."""

    stage = Stage.LOOKUP
    greeted = False

    def __init__(self, url: str, terms: Terms, *, announced: bool = False) -> None:
        """``announced``: the server is not in LOCATION, but another one has announced it."""
        self._url = url
        self._terms = terms
        self._announced = announced
        self._host = ""

    async def run(self) -> list[Opening]:
        """Return an attempt for each address."""
        terms, parts = self._terms, urlsplit(self._url)
        host, port = parts.hostname or "", parts.port or 4222
        self._host = host
        try:
            found = await look_up(host, port, terms.shuffle)
        except (OSError, UnicodeError) as error:  # one of IDNA: a part is empty, or too long
            reason = getattr(error, "strerror", None) or explain(error)
            raise NotSent(f"the name {host} cannot be looked up: {reason}") from error
        names = [host]
        if self._announced and "tls_hostname" not in terms.options:
            hosts = terms.config.hosts
            if terms.announced_in_plain:
                names = hosts  # a strange name may be that of a thief of passwords
            elif is_address(host):
                names = [*(each for each in hosts if not is_address(each)), host]
        return [Opening(self._url, each, port, names, terms) for each in found]

    def late(self) -> NotSent:
        """Return the error for a name server that does not answer."""
        return progress.late(self.stage, self._host, self._terms.config.connect_timeout)


class Opening:
    """The attempt to open a connection to one address."""

    def __init__(
        self, url: str, address: str, port: int, names: Sequence[str], terms: Terms
    ) -> None:
        """``names`` are those of which the server's certificate must have one."""
        self._url = url
        self._address, self._port = address, port
        self._names = names
        self._terms = terms
        self._transport: OpenTransport | None = None

    @property
    def stage(self) -> Stage:
        """How far it has come."""
        return Stage.CONNECTING if self._transport is None else self._transport.stage

    @property
    def greeted(self) -> bool:
        """Whether the server has greeted."""
        return self._transport is not None and self._transport.greeted

    @property
    def _where(self) -> str:
        host = f"[{self._address}]" if ":" in self._address else self._address
        return f"{host}:{self._port}"

    def late(self) -> NotSent:
        """Return the error for a server that does not answer."""
        return progress.late(self.stage, self._where, self._terms.config.connect_timeout)

    async def run(self) -> NatsClient:
        """Return the connection."""
        *others, last = self._names
        for name in others:
            with contextlib.suppress(_OtherName):
                return await self._open(name)
        return await self._open(last)

    async def _open(self, name: str) -> NatsClient:
        """Open a connection to a server whose certificate has a name."""
        terms = self._terms
        self._transport = None
        try:
            reader, writer = await asyncio.open_connection(self._address, self._port)
        except ConnectionRefusedError as error:
            words = f"{self._where} refused the connection. Does a NATS server listen there?"
            raise ConnectionRefusedError(words) from error
        transport = self._transport = OpenTransport(reader, writer, self._where)
        options = {"tls_hostname": name, **terms.options}
        connection = terms.make()
        try:
            await connection.open(self._url, transport, options)
        except Exception as error:
            if name != self._names[-1] and getattr(error, "verify_code", 0) in _OTHER_NAME:
                raise _OtherName from error
            if plain := self._in_plain_words(error, transport):
                raise plain from error
            raise
        finally:
            transport.end_login()
        return connection

    def _in_plain_words(self, error: Exception, transport: OpenTransport) -> Exception | None:
        if isinstance(error, UnicodeDecodeError):
            return UnexpectedReply("The server refuses with an error that is not UTF-8")
        if not isinstance(error, (OSError, RuntimeError)):
            return None
        if words := transport.last_words():
            return NotSent(f"the server refused the connection: {words}")
        tls = self._terms.config.tls
        if isinstance(error, ssl.SSLError):
            plain = progress.tls_failure(
                error,
                configured=tls is not None or self._url.startswith("tls:"),
                first=tls is not None and tls.handshake_first,
            )
            if plain is not None or isinstance(error, ssl.SSLCertVerificationError):
                return plain
        if transport.wants_certificate and (tls is None or tls.certificate is None):
            # The server's alert may come after the handshake, and be lost with the connection.
            return progress.TLSRefused(progress.NO_CERTIFICATE)
        if isinstance(error, _CLOSED):
            return progress.lost(transport.stage, self._where)
        return None


class _OtherName(Exception):
    """The server's certificate has not the name that was checked."""
