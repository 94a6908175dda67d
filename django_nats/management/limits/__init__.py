"""``manage.py nats limits``: subcommands for limits."""

from __future__ import annotations

from ..subcommand import Group
from .reset import Reset
from .show import Show
from .top import Top

LIMITS = Group("limits", "Look at limits, and let keys begin again.", Top, Show, Reset)
