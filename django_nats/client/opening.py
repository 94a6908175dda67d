"""Finding a stream on the server, and making it when it is absent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

from ..exceptions import NatsError, NoLeader, ServerError, ServerTooOld, Unavailable
from . import wire
from .differences import differences
from .recent import Recent
from .steps import Lane, Request, Steps
from .streamconfig import StreamConfig
from .wire import Reply

C = TypeVar("C", bound=StreamConfig)

_API_TIMEOUT = 5.0  # making a replicated stream takes an election
_PROBE_TIMEOUT = 0.5


class Server(Protocol):
    """What a stream needs to know of its session."""

    epoch: int

    @property
    def max_payload(self) -> int: ...

    @property
    def server(self) -> str: ...

    def post(self, request: Request) -> None: ...


class Opening(Generic[C]):
    """What knows its stream: asked once for every connection, and then for free."""

    def __init__(self, config: C, server: Server, recent: Recent) -> None:
        self.config = config
        self.recent = recent
        self._server = server
        timeout = config.request_timeout
        self.reads = Lane(f"reads of the {config.title}", timeout)
        self.writes = Lane(f"writes to the {config.title}", timeout)
        self._api = Lane(f"the JetStream API for the {config.title}", max(timeout, _API_TIMEOUT))
        probes = Lane(f"a probe of the {config.title}", min(timeout, _PROBE_TIMEOUT))
        self.reads.probe = Request(probes, f"$JS.API.DIRECT.GET.{config.stream}.{config.probe}")
        self.writes.probe = self._info_request(probes)
        self._opened = -1
        self._ever_opened = False
        self.replicated = config.replicas > 1

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.stream}>"

    @property
    def is_ready(self) -> bool:
        """Whether this connection has opened the stream."""
        return self._opened == self._server.epoch

    def ready(self) -> Steps[None]:
        """Open the stream unless this connection already has."""
        if self.is_ready:
            return
        try:
            yield from self.open()
        except Unavailable:
            # Known from an earlier connection, it need not be found again to be read: replicas
            # answer direct gets while the stream elects a leader.
            if not self._ever_opened:
                raise

    def open(self) -> Steps[dict[str, Any]]:
        """Find the stream, or make it; the server's document about it.

        Raises what the config's ``require`` does when it exists but cannot serve, ServerTooOld,
        or ServerError.
        """
        document = yield from self.info()
        if document is None:
            document = yield from self.create()
        try:
            self.config.require(document["config"])
        except NatsError:
            yield from self._require_server()
            raise
        self._learn(document)
        self._opened = self._server.epoch
        self._ever_opened = True
        return document

    def _learn(self, document: Mapping[str, Any]) -> None:
        """Take over what the server says of the stream and settings may not know."""
        self.replicated = document["config"].get("num_replicas", 1) > 1
        if document["state"].get("last_seq", 0) < self.recent.newest:
            self.recent.forget()

    def info(self) -> Steps[dict[str, Any] | None]:
        """STREAM.INFO; None when there is no such stream."""
        return self._told((yield self._info_request()))

    def _told(self, reply: Reply) -> dict[str, Any] | None:
        if wire.status(reply) == 503:
            # A mistake at first; later, a server that has come back without it.
            raise (NoLeader if self._ever_opened else ServerError)(
                "JetStream is not enabled on the NATS server, or not for this account: "
                "start nats-server with -js"
            )
        try:
            return wire.parse_api(reply)
        except ServerError as error:
            if error.err_code == wire.STREAM_NOT_FOUND:
                return None
            raise

    def create(self) -> Steps[dict[str, Any]]:
        """Make the stream as settings say; the server's document about it."""
        yield from self._require_server()
        payload = wire.compact_json(self.config.stream_config())
        request = self.api_request(f"$JS.API.STREAM.CREATE.{self.config.stream}", payload)
        try:
            wire.parse_api((yield request))
        except ServerError as error:
            if error.err_code != wire.STREAM_NAME_IN_USE:
                message = f"The {self.config.title} cannot be made: {error}"
                raise type(error)(message, code=error.code, err_code=error.err_code) from error
        document = yield from self.info()
        if document is None:
            raise ServerError(f"The stream {self.config.stream} was deleted while being made")
        return document

    def _require_server(self) -> Steps[None]:
        answer = wire.parse_api((yield self.api_request("$JS.API.INFO")))
        level = answer["api"].get("level", 0)
        if level < self.config.api_level:
            raise ServerTooOld(
                f"The {self.config.title} needs nats-server {self.config.minimum_server} or newer "
                f"(JetStream API level {self.config.api_level}), but this is "
                f"{self._server.server} (level {level})."
            )

    def update(self, existing: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Change the stream from its existing config to settings'; the server's document about it.

        What settings say nothing of stays as it is. Raises ServerError when the server refuses.
        """
        changed = {each.field: each.wanted for each in differences(self.config, existing, {})}
        payload = wire.compact_json({**existing, **self.config.stream_config(), **changed})
        request = self.api_request(f"$JS.API.STREAM.UPDATE.{self.config.stream}", payload)
        wire.parse_api((yield request))
        return (yield from self.open())

    def post(self, request: Request) -> None:
        """Send a request and go on: what a generator that is being closed can still do."""
        self._server.post(request)

    def api_request(self, subject: str, payload: bytes = b"") -> Request:
        """A request to the JetStream API, which may take longer than one for a value."""
        return Request(self._api, subject, payload)

    def _info_request(self, lane: Lane | None = None) -> Request:
        return Request(lane or self.writes, f"$JS.API.STREAM.INFO.{self.config.stream}")
