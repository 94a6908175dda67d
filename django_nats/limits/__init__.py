"""Rate limits and quotas, counted on the server."""

from .decision import Decision
from .limit import Limit
from .rates import Rate

__all__ = ["Decision", "Limit", "Rate"]
