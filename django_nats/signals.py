"""The signal ``key_changed``, which reports changes of keys that a near cache covers.

See https://docs.djangoproject.com/en/stable/topics/signals/.
"""

from __future__ import annotations

from django.dispatch import Signal

key_changed = Signal()
"""Sent when any process has set or deleted a key that a near cache covers.

The arguments are ``alias``, ``key`` and ``version`` as they were given to the cache, ``revision``
and ``deleted``. The signal is sent on a thread of its own, in every process that has read from the
near cache. If ``key`` is None, changes may have been missed, and any key may have another value.
"""
