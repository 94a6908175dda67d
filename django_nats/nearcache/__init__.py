"""Copies of values in the process, kept coherent by the server's own change feed."""

from __future__ import annotations

from .near import NearCache, near_cache
from .shape import head_of

__all__ = ["NearCache", "head_of", "near_cache"]
