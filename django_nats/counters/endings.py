"""The ends of processes: which hook runs where ``atexit`` does not.

``atexit`` covers processes whose interpreter exits. The pools listed here end their workers with
``os._exit()``, which skips it, but call a hook of their own before that. The modules of the pools
are looked up in ``sys.modules`` and never imported: a process that has not imported one is not one
of its workers.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Callable
from typing import Any

from ..client.transport import forks

_functions: list[Callable[[], None]] = []
_watched: set[str] = set()


def call_at_end(function: Callable[[], None]) -> None:
    """Call a function at the end of this process, and of each process that it forks.

    It may be called more than once. This registers it with ``atexit``. The pools' hooks come with
    watch().
    """
    _functions.append(function)
    atexit.register(function)


def watch() -> None:
    """Connect to the hooks of the pools that this process has imported so far.

    Called often, since a pool's module may be imported at any time, and multiprocessing removes
    the hooks that its forked children inherit. Costs two look-ups if there is nothing to connect.
    """
    for (module, attribute), connect in _HOOKS.items():
        # While another thread imports the module, it is in sys.modules without the attribute.
        hook = getattr(sys.modules.get(module), attribute, None)
        if hook is not None and module not in _watched:
            connect(hook)
            _watched.add(module)


def _end(**kwargs: object) -> None:
    for function in _functions:
        function()


_HOOKS: dict[tuple[str, str], Callable[[Any], object]] = {
    # multiprocessing's Process runs its finalizers at its end, in pools of the standard library
    # too. billiard has the same registry, but its Pool's workers call os._exit() before it is run.
    ("multiprocessing.util", "Finalize"): lambda finalize: finalize(None, _end, exitpriority=0),
    # Celery sends this in the worker, right before billiard's Pool calls os._exit().
    ("celery.signals", "worker_process_shutdown"): lambda signal: signal.connect(
        _end, weak=False, dispatch_uid=__name__
    ),
}

forks.call_in_child(_watched.clear)
