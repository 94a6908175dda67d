"""The test runs of a new project: private embedded servers, by whichever runner."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from django.core.management import call_command

from django_nats.devserver import Endpoint
from tests.servers import ROOT, eventually, request

PATIENCE = 850
"""Seconds after which a run counts as hung."""

SETTINGS = """
PATIENT = {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 60}
BACKEND = {"BACKEND": "django_nats.cache.NatsCache", "OPTIONS": PATIENT}
CACHES = {"default": {**BACKEND, "LOCATION": "embedded"}}
NATS_COUNTERS = {"default": {"LOCATION": "embedded", "DEADLINE": 60, **PATIENT}}
INSTALLED_APPS += ["blog.apps.EagerConfig"]
"""

# The app uses the cache before Django sets up its test environment, and so does one of the tests.
APPS = """
import os
from django.apps import AppConfig

class EagerConfig(AppConfig):
    name = "blog"

    def ready(self):
        from django.core.cache import cache
        from django_nats.counters import counters
        if "EAGER" in os.environ:
            cache.set("ready", os.getpid())
            counters.incr("ready")
            counters.incr_later("ready")
"""

TESTS = """
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

from django.core.cache import cache
from django.test import SimpleTestCase
from django_nats.counters import counters
from tests.servers import eventually

class Visits:
    def test_one(self):
        self.note()
        # Until the other workers run such a test, too.
        met = lambda: len({path.name for path in Path.cwd().glob("met-*")}) >= WORKERS
        self.assertTrue(eventually(met, 120))

    def note(self):
        pid = os.getpid()
        assert cache.get("developer") is None, cache.get("developer")
        assert cache.get("ready") in (None, pid), cache.get("ready")
        visits = cache.get_or_set("visits", 0, None)
        cache.incr("visits")
        assert counters.incr("visits") == visits + 1
        counters.incr_later("later")
        counters.flush()
        assert counters.total("later") == visits + 1
        with Path(f"met-{pid}").open("a") as met:
            met.write(f"{visits} ")

    test_two = note

class FirstTests(Visits, SimpleTestCase):
    pass

class SecondTests(Visits, SimpleTestCase):
    pass
"""

CHILDREN = """
    def test_processes_that_a_test_starts_see_what_it_sees(self):
        os.environ.pop("EAGER", None)
        cache.set("parent", os.getpid())
        print_it = "from django.core.cache import cache; print(cache.get('parent'))"
        shell = [sys.executable, "manage.py", "shell", "-v0", "-c", print_it]
        seen = subprocess.run(shell, capture_output=True, text=True).stdout
        self.assertEqual(seen.strip(), str(os.getpid()))
        for method in ("fork", "spawn"):
            child = multiprocessing.get_context(method).Process(target=look, args=(os.getpid(),))
            child.start()
            child.join()
            self.assertEqual(child.exitcode, 0)

def look(parent):
    import django
    django.setup()
    sys.exit(cache.get("parent") != parent)
"""

DEVELOPER = """
import sys
sys.path.insert(0, ".")
import django
django.setup()
from django.core.cache import cache
from django_nats.counters import counters
cache.set("developer", "data", None)
cache.set("visits", 1000, None)
counters.incr("visits", 1000)
from django_nats.devserver import embedded
endpoint = embedded(".nats")
print(endpoint.url, endpoint.token, flush=True)
sys.stdin.read()
"""


class Project:
    """A project that ``django-admin startproject`` has made, and its developer's server."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        call_command("startproject", "mysite", str(directory))
        self.append("mysite/settings.py", SETTINGS)
        self.write("blog/__init__.py", "")
        self.write("blog/apps.py", APPS)
        self.write("blog/tests.py", f"WORKERS = 1\n{TESTS}")
        plugins = {each.value for each in entry_points(group="pytest11")}
        self.loading = [] if "django_nats.pytest_plugin" in plugins else ["-p", PLUGIN]

    def write(self, name: str, text: str) -> None:
        path = self.directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)

    def append(self, name: str, text: str) -> None:
        path = self.directory / name
        path.write_text(path.read_text() + text)

    @property
    def environment(self) -> dict[str, str]:
        path = os.pathsep.join((str(ROOT), str(self.directory)))
        return {**os.environ, "PYTHONPATH": path, "DJANGO_SETTINGS_MODULE": "mysite.settings"}

    def run(self, *command: str, **environment: str) -> str:
        """Run a program of the project, which must succeed. Return all it prints."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore:This process:DeprecationWarning", *command],
            cwd=self.directory,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def pytest(self, *arguments: str, **environment: str) -> str:
        command = ["-m", "pytest", "-v", *self.loading, *arguments, "blog/tests.py"]
        return self.run(*command, **environment)

    def visits(self) -> dict[str, str]:
        """Return what the visits of each test process were, and forget them."""
        found = {each.name: each.read_text().strip() for each in self.directory.glob("met-*")}
        for name in found:
            (self.directory / name).unlink()
        return found


PLUGIN = "django_nats.pytest_plugin"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """Yield a new project. Nothing may be left of the servers of its tests."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    (tmp_path / "project").mkdir()
    yield Project(tmp_path / "project")
    assert eventually(lambda: not list(temporary.glob("django-nats-*")))


@pytest.fixture
def unchanged(project: Project) -> Iterator[None]:
    """Let the developer's server run during the test, and check that nothing is changed there."""
    with subprocess.Popen(
        [sys.executable, "-c", DEVELOPER],
        cwd=project.directory,
        env=project.environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as developer:
        assert developer.stdin
        assert developer.stdout
        endpoint = Endpoint(*developer.stdout.readline().split())
        before = contents(endpoint)
        assert {name: state["messages"] for name, state in before.items()} == {
            "KV_django_cache": 2,
            "COUNTERS": 1,
        }
        yield
        assert contents(endpoint) == before
        developer.stdin.close()


def contents(server: Endpoint) -> dict[str, dict[str, object]]:
    """Return the state of each stream, which every write changes."""
    answer: dict[str, object] = request(server, "$JS.API.STREAM.LIST")
    found = answer["streams"]
    assert isinstance(found, list)
    states = {stream["config"]["name"]: stream["state"] for stream in found}
    return {name: {**state, "consumer_count": 0} for name, state in states.items()}


def ran(output: str, tests: int) -> bool:
    return re.search(rf"^Ran {tests} tests", output, re.MULTILINE) is not None


EAGER = pytest.mark.parametrize("eager", [{}, {"EAGER": "1"}], ids=["lazy app", "eager app"])


@pytest.mark.usefixtures("unchanged")
@EAGER
def test_djangos_runner_has_a_private_and_empty_server(
    project: Project, eager: dict[str, str]
) -> None:
    project.write("blog/tests.py", f"WORKERS = 1\n{TESTS}{CHILDREN}")

    assert ran(project.run("manage.py", "test", **eager), 5)

    assert list(project.visits().values()) == ["0 1 2 3"]


@pytest.mark.once
@pytest.mark.usefixtures("unchanged")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@EAGER
def test_each_parallel_worker_has_an_empty_server(
    project: Project, method: str, eager: dict[str, str]
) -> None:
    manage = (project.directory / "manage.py").read_text()
    choice = f"import multiprocessing\n    multiprocessing.set_start_method({method!r})\n    main()"
    project.write("manage.py", manage.replace("    main()\n", f"    {choice}\n", 1))
    assert choice in (project.directory / "manage.py").read_text()
    project.write("blog/tests.py", f"WORKERS = 2\n{TESTS}")

    assert ran(project.run("manage.py", "test", "--parallel", "2", **eager), 4)

    assert list(project.visits().values()) == ["0 1", "0 1"]


@pytest.mark.usefixtures("unchanged")
@EAGER
def test_pytest_has_a_private_and_empty_server(project: Project, eager: dict[str, str]) -> None:
    project.write("blog/tests.py", f"WORKERS = 1\n{TESTS}{CHILDREN}")

    assert "5 passed" in project.pytest(**eager)

    assert list(project.visits().values()) == ["0 1 2 3"]


@pytest.mark.once
@pytest.mark.usefixtures("unchanged")
@EAGER
def test_each_xdist_worker_has_an_empty_server(project: Project, eager: dict[str, str]) -> None:
    project.write("blog/tests.py", f"WORKERS = 2\n{TESTS}")

    assert "8 passed" in project.pytest("-n2", "--dist=each", **eager)

    assert list(project.visits().values()) == ["0 1 2 3", "0 1 2 3"]


@pytest.mark.once
@pytest.mark.usefixtures("unchanged")
def test_pytest_without_the_plugin_has_a_private_server(project: Project) -> None:
    project.loading = ["-p", "no:django_nats", "-p", f"no:{PLUGIN}"]

    assert "4 passed" in project.pytest()

    assert list(project.visits().values()) == ["0 1 2 3"]


@pytest.mark.once
def test_a_script_that_runs_tests_leaves_the_server_that_it_used_before(project: Project) -> None:
    project.write(
        "runtests.py",
        """
        import sys
        import django
        django.setup()
        from django.conf import settings
        from django.core.cache import cache, caches
        from django.test.utils import get_runner
        from django_nats.counters import counters
        kept = caches["default"]
        kept.set("developer", "data", None)
        counters.incr_later("visits", 10)
        counters.flush()
        assert counters.incr("visits", 0) == 10

        class Runner(get_runner(settings)):
            def run_suite(self, suite, **kwargs):
                assert kept.get("developer") is None
                assert kept.add("during", 1)
                assert counters.incr("visits", 0) == 0
                counters.incr_later("during")
                counters.flush()
                return super().run_suite(suite, **kwargs)

        if failures := Runner().run_tests(["blog"]):
            sys.exit(1)
        # Django's test environment has been torn down.
        assert kept.get("developer") == "data"
        assert kept.get("during") is None
        assert counters.get_many(["visits", "during"]) == {"visits": 10, "during": 0}
        """.replace("\n        ", "\n"),
    )

    project.run("runtests.py")

    assert list(project.visits().values()) == ["0 1 2 3"]


NAMED = """
CACHES = {"default": {**BACKEND, "LOCATION": "nats://127.0.0.1:1"}}
NATS_COUNTERS = {"default": {"LOCATION": "nats://127.0.0.1:1"}}
"""
NAMED_TESTS = """
from django.core.cache import cache
from django.test import SimpleTestCase
from django_nats.counters import counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import Unavailable

class Tests(SimpleTestCase):
    def test_one(self):
        for number in range(3):
            with self.assertRaises(Unavailable):
                cache.get("key")
            with self.assertRaises(Unavailable):
                counters.incr_later("home")
                counters.total("home")

    test_two = test_one

    def test_servers_of_the_tests_are_not_named(self):
        with NatsServer() as server:
            options = {"OPTIONS": {"TOKEN": server.token}}
            backend = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url, **options}
            counting = {"LOCATION": server.url, "TOKEN": server.token}
            with self.settings(
                CACHES={"default": backend, "other": backend}, NATS_COUNTERS={"other": counting}
            ):
                from django.core.cache import caches
                caches["other"].set("key", 1)
                counters["other"].incr("key")
"""


@pytest.mark.once
@pytest.mark.parametrize("runner", ["django", "pytest"])
def test_a_named_server_is_used_with_one_warning_for_each_alias(
    project: Project, runner: str
) -> None:
    project.append("mysite/settings.py", NAMED)
    project.write("blog/tests.py", NAMED_TESTS)

    output = project.run("manage.py", "test") if runner == "django" else project.pytest()

    for alias in ('CACHES["default"]', 'NATS_COUNTERS["default"]'):
        warnings = re.findall(rf".*NamedServerWarning: {re.escape(alias)}: (.*)", output)
        assert len(warnings) == 1, output
        assert "nats://127.0.0.1:1" in warnings[0]
        assert 'LOCATION to "embedded"' in warnings[0]
        assert "nats_cache" in warnings[0]
    assert '["other"]' not in output


def test_a_named_server_outside_of_tests_is_no_reason_for_a_warning(project: Project) -> None:
    project.append("mysite/settings.py", NAMED)
    use = "from django.core.cache import cache; from django_nats.exceptions import NotSent\n"
    use += "try: cache.get('key')\nexcept NotSent: print('not sent')"

    output = project.run("-W", "error", "manage.py", "shell", "-v0", "-c", use)

    assert "not sent" in output.splitlines()
    assert "Warning" not in output
