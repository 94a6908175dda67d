"""The operations of counters: results, round trips, and async methods without threads."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import asgiref.sync
import pytest

from django_nats.counters import (
    Counters,
    aprefetch_counters,
    prefetch_counters,
    write_behind,
)
from django_nats.devserver import NatsServer
from tests.blog.models import Article
from tests.counters.conftest import OPERATIONS, WITH_A_TWIN, Configure, host_of
from tests.support.operations import COUNTED, PREFETCHING, Call, run
from tests.support.proxy import Proxy


@pytest.fixture
def proxy(server: NatsServer, counters: Counters, configure: Configure) -> Iterator[Proxy]:
    """Yield a proxy between the default alias and its server; ``k`` has counted to COUNTED."""
    counters.incr("k", COUNTED)
    with Proxy(server.port) as between:
        configure(LOCATION=between.url, FLUSH_INTERVAL=3000)
        Counters().get_many(["warm-up"])
        yield between
        write_behind.discard()


@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(("kind", "call"), OPERATIONS)
def test_operations_return_their_results_in_their_round_trips(
    proxy: Proxy, kind: Any, call: Call, twin: bool
) -> None:
    if twin and not call.twin:
        assert not hasattr(kind, f"a{call.method}")
        return
    host = host_of(kind)
    before = proxy.round_trips
    assert (call.in_a_loop(host) if twin else call.sync(host)) == call.result
    assert call.takes(proxy.round_trips - before)


def refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a thread is used")


@pytest.mark.parametrize(("kind", "call"), WITH_A_TWIN)
async def test_async_operations_except_flush_use_no_thread(
    counters: Counters, monkeypatch: pytest.MonkeyPatch, kind: Any, call: Call
) -> None:
    await counters.aincr("k", COUNTED)
    monkeypatch.setattr(asgiref.sync.SyncToAsync, "__call__", refuse)
    monkeypatch.setattr(asyncio, "to_thread", refuse)
    monkeypatch.setattr(asyncio.get_running_loop(), "run_in_executor", refuse)
    if call.native:
        assert await call.awaited(host_of(kind)) == call.result
    else:
        with pytest.raises(AssertionError, match="a thread"):
            await call.awaited(host_of(kind))


# With model instances ----------------------------------------------------------------------------


def prefetched(call: Call, article: Article, twin: bool) -> str:
    """Make the call, and return what a template shows afterwards."""
    if call.method == "with_counters":
        (article,) = Article.objects.with_counters(*call.args)
    elif twin:
        run(aprefetch_counters([article], *call.args))
    else:
        prefetch_counters([article], *call.args)
    return str(article.views)


@pytest.mark.django_db
@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("row", PREFETCHING)
def test_prefetching_returns_its_results_in_its_round_trips(
    proxy: Proxy, row: str, twin: bool
) -> None:
    call = PREFETCHING[row]
    article = Article.objects.create()
    article.views.set(COUNTED)
    before = proxy.round_trips
    assert prefetched(call, article, twin and call.twin) == call.result
    assert call.takes(proxy.round_trips - before)


@pytest.mark.django_db
@pytest.mark.parametrize("twin", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("row", PREFETCHING)
def test_prefetching_shows_nothing_under_fail_open(
    configure: Configure, own_server: NatsServer, row: str, twin: bool
) -> None:
    configure(on=own_server, FAIL_OPEN=True)
    article = Article.objects.create()
    own_server.kill()
    call = PREFETCHING[row]
    assert prefetched(call, article, twin and call.twin) == call.away
