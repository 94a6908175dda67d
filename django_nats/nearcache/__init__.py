"""Copies of values in the process, kept coherent by the server's own change feed."""

from __future__ import annotations

from .near import NearCache, near_cache
from .shape import Shape, shape_of, subjects_of

__all__ = ["NearCache", "Shape", "near_cache", "shape_of", "subjects_of"]
