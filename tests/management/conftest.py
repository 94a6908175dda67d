"""What the tests of commands share: counters of the test's own, and the command itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping

import pytest
from django.core.management import CommandError, call_command

from django_nats.client import bridge
from django_nats.client.steps import Steps
from django_nats.counters import Counters
from tests.counters.conftest import configure, counters

__all__ = ["configure", "counters"]

Nats = Callable[..., str]


@pytest.fixture
def nats() -> Nats:
    """What ``manage.py nats …`` writes."""

    def run(*arguments: str, **options: object) -> str:
        out = io.StringIO()
        call_command("nats", *arguments, stdout=out, **options)
        return out.getvalue()

    return run


@pytest.fixture
def failing_nats() -> Callable[..., tuple[str, str]]:
    """What ``manage.py nats …`` writes, and the words of the error it ends with."""

    def run(*arguments: str) -> tuple[str, str]:
        out = io.StringIO()
        with pytest.raises(CommandError) as caught:
            call_command("nats", *arguments, stdout=out)
        return out.getvalue(), str(caught.value)

    return run


def count(counters: Counters, totals: Mapping[str, int]) -> None:
    """Add to many counters, by subject, in one write for a thousand."""

    def steps() -> Steps[None]:
        stream = counters.stream
        increments = [stream.increment(subject, total) for subject, total in totals.items()]
        for start in range(0, len(increments), 1000):
            yield from stream.publish(increments[start : start + 1000])
        assert [each.failure for each in increments if each.failure] == []

    bridge.run(counters.session, steps())
