"""The helpers for a project's own tests: every test begins with all counters at 0."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

# No server listens there, so calls work only if the fixture has replaced the location.
SETTINGS = """
SECRET_KEY = "only-for-tests"
INSTALLED_APPS = ["django.contrib.contenttypes", "django_nats", "tests.blog"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
from pathlib import Path
BASE_DIR = Path(__file__).parent
PATIENT = {"CONNECT_TIMEOUT": 30, "REQUEST_TIMEOUT": 10}
DEAD = {"LOCATION": "nats://127.0.0.1:1", "PREFIX": "ours", **PATIENT}
LATER = {"DEADLINE": 10, "FLUSH_INTERVAL": 60}
LEAF, THERE = {"JS_DOMAIN": "leaf"}, {"JS_API_PREFIX": "there.API"}
NATS_COUNTERS = {
    "default": {**DEAD, "STREAM": "VIEWS", "REPLICAS": 3, "TOKEN": "another", **LATER},
    "twin": {**DEAD, "STREAM": "VIEWS", "USER": "u", "PASSWORD": "p", **LATER, **THERE},
    "eu": {**DEAD, "PREFIX": "eu", "TLS": {"CA": "/nowhere"}, **LEAF, "MAX_AGE": 900, "HISTORY": 4},
    "world": {**DEAD, "STREAM": "WORLD", "SOURCES": [
        "VIEWS", {"STREAM": "COUNTERS", "PREFIX": "eu", "DOMAIN": "leaf"},
    ]},
}
"""

TESTS = """
    import pytest
    from django.conf import settings
    from django.test import TestCase

    from django_nats.counters import Counter, Counters, counters, write_behind
    from django_nats.limits import Limit
    from django_nats.limits.quota import Quota
    from tests.blog.models import Article

    pytestmark = pytest.mark.django_db
    backlogs = []
    daily, later = Limit("api", "1/d"), Limit("login", "1/d", timeout=30.0)
    exports = Quota("exports", limit=1, per="year")

    @pytest.mark.parametrize("number", range(3))
    def test_a_counter_begins_at_zero(nats_counters, number):
        article = Article.objects.create(pk=1)
        assert nats_counters.total(">") == 0
        assert article.views.incr() == 1
        counters.incr_later("pending")
        backlogs.append(write_behind.backlog("default"))

    def test_pending_increments_of_earlier_tests_are_dropped(nats_counters):
        assert [each.pending.counters for each in backlogs] == [0, 0, 0]

    def test_aliases_share_streams_as_in_settings(nats_counters):
        counters.incr("home")
        assert Counter("home", alias="twin").value() == 1
        assert Counter("home", alias="eu").value() == 0

    def test_other_options_are_kept(nats_counters):
        stream = Counters("eu").settings.stream
        assert (stream.max_age, stream.history, stream.storage) == (900, 4, "memory")

    def test_sums_have_the_streams_of_the_test_as_sources(nats_counters):
        ours, eu = counters.settings.stream, Counters("eu").settings.stream
        sources = Counters("world").settings.stream.sources
        assert [each.stream for each in sources] == [ours.stream, eu.stream]
        assert [each.prefix for each in sources] == [ours.prefix, eu.prefix]

    @pytest.mark.parametrize("number", range(3))
    def test_limits_and_quotas_begin_at_zero(nats_counters, number):
        for use in (daily.hit, later.hit, exports.use):
            assert [bool(use("ann")) for _ in range(3)] == [True, False, False]

    def test_limits_that_are_off_ask_no_server(settings):
        settings.NATS_LIMITS = {"ENABLED": False}
        assert [bool(daily.hit("ann")) for _ in range(3)] == [True, True, True]

    @pytest.mark.usefixtures("nats_counters")
    class ArticleTests(TestCase):
        def setUp(self):
            self.article = Article.objects.create(pk=1)

        def test_a_row_begins_at_zero(self):
            assert self.article.views.incr() == 1

        test_the_next_row_begins_at_zero = test_a_row_begins_at_zero

    async def test_async_tests_begin_at_zero(nats_counters):
        assert await counters.aincr("home") == 1

    def test_settings_are_restored_and_streams_deleted_afterwards(nats_server):
        from tests.servers import request
        assert settings.NATS_COUNTERS["default"]["LOCATION"] == "nats://127.0.0.1:1"
        assert not request(nats_server, "$JS.API.STREAM.NAMES")["streams"]

    def test_the_teardown_survives_a_killed_server(nats_counters, nats_server):
        counters.incr("home")
        nats_server.kill()
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
    plugins = {each.value for each in entry_points(group="pytest11")}
    loading = [] if "django_nats.pytest_plugin" in plugins else ["-p", "django_nats.pytest_plugin"]

    def run(*arguments: str) -> pytest.RunResult:
        pytester.makepyfile(project_settings=SETTINGS, test_project=TESTS)
        pytester.makeini(
            "[pytest]\npythonpath = .\nasyncio_mode = auto\nfilterwarnings = error\n"
            "asyncio_default_fixture_loop_scope = function\n"
        )
        return pytester.runpytest_subprocess(*loading, *arguments, timeout=850)

    return run


def test_the_fixture_works_with_pytest(run: Run) -> None:
    run().assert_outcomes(passed=16)


def test_the_fixture_works_with_xdist(run: Run) -> None:
    run("-n2", "-k", "begins_at_zero or Article").assert_outcomes(passed=5)


RUNNER = """
from django.db import connection
from django.test import SimpleTestCase, TestCase, TransactionTestCase

from django_nats.counters import counters
from django_nats.counters.testing import ZeroedCounters
from django_nats.limits import Limit
from tests.blog.models import Article

daily = Limit("api", "1/d")


class Zero:
    def test_a_row_begins_at_zero(self):
        article = Article.objects.create(pk=1)
        for number in range(20):
            self.assertEqual(article.views.incr(), number + 1)

    test_again = test_once_more = test_a_row_begins_at_zero

    async def test_async_tests_begin_at_zero(self):
        self.assertEqual(await counters.aincr("home"), 1)


class OneTests(Zero, ZeroedCounters, TestCase):
    def setUp(self):  # without calling super()
        counters.incr("home", 0)


class TwoTests(Zero, ZeroedCounters, TransactionTestCase):
    pass


class LimitTests(ZeroedCounters, SimpleTestCase):
    def test_a_limit_begins_at_zero(self):
        self.assertEqual([bool(daily.hit("ann")) for _ in range(2)], [True, False])

    test_again = test_a_limit_begins_at_zero


class ThreeTests(ZeroedCounters, SimpleTestCase):
    def test_the_mixin_needs_no_database(self):
        self.assertEqual(counters.incr("home"), 1)
"""


@pytest.mark.parametrize("parallel", [1, 2])
def test_the_mixin_works_with_djangos_runner(tmp_path: Path, parallel: int) -> None:
    (tmp_path / "project_settings.py").write_text(SETTINGS)
    (tmp_path / "test_project.py").write_text(RUNNER)
    command = ["-m", "django", "test", "--parallel", str(parallel), "-v2"]
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}",
        "DJANGO_SETTINGS_MODULE": "project_settings",
    }
    done = subprocess.run(
        [sys.executable, "-W", "ignore:This process", *command],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=850,
    )
    assert re.search(r"^Ran 11 tests", done.stderr, re.MULTILINE), done.stderr
    assert re.search(r"^OK$", done.stderr, re.MULTILINE), done.stderr
    assert ("Cloning test database" in done.stderr) is (parallel > 1)
