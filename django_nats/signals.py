"""Signals, as Django's: https://docs.djangoproject.com/en/stable/topics/signals/"""

from __future__ import annotations

from django.dispatch import Signal

key_changed = Signal()
"""A key of a near cache was set or deleted, by whichever process.

Sent with ``alias``, ``key`` and ``version`` as they were given to the cache, ``revision`` and
``deleted``, on a thread of its own and in every process that has read from the near cache. A
``key`` of None says that changes may have been missed, and that any key may be another by now.
"""
