"""``manage.py nats counters``: what there is to do with counters from a shell."""

from __future__ import annotations

from ..subcommand import Group
from .prune import Prune
from .seed import Seed
from .show import Show
from .snapshot import Snapshot
from .top import Top

COUNTERS = Group(
    "counters",
    "Look at counters, and keep the columns and rows beside them in step.",
    *(Snapshot, Seed, Top, Show, Prune),
)
