"""Limits on how often something may happen, counted by the server, and quotas."""

from __future__ import annotations

from .decision import Decision
from .decorators import ratelimit
from .exceptions import Ratelimited
from .limit import Limit
from .methods import ALL, UNSAFE
from .quota import Quota, Usage
from .rates import Rate
from .requests import arequest_key, request_key
from .usage import aget_usage, ais_ratelimited, get_usage, is_ratelimited

__all__ = [
    "ALL",
    "UNSAFE",
    "Decision",
    "Limit",
    "Quota",
    "Rate",
    "Ratelimited",
    "Usage",
    "aget_usage",
    "ais_ratelimited",
    "arequest_key",
    "get_usage",
    "is_ratelimited",
    "ratelimit",
    "request_key",
]
