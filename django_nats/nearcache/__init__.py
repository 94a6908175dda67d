"""The near cache: copies of values in this process, kept current by the server's change feed.

- ``near.py``: the near cache of a bucket, as users see it
- ``follow.py``: what each message of the change feed does to the copies
- ``announce.py``: the thread that sends the signal ``key_changed``
- ``patterns.py``: which keys are copied, and on which subjects their changes arrive
"""

from __future__ import annotations

from .near import NearCache, near_cache
from .patterns import head_of

__all__ = ["NearCache", "head_of", "near_cache"]
