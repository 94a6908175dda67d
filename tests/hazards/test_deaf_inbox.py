"""The server drops the subscription of the client's inbox, but still answers pings."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.client.transport import hearing
from django_nats.client.transport.connection import Connection
from django_nats.client.transport.loop import thread as loop_thread
from django_nats.counters import Counter, counters
from django_nats.devserver.files import eventually
from django_nats.exceptions import OutcomeUnknown, PermissionDenied, Unavailable
from tests.conftest import PATIENT
from tests.servers import ROOT
from tests.support.patience import hurry
from tests.support.reloading import Reloading

USERS = (
    "authorization {{ timeout: 60, users: [{{ user: u, password: p, permissions: {{ {} }} }}] }}"
)
ALL = 'subscribe: ">"'
NO_INBOX = 'subscribe: { allow: ">", deny: "_INBOX.>" }'
TIMEOUT = 1.0


class Server(Reloading):
    """A server whose users' permissions can be changed while it runs."""

    def permit(self, permissions: str) -> None:
        """Reload with other permissions, and return when the server has done so."""
        self.reload(USERS.format(permissions))


def soon(condition: Callable[[], bool]) -> bool:
    return eventually(condition, time.monotonic() + 60)


@contextmanager
def serving(permissions: str = ALL) -> Iterator[Server]:
    with Server(config=USERS.format(permissions), token="") as server:
        yield server
        process.close()


def connect(server: Server, timeout: float = TIMEOUT, **options: object) -> NatsCache:
    login = {"USER": "u", "PASSWORD": "p", **PATIENT}
    cache = NatsCache(server.url, {"OPTIONS": {**login, **options}})
    cache.set("key", "value")
    hurry(cache, timeout)
    return cache


def answers(cache: NatsCache) -> bool:
    try:
        return bool(cache.get("key") == "value")
    except Unavailable:
        return False


def connection_of(owner: Any) -> Connection:
    connection = owner.session._connection
    assert connection is not None
    return connection


def deafen(connection: Connection) -> None:
    """Have the server drop the subscription silently."""
    done = threading.Event()

    def unsubscribe() -> None:
        connection.outgoing.write(b"UNSUB 1\r\n")
        done.set()

    loop_thread.call(unsubscribe)
    assert done.wait(60)


def inbox_messages(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list of the times at which connections sent a message to their own inbox."""
    asked: list[float] = []
    send = Connection.send_to_inbox

    def note(connection: Connection) -> None:
        asked.append(time.monotonic())
        send(connection)

    monkeypatch.setattr(Connection, "send_to_inbox", note)
    return asked


def test_an_inbox_forbidden_by_a_reload_is_logged_and_recovers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    with serving() as server:
        cache = connect(server, MAX_REFUSED_WAIT=0.2)
        deaf = connection_of(cache)
        server.permit(NO_INBOX)
        assert soon(lambda: not cache.session.connected)
        assert isinstance(deaf.lost.result(), Unavailable)
        with pytest.raises(Unavailable, match=r"permissions violation.*INBOX_PREFIX"):
            cache.get("key")
        server.permit(ALL)
        assert soon(lambda: answers(cache))
    logged = [each for each in caplog.messages if "permissions violation" in each]
    assert len(logged) == 1
    assert "INBOX_PREFIX" in logged[0]


def test_a_silently_dropped_inbox_ends_the_connection_and_recovers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "_PATIENCE_S", 1.0)
    with serving() as server:
        cache = connect(server)
        deaf = connection_of(cache)
        deafen(deaf)
        with pytest.raises(OutcomeUnknown):
            cache.get("key")
        assert soon(deaf.lost.done)
        assert isinstance(deaf.lost.result(), hearing.Deaf)
        assert soon(lambda: answers(cache))


def test_a_dropped_inbox_is_noticed_without_permission_to_publish_to_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hearing, "_PATIENCE_S", 60.0)
    monkeypatch.setattr(hearing, "_PATIENCE_UNASKED_S", 0.5)
    with serving('publish: { allow: ">", deny: "_INBOX.>" }') as server:
        cache = connect(server, timeout=60)
        deaf = connection_of(cache)
        deafen(deaf)
        with pytest.raises(OutcomeUnknown):
            cache.get("key")
        assert soon(deaf.lost.done)
        assert isinstance(deaf.lost.result(), hearing.Deaf)
        assert not deaf.hearing.permitted
        assert soon(lambda: answers(cache))
    assert "refuses" not in caplog.text


def documented(page: str, heading: str) -> str:
    """Return the permissions that a page's table lists, as a server's configuration has them."""
    text = (ROOT / "docs" / page).read_text().partition(heading)[2]
    rows = dict(re.findall(r"^\| (publish|subscribe) \| (.*) \|$", text, re.MULTILINE)[:2])
    return ", ".join(
        f"{direction}: {json.dumps(re.findall('`(.+?)`', subjects))}"
        for direction, subjects in rows.items()
    )


def test_a_dropped_inbox_is_noticed_with_the_documented_permissions(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(hearing, "_PATIENCE_S", 0.5)
    monkeypatch.setattr(hearing, "_PATIENCE_UNASKED_S", 600.0)
    permissions = documented("how-to/configure.md", "### What the account must be allowed to do")
    with serving(permissions) as server:
        cache = connect(server, BUCKET="web_cache", timeout=60)
        assert cache.add("other", 1)
        assert cache.incr("other") == 2
        assert cache.get_many(["key", "other"]) == {"key": "value", "other": 2}
        assert sorted(cache.keys()) == ["key", "other"]
        assert cache.delete("other")
        deaf = connection_of(cache)
        deafen(deaf)
        with pytest.raises(OutcomeUnknown):
            cache.get("key")
        assert soon(deaf.lost.done)
        assert isinstance(deaf.lost.result(), hearing.Deaf)
        assert soon(lambda: answers(cache))
        cache.clear()
        assert not answers(cache)


def test_counters_work_with_the_documented_permissions() -> None:
    permissions = documented("reference/counters.md", "(what-counters-must-be-allowed)=")
    with serving(permissions) as server:
        alias = {"LOCATION": server.url, "USER": "u", "PASSWORD": "p", "REQUEST_TIMEOUT": 60.0}
        with override_settings(NATS_COUNTERS={"default": {**alias, "DEADLINE": 60.0}}):
            assert counters.incr("a.b", 3) == 3
            counters.incr_later("a.c")
            counters.flush()
            assert counters.matching("a.*") == {"a.b": 3, "a.c": 1}
            Counter("a.b").reset()
            assert counters.get_many(["a.b", "a.c"]) == {"a.b": 0, "a.c": 1}


def test_an_idle_connection_sends_no_message_to_its_inbox(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("django_nats.client.transport.connection.PING_INTERVAL_S", 0.5)
    monkeypatch.setattr("django_nats.client.transport.timeouts._DOUBT_S", 0.1)
    with serving() as server:
        cache = connect(server, timeout=60)
        connection = connection_of(cache)
        # A server that is slow to answer pings does not count as lost.
        connection.options.update(ping_interval=0.05, max_outstanding_pings=10_000)
        assert soon(lambda: connection.hearing._proof is None or connection.hearing._proof.done())
        asked = inbox_messages(monkeypatch)
        pings = connection._pongs_received
        assert soon(lambda: connection._pongs_received > pings + 10)
        assert asked == []


def test_a_forbidden_subscription_of_a_listing_fails_only_that_call(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Listing keys needs a subscription: it fails at once, and the connection stays open."""
    with serving('subscribe: { allow: ">", deny: "_INBOX.*.*.pull" }') as server:
        cache = connect(server, timeout=60)
        same = connection_of(cache)
        with pytest.raises(PermissionDenied, match="No permission to subscribe to _INBOX"):
            cache.keys()
        assert cache.get("key") == "value"
        assert cache.session._connection is same


@pytest.mark.faults
def test_a_dropped_inbox_recovers_three_seconds_after_the_first_call() -> None:
    with serving() as server:
        cache = connect(server)
        deafen(connection_of(cache))
        started = time.monotonic()
        assert soon(lambda: answers(cache))
        assert time.monotonic() - started < 3 + TIMEOUT + 60
