"""The way out: nats-py clients with the servers and the credentials of an alias."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, TypeVar

from asgiref.sync import AsyncToSync, SyncToAsync
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from .cache import nats_aliases, nats_cache
from .client import process
from .client.transport.config import ConnectionConfig
from .conf.counters import counter_aliases

if TYPE_CHECKING:
    from typing_extensions import TypeVarTuple, Unpack

    from .client.plain.client import Client
    from .client.plain.shared import SharedClient

    Ts = TypeVarTuple("Ts")

T = TypeVar("T")

DEFAULT_ALIAS = "default"


def connection(alias: str = DEFAULT_ALIAS) -> AbstractAsyncContextManager[Client]:
    """Connect a nats-py client, on the running event loop, for an ``async with`` block.

    The client has the servers and the credentials of an alias of CACHES or NATS_COUNTERS, and is
    this block's own: entering costs a login. Its methods raise nats-py's errors. When the
    connection is lost, nats-py opens another, without end.

    At the end of a block that raises nothing, the server has received what was published, except
    for what was on its way when a connection was lost during the block. Publish what must arrive
    to a stream, which acknowledges each message (``js.publish``).

    Subscriptions end there: await ``drain()`` last to have their callbacks handle what has arrived.

    Raises NotSent (or AuthenticationFailed, which is one) if no server can be connected to within
    CONNECT_TIMEOUT, OutcomeUnknown at the end if the server does not confirm within it, and
    ImproperlyConfigured if neither setting has the alias. CACHES wins if both have it.
    """
    from .client.plain.client import connected  # imports nats-py

    return connected(_config(alias))


def run(
    alias: str,
    function: Callable[[Client, Unpack[Ts]], Coroutine[Any, Any, T]],
    *args: Unpack[Ts],
    timeout: float | None = None,
) -> T:
    """Run a coroutine function with a nats-py client, from sync code, and return its result.

    Its arguments are the client and then ``args``. It runs on an event loop in a background
    thread. All calls of a process share the client of an alias, which the first one connects; do
    not close it, and end your subscriptions. A call after the connection was lost connects again.

    Once the function has ended, wait until the server has received what it has published.

    Raises what the function raises. Raises TimeoutError after ``timeout`` seconds in all, and
    cancels the function. Raises NotSent (or AuthenticationFailed) if no server can be connected to
    within CONNECT_TIMEOUT, and OutcomeUnknown if the server does not confirm within it, or if the
    connection is closed meanwhile. Raises BridgeMisuse in functions that run() itself runs, which
    would wait for itself, and ImproperlyConfigured as connection() does.
    """
    client = process.shared_client(_config(alias))
    return copy_context().run(_run_apart, client, function, args, timeout)


def _run_apart(
    client: SharedClient,
    function: Callable[..., Coroutine[Any, Any, T]],
    args: tuple[Any, ...],
    timeout: float | None,
) -> T:
    # With the caller's context, sync_to_async() in the function, and so the async ORM, could wait
    # for the caller's thread, which waits for the function.
    SyncToAsync.thread_sensitive_context.set(None)  # type: ignore[arg-type]
    AsyncToSync.executors.current = None
    return client.run(function, args, timeout)


def _config(alias: str) -> ConnectionConfig:
    """Return how to reach the servers of an alias.

    An alias of CACHES with another backend does not count: Django adds one called "default".
    """
    on_nats, counting = nats_aliases(), counter_aliases()
    if alias in on_nats:
        return nats_cache(alias).session.config
    if alias in counting:
        from .counters import counters  # not imported in projects without counters

        return counters[alias].session.config
    there = [f'CACHES["{each}"]' for each in on_nats]
    there += [f'NATS_COUNTERS["{each}"]' for each in counting]
    known = f"Known: {', '.join(there)}." if there else "Add an entry to one of them."
    if alias in settings.CACHES:
        backend = settings.CACHES[alias].get("BACKEND")
        raise ImproperlyConfigured(
            f'CACHES["{alias}"] has the BACKEND {backend!r}, which is no NatsCache, and '
            f'NATS_COUNTERS has no alias "{alias}". {known}'
        )
    raise ImproperlyConfigured(f'Neither CACHES nor NATS_COUNTERS has an alias "{alias}". {known}')
