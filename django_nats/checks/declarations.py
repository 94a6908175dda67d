"""The limits and quotas of the project, which its modules declare as they are imported."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from ..conf.limits import limit_settings
from ..limits.declared import limits, quotas
from ..limits.limit import Limit
from ..limits.quota import Quota


def declared_limits() -> list[Limit]:
    """Return the limits of all modules that are imported, by name.

    The project's URLs are imported, and with them the views. If that fails, their limits are
    missing: see import_failure().
    """
    import_failure()
    return limits()


def declared_quotas() -> list[Quota]:
    """Return the quotas of all modules that are imported, as declared_limits() does."""
    import_failure()
    return quotas()


def in_use() -> list[Limit | Quota]:
    """Return the limits, unless NATS_LIMITS has ENABLED False, and the quotas."""
    return [*(declared_limits() if limit_settings().enabled else ()), *declared_quotas()]


def import_failure() -> Exception | None:
    """Import the project's URLs, as the first request would. Return the error if that fails."""
    name = getattr(settings, "ROOT_URLCONF", None)
    if name:
        try:
            import_module(name)
        except Exception as error:
            return error
    return None
