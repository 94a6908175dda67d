"""What the server refuses on a line of its own: connections and subscriptions."""

from __future__ import annotations

import asyncio
import math
import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import drivers, process
from django_nats.client.feed import watcher
from django_nats.client.feed.feed import Feed
from django_nats.client.protocol.steps import Follow, Request
from django_nats.client.transport import error_lines
from django_nats.client.transport.config import ConnectionConfig
from django_nats.client.transport.connection import Connection
from django_nats.client.transport.greeting import LastWords
from django_nats.client.transport.pending import Outstanding
from django_nats.client.transport.waiter import Waiter
from django_nats.devserver import NatsServer
from django_nats.exceptions import LimitReached, NotSent, PermissionDenied, Unavailable
from tests.client.lanes import PATIENT as PATIENT_LANE
from tests.client.lanes import asking, session_of
from tests.conftest import PATIENT
from tests.servers import eventually, request
from tests.support.accounts import Operator
from tests.support.answers import finish, opened, stream_info
from tests.support.certificates import Authority
from tests.support.following import Following, Recorder
from tests.support.reloading import LOGIN, Reloading, account


@contextmanager
def occupied(server: NatsServer) -> Iterator[None]:
    """Keep the only connection that a server allows taken."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
        assert peer.recv(4096).startswith(b"INFO")
        log_in(peer)
        yield


def log_in(peer: socket.socket) -> None:
    """Log in, and return when the server counts the connection."""
    peer.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
    lines = peer.makefile("rb")
    while (line := lines.readline()) != b"PONG\r\n":
        assert line, "the server hung up"


IN_PLAIN_TEXT = "the server answers the TLS handshake in plain text"

# Connections ---------------------------------------------------------------------------------


@pytest.mark.parametrize("speed", ["asyncio", "uvloop"])
def test_the_limit_of_connections_is_named_and_its_end_is_noticed(
    monkeypatch: pytest.MonkeyPatch, speed: str
) -> None:
    if speed == "asyncio":
        monkeypatch.setitem(sys.modules, "uvloop", None)
    else:
        pytest.importorskip("uvloop")
    process.close()
    with NatsServer(config="max_connections: 1", token="") as server:
        session = session_of(server, max_reconnect_wait=0.2)
        with occupied(server), pytest.raises(NotSent, match="maximum connections exceeded"):
            drivers.run(session, asking(PATIENT_LANE, "a"))
        assert eventually(lambda: session.connected)
        process.close()


def test_the_limit_of_connections_is_named_before_tls_begins(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("server", "127.0.0.1")
    tls = f'tls {{ cert_file: "{certificate}", key_file: "{key}" }}'
    with NatsServer(config=f"max_connections: 1\n{tls}", token="") as server:
        with socket.create_connection(("127.0.0.1", server.port), timeout=60) as peer:
            secured = ssl.create_default_context(cafile=authority.ca)
            assert peer.recv(4096).startswith(b"INFO")
            with secured.wrap_socket(peer, server_hostname="127.0.0.1") as stream:
                log_in(stream)
                with pytest.raises(NotSent, match=f"maximum connections exceeded|{IN_PLAIN_TEXT}"):
                    make(server, TLS={"CA": authority.ca}).get("key")
        process.close()


def test_words_that_come_after_tls_has_begun_are_explained() -> None:
    greeting = b'INFO {"server_id":"x","version":"2.15.1","tls_required":true,"max_payload":1}\r\n'
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def refuse() -> None:
            peer, _ = listener.accept()
            with peer:
                peer.sendall(greeting)
                assert peer.recv(4096)  # the handshake
                peer.sendall(b"-ERR 'maximum connections exceeded'\r\n")

        refusing = threading.Thread(target=refuse)
        refusing.start()
        url = f"nats://127.0.0.1:{listener.getsockname()[1]}"
        session = process.session(ConnectionConfig((url,), connect_timeout=30.0))
        with pytest.raises(NotSent, match=IN_PLAIN_TEXT) as caught:
            drivers.run(session, asking(PATIENT_LANE, "a"))
        assert isinstance(caught.value.__cause__, NotSent)
        process.close()
        refusing.join()


def test_the_limit_of_an_accounts_connections_is_named(tmp_path: Path) -> None:
    operator = Operator(conn=1)
    with NatsServer(config=operator.server_config, token="") as server:
        sessions = [
            session_of(server, credentials=operator.write_credentials(tmp_path / name))
            for name in ("first", "second")
        ]
        drivers.run(sessions[0], asking(PATIENT_LANE, "a"))
        with pytest.raises(NotSent, match="maximum account active connections exceeded"):
            drivers.run(sessions[1], asking(PATIENT_LANE, "a"))
        process.close()


@pytest.mark.parametrize(
    ("buffered", "unread", "words"),
    [
        (b"-ERR 'too many'\r\n", b"", "too many"),
        (b"", b"-ERR 'too many'\r\n", "too many"),
        (b"-ERR 'too", b" many'\r\n", "too many"),
        (b"PING\r\n-ERR 'too many'\r\n", b"", "too many"),
        (b"-ERR 'a\x1b\xff'\r\n", b"", "a\\x1b\ufffd"),
        (b"PING\r\n", b"", ""),
        (b"", b"", ""),
    ],
)
def test_the_last_words_are_found_wherever_they_are(
    buffered: bytes, unread: bytes, words: str
) -> None:
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with theirs:
        theirs.sendall(unread)
        with ours:
            last = LastWords(ours)  # asyncio closes the socket after an error
        try:
            assert last.read(buffered) == words
        finally:
            last.close()


def test_a_socket_that_is_closed_already_has_no_more_last_words() -> None:
    ours, theirs = socket.socketpair()
    ours.close()
    theirs.close()
    last = LastWords(ours)
    assert last.read(b"-ERR 'too many'\r\n") == "too many"
    last.close()


# Subscriptions -------------------------------------------------------------------------------


def make(server: NatsServer, **options: Any) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {**PATIENT, **options}})


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watcher, "_RETRY_REFUSED_S", 0.05)


def test_too_many_subscriptions_cost_the_feed_and_not_the_connection(impatient: None) -> None:
    with NatsServer(config="max_subscriptions: 2", token="") as server:
        cache = make(server)
        first = Following(cache, within=3600.0)
        connection = cache.session.connection
        following = Following(cache, wait=False)
        following.wait_for(lambda: len(following.recorder.refusals) >= 3)
        assert isinstance(following.recorder.refusals[0], LimitReached)
        assert "maximum subscriptions exceeded" in following.watcher.state
        cache.set("key", 1)
        assert cache.get("key") == 1
        first.stop()
        following.wait_for(lambda: bool(following.recorder.proofs))
        following.stop()
        assert cache.session.connection is connection
        process.close()


class Link:
    """The part of a connection with which a feed begins, without a server."""

    def listen(self, *functions: Callable[..., object]) -> tuple[bytes, str]:
        return b"2", "_INBOX.x.token.feed"

    def post(self, subject: bytes) -> None:
        raise AssertionError(f"a message to {subject!r}")


async def test_a_feed_whose_subscription_was_refused_creates_no_consumer() -> None:
    bucket, refusal = opened(), LimitReached("maximum subscriptions exceeded")
    feed = Feed(Link(), bucket, ["$KV.b.=.1.>"], Recorder(), 1.0, None)  # type: ignore[arg-type]
    feed._refuse(refusal)
    with pytest.raises(LimitReached) as caught:
        finish(feed.open(), stream_info(bucket.config))
    assert caught.value is refusal


def test_too_many_subscriptions_fail_a_listing_and_leave_the_feed(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_nats.client.operations._last_warning", -math.inf)
    monkeypatch.setattr("django_nats.client.operations._QUIET_S", 3600.0)
    with NatsServer(config="max_subscriptions: 2", token="") as server:
        cache = make(server)
        following = Following(cache, within=3600.0)
        cache.set("key", 1)
        following.wait_for(following.recorder.heard.is_set)
        connection = cache.session.connection
        with pytest.raises(LimitReached, match="raise max_subscriptions"):
            cache.keys()
        for _ in range(2):
            assert make(server, FAIL_OPEN=True).keys() == []
        hidden = [each for each in caplog.messages if "going on without it (FAIL_OPEN)" in each]
        assert len(hidden) == 1
        assert "maximum subscriptions exceeded" in hidden[0]
        assert cache.session.connection is connection
        assert following.recorder.lives == 1
        assert following.watcher.state == "whole"
        following.stop()
        process.close()


@pytest.mark.parametrize("heard", [False, True], ids=["unheard", "heard"])
def test_notices_of_changes_leave_the_last_subscription_to_listings_and_feeds(heard: bool) -> None:
    with NatsServer(config="max_subscriptions: 2", token="") as server:
        cache = make(server)
        cache.set("key", 1)
        connection, stream = cache.session.connection, cache.bucket.stream
        if heard:
            due = stream.opening._facts.due
            config = {**cache.bucket.config.stream_config(), "description": "changed"}
            request(server, stream.api.update, config)
            assert eventually(lambda: stream.opening._facts.due < due)
        assert cache.keys() == ["key"]
        following = Following(cache, within=3600.0)
        cache.set("key", 2)
        following.wait_for(following.recorder.heard.is_set)
        following.stop()
        assert cache.session.connection is connection
        process.close()


async def test_a_refused_listing_goes_on_only_once_the_notices_have_made_room() -> None:
    loop, order = asyncio.get_running_loop(), []
    # As the connection does it, which writes the line on the loop's thread.
    outstanding = Outstanding(lambda sid: loop.call_soon(order.append, "UNSUB"))
    outstanding.open(b"_INBOX.x.")
    follow = Follow("changes", lambda _: None, lambda _: order.append("refused"))
    frames: list[bytes] = []
    outstanding.enlist(Waiter([Request(PATIENT_LANE, "info", follow=follow)], int), frames, 100)
    listing = Waiter([Request(PATIENT_LANE, "next", inbox=True)], lambda: order.append("listing"))
    outstanding.enlist(listing, frames, 100)
    lines = error_lines.ErrorLines(outstanding, pytest.fail)
    lines.opened = True
    assert lines.takes("'maximum subscriptions exceeded'")
    assert order == ["refused"]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["refused", "UNSUB", "listing", "UNSUB"]


def test_an_account_without_any_subscription_is_reported(tmp_path: Path) -> None:
    operator = Operator(subs=0)
    with NatsServer(config=operator.server_config, token="") as server:
        credentials = operator.write_credentials(tmp_path / "user")
        session = session_of(server, credentials=credentials)
        with pytest.raises(NotSent, match="maximum subscriptions exceeded"):
            drivers.run(session, asking(PATIENT_LANE, "a"))
        process.close()


def test_a_refused_inbox_is_named_though_the_connection_is_lost_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ping = Connection.ping

    async def go_on_late(connection: Connection) -> None:
        await ping(connection)
        connection.lose(ConnectionResetError("the connection was reset"))

    monkeypatch.setattr(Connection, "ping", go_on_late)
    block = account(permissions='subscribe: { deny: "_INBOX.>" }')
    with Reloading(config=block, token="") as server:
        with pytest.raises(NotSent, match="INBOX_PREFIX is where answers come in"):
            make(server, **LOGIN).get("key")
        process.close()


def test_a_feed_whose_subject_may_not_be_subscribed_to_is_refused(impatient: None) -> None:
    only_replies = 'subscribe: { allow: "_INBOX.*.*" }'
    with Reloading(config=account(permissions=only_replies), token="") as server:
        cache = make(server, **LOGIN)
        cache.set("key", 1)
        connection = cache.session.connection
        following = Following(cache, wait=False)
        following.wait_for(lambda: len(following.recorder.refusals) >= 2)
        assert isinstance(following.recorder.refusals[0], PermissionDenied)
        assert "No permission to subscribe to _INBOX." in following.watcher.state
        assert cache.get("key") == 1
        assert cache.session.connection is connection

        server.reload(account())
        following.wait_for(lambda: bool(following.recorder.proofs))
        # Withdrawn from a feed that is open, the permission ends it at once.
        server.reload(account(permissions=only_replies))
        following.wait_for(lambda: "No permission to subscribe" in following.watcher.state)
        following.stop()
        process.close()


def test_refused_requests_are_logged_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    denied = 'publish: { deny: "$JS.API.DIRECT.>" }'
    with NatsServer(config=account(permissions=denied), token="") as server:
        cache = make(server, **LOGIN, FAIL_OPEN=True)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(error_lines, "_QUIET_S", 3600.0)
            for _ in range(3):
                assert cache.get("key") is None
        refused = "The NATS server refused a request: "
        assert len([each for each in caplog.messages if each.startswith(refused)]) == 1
        with pytest.raises(Unavailable):
            make(server, **LOGIN).get("key")
        process.close()
