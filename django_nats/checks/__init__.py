"""The system checks of caches, counters and limits.

The app registers them under the tag ``nats``. Those of CACHES and of sessions also have Django's
tag ``caches``, those of counter fields Django's tag ``models``.

======================  ========  ================================================================
id                      run by    what is wrong
======================  ========  ================================================================
``django_nats.E001``    check     An alias of CACHES or NATS_COUNTERS cannot be configured, or
                                  NATS_LIMITS is wrong. (If it is an alias of CACHES, Django's own
                                  checks raise the same error, with a traceback. ``check --tag
                                  nats`` and ``manage.py nats`` show this message instead.)
``django_nats.E002``    check     Aliases share a stream, but have different options for it.
``django_nats.E003``    check     A counter field's alias is not in NATS_COUNTERS.
``django_nats.E004``    check     A counter field's snapshot is not an integer column of its
                                  model.
``django_nats.E005``    check     Two counter fields have the same counters.
``django_nats.E006``    check     An admin filters, searches or orders by a counter.
``django_nats.E007``    check     A counter has the name of another parent's field, or of the
                                  reverse of a relation.
``django_nats.E008``    check     LOCATION is "embedded", and there is no nats-server to start.
``django_nats.E009``    check     A model with counters has JSON or an array as its primary key.
``django_nats.E010``    check     Counters of several JetStream domains have the same subjects.
``django_nats.E011``    check     A limit's alias is not in NATS_COUNTERS.
``django_nats.E012``    --deploy  A stream keeps hits of limits for less time than they count.
``django_nats.E013``    check     A session engine of this package has a cache of another backend.
``django_nats.W001``    check     LOCATION holds credentials, which Django's debug page shows.
``django_nats.W002``    check     Aliases share a bucket: clear() on one empties the others.
``django_nats.W003``    check     Sessions are kept only in a cache that may lose them.
``django_nats.W004``    --deploy  A bucket in memory has no limit.
``django_nats.W005``    --deploy  A stream differs from settings.
``django_nats.W006``    --deploy  A stream could not be compared with settings.
``django_nats.W007``    check     An option stands beside OPTIONS, where nothing reads it.
``django_nats.W008``    --deploy  A model with counters was renamed.
``django_nats.W009``    check     An admin without the mixin offers to sort by a counter.
``django_nats.W010``    --deploy  The change feed of NEAR_CACHE cannot be opened.
``django_nats.W011``    check     Sessions in the database fail with their cache.
``django_nats.W012``    --deploy  A counter stream is nearly full, and then loses counters.
``django_nats.W013``    check     The project's URLs cannot be imported, whose views may declare
                                  limits.
``django_nats.W014``    check     Limits of one name, which count together, have different rates.
======================  ========  ================================================================

Only W005, W006, W010, W012 and E012 ask the servers, and wait at most for CONNECT_TIMEOUT and
REQUEST_TIMEOUT. E008 looks for the nats-server. All others look only at settings, models, admins,
migrations, and limits. For limits, the project's URLs are imported, and with them its views.
W003 to W006, W010 to W012 and E012 ignore aliases with LOCATION "embedded", which is for
development.
"""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from typing import Any

from django.core.checks import CheckMessage, Tags, register

from .tag import TAG

__all__ = ["TAG"]


def _register(module: str, tag: str) -> None:
    """Register the checks of a module, which is imported when they run.

    Most processes run no checks, and start faster without what only checks need.
    """

    def check(**kwargs: Any) -> Iterable[CheckMessage]:
        for each in import_module(f".{module}", __name__).CHECKS:
            yield from each(**kwargs)

    def check_deploy(**kwargs: Any) -> Iterable[CheckMessage]:
        for each in import_module(f".{module}", __name__).DEPLOY:
            yield from each(**kwargs)

    register(check, TAG, tag)
    register(check_deploy, TAG, tag, deploy=True)


_register("caches", Tags.caches)
_register("sessions", Tags.caches)
_register("counters", TAG)
_register("fields", Tags.models)
_register("limits", TAG)
