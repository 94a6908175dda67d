"""The limits of the project, which its modules declare as they are imported."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings

from ..conf.limits import limit_settings
from ..limits.declared import limits
from ..limits.limit import Limit


def declared_limits() -> list[Limit]:
    """Return the limits of all modules that are imported, by name.

    The project's URLs are imported, and with them the views. If that fails, their limits are
    missing: see import_failure().
    """
    import_failure()
    return limits()


def limits_in_use() -> list[Limit]:
    """Return the limits of declared_limits(), but none if NATS_LIMITS has ENABLED False."""
    return declared_limits() if limit_settings().enabled else []


def import_failure() -> Exception | None:
    """Import the project's URLs, as the first request would. Return the error if that fails."""
    name = getattr(settings, "ROOT_URLCONF", None)
    if name:
        try:
            import_module(name)
        except Exception as error:
            return error
    return None
