"""System checks, registered by the app under the tag ``nats``, those of CACHES under Django's tag
``caches`` as well.

======================  ========  ================================================================
id                      run by    what is wrong
======================  ========  ================================================================
``django_nats.E001``    check     An alias of CACHES or NATS_COUNTERS cannot be configured.
                                  (For CACHES, Django's own checks meet the same error, and
                                  answer with a traceback; ``check --tag nats`` and
                                  ``manage.py nats`` show this one.)
``django_nats.E002``    check     Aliases share a stream, but disagree on its options.
``django_nats.E003``    check     A counter field's alias is not in NATS_COUNTERS.
``django_nats.E004``    check     A counter field's snapshot is no integer column of its model.
``django_nats.E005``    check     Two counter fields have the same counters.
``django_nats.E006``    check     An admin filters, searches or orders by a counter.
``django_nats.W001``    check     LOCATION holds credentials, which Django's debug page shows.
``django_nats.W002``    check     Aliases share a bucket: clear() on one empties the others.
``django_nats.W003``    check     Sessions live in nothing but a cache that may lose them.
``django_nats.W004``    --deploy  A bucket in memory has no limit.
``django_nats.W005``    --deploy  A stream differs from settings.
``django_nats.W006``    --deploy  A server does not tell about its stream.
``django_nats.W007``    check     An option is beside OPTIONS, where nothing reads it.
``django_nats.W008``    --deploy  A model was renamed, and its counters are under its new name.
``django_nats.W009``    check     An admin without the mixin offers to sort by a counter.
``django_nats.W010``    --deploy  NEAR_CACHE cannot have its change feed.
======================  ========  ================================================================

Only W005, W006 and W010 ask the servers, and wait no longer than CONNECT_TIMEOUT and
REQUEST_TIMEOUT allow; all the others look at settings, models, admins and migrations alone.
LOCATION "embedded" is for development: W003 to W006 and W010 leave it alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from django.core.checks import CheckMessage, Tags, register

from .tag import TAG

__all__ = ["TAG"]


def _register(module: str, tag: str) -> None:
    """Register the checks of a module, to be imported when they run: most processes check nothing,
    and would start the later for what only checks need."""

    def check(**kwargs: Any) -> Iterable[CheckMessage]:
        for each in import_module(f".{module}", __name__).CHECKS:
            yield from each(**kwargs)

    def deployed(**kwargs: Any) -> Iterable[CheckMessage]:
        for each in import_module(f".{module}", __name__).DEPLOY:
            yield from each(**kwargs)

    register(check, TAG, tag)
    register(deployed, TAG, tag, deploy=True)


_register("caches", Tags.caches)
_register("counters", TAG)
_register("fields", Tags.models)
