"""A Django cache backend and counters on models, on NATS JetStream."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .raw import connection, run

__all__ = ["__version__", "connection", "run"]

__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Imported at first use, so that importing the package loads neither Django nor nats-py.
    if name in ("connection", "run"):
        from . import raw

        return getattr(raw, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
