"""The system checks of limits, quotas and NATS_LIMITS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from ..client.streams.config import NANOSECONDS
from ..conf.counters import counter_aliases, counter_settings
from ..conf.limits import limit_settings
from ..limits.limit import Limit
from ..limits.quota import Quota
from ..printable import duration
from . import entries, streams
from .counters import check_room
from .declarations import import_failure, in_use


def check_configuration(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E001 if NATS_LIMITS is wrong, or its EXEMPT cannot be imported."""
    yield from entries.configuration_errors(["NATS_LIMITS"], lambda _: limit_settings().is_exempt)


def check_urls(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W013 if the project's URLs cannot be imported. Their views may declare limits."""
    if counter_aliases() and (error := import_failure()) is not None:
        yield Warning(
            "Limits and quotas that views declare are not known, since the project's URLs cannot "
            f"be imported: {type(error).__name__}: {error}",
            hint="Correct that error, or ROOT_URLCONF.",
            id="django_nats.W013",
        )


def check_aliases(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield E011 for each alias of limits or quotas that does not exist."""
    aliases = counter_aliases()
    found: dict[tuple[str, str], list[Limit | Quota]] = {}
    for limit in _in_use():
        if limit.alias in aliases:
            continue
        if not aliases:
            problem = "It counts on a server, and there is no setting NATS_COUNTERS."
            hint = 'Add NATS_COUNTERS = {"default": {"LOCATION": "nats://…"}}.'
            if isinstance(limit, Limit):
                hint += ' Or turn limits off: NATS_LIMITS = {"ENABLED": False}.'
        else:
            problem = f'NATS_COUNTERS has no alias "{limit.alias}".'
            option = f"{type(limit).__name__}(alias=…)"
            if limit.alias == limit_settings().alias:
                option = "ALIAS of NATS_LIMITS"
            hint = f"Add it to NATS_COUNTERS, or name another alias with {option}."
        found.setdefault((problem, hint), []).append(limit)
    for (problem, hint), (first, *others) in found.items():
        if others:
            problem += f" The same holds for {', '.join(map(repr, others))}."
        yield Error(problem, hint=hint, obj=first, id="django_nats.E011")


def check_names(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W014 if limits have one name, and so count together, but have different rates."""
    by_name: dict[tuple[str, str], Limit] = {}
    for limit in _in_use():
        if isinstance(limit, Limit):
            first = by_name.setdefault((limit.alias, limit.name), limit)
            if (first.rates, first.algorithm) != (limit.rates, limit.algorithm):
                yield Warning(
                    f"Two limits are called {limit.name!r}. Their hits count together, but they "
                    f"have different rates: {_rates(first)} and {_rates(limit)}.",
                    hint="Give each a name of its own.",
                    obj=limit,
                    id="django_nats.W014",
                )


def _rates(limit: Limit) -> str:
    rates = ", ".join("a function" if callable(each) else str(each) for each in limit.rates)
    return f"{rates} ({limit.algorithm})"


def check_servers(**kwargs: Any) -> Iterable[CheckMessage]:
    """Yield W005, W006, W012 or E012 for streams that limits and quotas cannot rely on."""
    found = streams.of_limits(limit for limit in _in_use() if _is_on_a_server(limit))
    for shared in streams.by_stream(found):
        yield from streams.check_differences(shared, check_age, check_room)


def check_age(
    shared: Sequence[streams.StreamOf], document: Mapping[str, Any]
) -> Iterator[CheckMessage]:
    """Yield E012 if a stream does not keep what it counts for as long as it counts."""
    kept, needed = document["config"].get("max_age", 0), shared[0].stream.config.max_age
    if not 0 < kept < needed * NANOSECONDS:
        return
    limits = dict.fromkeys(repr(limit) for each in shared for limit in each.limits)
    yield Error(
        f"The {shared[0].title} of {streams.entries(shared)} keeps what it counts for "
        f"{duration(kept / NANOSECONDS)}, and not for {duration(needed)}, twice its longest "
        f"window. It cannot be used by {', '.join(limits)}.",
        hint="Run `manage.py nats setup`: it changes MAX_AGE without losing data.",
        id="django_nats.E012",
    )


def _in_use() -> list[Limit | Quota]:
    try:
        return in_use()
    except ImproperlyConfigured:
        return []  # E001


def _is_on_a_server(limit: Limit | Quota) -> bool:
    """Return True if the alias is valid, and not on the development server."""
    try:
        return counter_settings(limit.alias).connection.embedded is None
    except ImproperlyConfigured:
        return False  # E001 or E011


CHECKS = (check_configuration, check_urls, check_aliases, check_names)
DEPLOY = (check_servers,)
"""The checks that only ``check --deploy`` runs."""
