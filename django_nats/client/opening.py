"""Finding a bucket on the server, making it when it is absent, and telling the server's time."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic
from typing import Any, Protocol

from ..exceptions import BucketMismatch, NoLeader, ServerError, ServerTooOld, Unavailable
from . import wire
from .bucket import MINIMUM_SERVERS, BucketConfig, require_bucket
from .recent import Recent
from .steps import Lane, Request, Steps
from .wire import Reply

_GOOD_ENOUGH = 0.05  # seconds between question and answer
CLOCK_REFRESH = 60.0
_API_TIMEOUT = 5.0  # making a replicated stream takes an election
_PROBE_TIMEOUT = 0.5


class Server(Protocol):
    """What a bucket needs to know of its session."""

    epoch: int

    @property
    def max_payload(self) -> int: ...

    @property
    def server(self) -> str: ...

    def post(self, request: Request) -> None: ...


class Opening:
    """The part of a bucket that knows its stream: once for every connection, and then for free."""

    def __init__(self, config: BucketConfig, server: Server, recent: Recent) -> None:
        self.config = config
        self.recent = recent
        self._server = server
        timeout = config.request_timeout
        self.reads = Lane(f"reads of the bucket {config.name}", timeout)
        self.writes = Lane(f"writes to the bucket {config.name}", timeout)
        self._api = Lane(f"the JetStream API for {config.name}", max(timeout, _API_TIMEOUT))
        probes = Lane(f"a probe of the bucket {config.name}", min(timeout, _PROBE_TIMEOUT))
        self.reads.probe = Request(
            probes, f"$JS.API.DIRECT.GET.{config.stream}.$KV.{config.name}.=probe"
        )
        self.writes.probe = self._info_request(probes)
        self._opened = -1
        self._ever_opened = False
        self._clock = 0.0
        self._clock_due = 0.0
        self.replicated = config.replicas > 1
        self.max_message = config.max_value_size

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.config.name}>"

    def now(self) -> float:
        """Seconds since 1970 on the server's clock, whatever the time on this machine."""
        return monotonic() + self._clock

    def stored_by_now(self, stamp: bytes) -> None:
        """Learn from a message that has been read: the estimate must not be before its time."""
        late = wire.epoch(stamp) - self.now()
        if late > 0:
            self._clock += late

    def ready(self) -> Steps[None]:
        """Open the bucket unless this connection already has."""
        if self._opened == self._server.epoch:
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

        Raises BucketMismatch when it exists but cannot serve, ServerTooOld, or ServerError.
        """
        document = yield from self.info()
        if document is None:
            document = yield from self.create()
        config = document["config"]
        try:
            require_bucket(self.config, config)
        except BucketMismatch:
            yield from self._require_server()
            raise
        self.replicated = config.get("num_replicas", 1) > 1
        if document["state"].get("last_seq", 0) < self.recent.newest:
            self.recent.forget()
        limit = config.get("max_msg_size", -1)
        self.max_message = limit if limit > 0 else self.config.max_value_size
        self._opened = self._server.epoch
        self._ever_opened = True
        return document

    def info(self) -> Steps[dict[str, Any] | None]:
        """STREAM.INFO of the bucket's stream; None when there is no such stream."""
        for estimate in ("first", "better"):
            sent = monotonic()
            reply = yield self._info_request()
            if wire.status(reply) == 503:
                # A mistake at first; later, a server that has come back without it.
                raise (NoLeader if self._ever_opened else ServerError)(
                    "JetStream is not enabled on the NATS server, or not for this account: "
                    "start nats-server with -js"
                )
            try:
                document = wire.parse_api(reply)
            except ServerError as error:
                if error.err_code == wire.STREAM_NOT_FOUND:
                    return None
                raise
            self._set_clock(reply, sent)
            # The first wait may include connecting: too loose a measure for a clock.
            if estimate == "better" or monotonic() - sent < _GOOD_ENOUGH:
                break
        return document

    def create(self) -> Steps[dict[str, Any]]:
        """Make the stream as settings say; the server's document about it."""
        yield from self._require_server()
        payload = wire.compact_json(self.config.stream_config())
        request = self.api_request(f"$JS.API.STREAM.CREATE.{self.config.stream}", payload)
        try:
            wire.parse_api((yield request))
        except ServerError as error:
            if error.err_code != wire.STREAM_NAME_IN_USE:
                message = f"The bucket {self.config.name} cannot be made: {error}"
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
                f"The bucket {self.config.name} needs nats-server "
                f"{MINIMUM_SERVERS[self.config.api_level]} or newer "
                f"(JetStream API level {self.config.api_level}), but this is "
                f"{self._server.server} (level {level})."
            )

    def update(self, existing: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Change the stream from its existing config to settings'; the server's document about it.

        What settings say nothing of stays as it is. Raises ServerError when the server refuses.
        """
        wanted = {"placement": None, **self.config.stream_config()}
        payload = wire.compact_json({**existing, **wanted})
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

    def _set_clock(self, reply: Reply, sent: float) -> None:
        """Estimate the server's clock against this process's monotonic one, halfway between."""
        stamp = wire.parse_api(reply).get("ts")
        if stamp is not None:
            received = monotonic()
            clock = wire.epoch(stamp.encode()) - (sent + received) / 2
            # What a slow answer leaves open, an earlier and quicker one may have told.
            if abs(clock - self._clock) > (received - sent) / 2:
                self._clock = clock
            self._clock_due = received + CLOCK_REFRESH
