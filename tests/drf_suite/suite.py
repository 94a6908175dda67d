"""DRF's own tests of throttles, with those of django_nats in place of DRF's.

The module can be imported only if DRF's tests directory is on sys.path and the settings are
configured. ``python -m tests.drf_suite`` does both.
"""

from __future__ import annotations

from unittest import TestCase, TestLoader, TestResult, TestSuite, expectedFailure, mock

from django.conf import settings
from rest_framework import throttling

from django_nats.contrib import rest_framework as ours
from django_nats.counters.testing import zeroed_counters

from .differences import MEANINGLESS, NO_LIST, SLIDING

with mock.patch.multiple(throttling, **{name: getattr(ours, name) for name in ours.__all__}):
    import test_throttling

WITHOUT_STAGGER = mock.patch("django_nats.limits.tally.crc32", return_value=0)
"""Lets windows begin at time 0, and not at a time that depends on the client's key."""


class OnNats(TestCase):
    """A mixin: each test begins with all counts at 0, at a time that only the test changes."""

    def run(self, result: TestResult | None = None) -> TestResult | None:
        """Run one test."""
        clock = mock.patch.object(ours.SimpleRateThrottle, "timer", return_value=0)
        with WITHOUT_STAGGER, clock, zeroed_counters(settings.NATS_COUNTERS["default"]):
            return super().run(result)


def load_tests(loader: TestLoader, tests: TestSuite, pattern: str | None) -> TestSuite:
    """Return DRF's tests, of which those with another outcome here must fail."""
    slides = ours.SimpleRateThrottle.algorithm == "sliding"
    failing = {*NO_LIST, *SLIDING} if slides else {*NO_LIST}
    cases = {
        name: type(name, (OnNats, case), {})
        for name, case in vars(test_throttling).items()
        if isinstance(case, type) and case.__module__ == test_throttling.__name__
        if issubclass(case, TestCase)
    }
    for listed in {*SLIDING, *NO_LIST, *MEANINGLESS}:
        name, _, test = listed.partition(".")
        known = getattr(cases[name], test)  # fails for a test that DRF has no more
        if listed in failing:
            setattr(cases[name], test, expectedFailure(known))
    return TestSuite(map(loader.loadTestsFromTestCase, cases.values()))
