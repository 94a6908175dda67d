"""``manage.py nats counters``: subcommands for counters."""

from __future__ import annotations

from ..subcommand import Group
from .prune import Prune
from .seed import Seed
from .show import Show
from .snapshot import Snapshot
from .top import Top

COUNTERS = Group(
    "counters",
    "Look at counters, and keep them in step with columns and rows of the database.",
    *(Snapshot, Seed, Top, Show, Prune),
)
