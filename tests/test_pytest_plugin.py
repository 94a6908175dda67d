from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

import django_nats

pytest_plugins = ["pytester"]

# No server listens there, so calls work only if the fixture has replaced the location.
SETTINGS = """
SECRET_KEY = "only-for-tests"
NATS = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": "nats://127.0.0.1:1"}
CLUSTER = {"REPLICAS": 3, "PLACEMENT": {"CLUSTER": "east"}}
CACHES = {
    "default": {**NATS, "OPTIONS": {"BUCKET": "web", "TOKEN": "another", **CLUSTER}},
    "twin": {**NATS, "OPTIONS": {"BUCKET": "web", "USER": "u", "PASSWORD": "p"}},
    "huge": {**NATS, "OPTIONS": {"BUCKET": "huge", "MAX_BYTES": "900GiB", "EVICT": False}},
    "embedded": {**NATS, "LOCATION": "embedded", "OPTIONS": {"EMBEDDED_DIR": ".nats"}},
    "allowed": {**NATS, "LOCATION": "embedded", "OPTIONS": {"ALLOW_EMBEDDED": True}},
    "seed": {**NATS, "OPTIONS": {"NKEY_SEED": "SUA"}},
    "file": {**NATS, "OPTIONS": {"CREDENTIALS": "/nowhere/user.creds"}},
    "vault": {**NATS, "OPTIONS": {"CREDENTIALS_CONTENT": {"FUNCTION": "nowhere.credentials"}}},
    "hub": {**NATS, "OPTIONS": {"JS_DOMAIN": "hub"}},
    "account": {**NATS, "OPTIONS": {"JS_API_PREFIX": "other.API"}},
    "tls": {**NATS, "OPTIONS": {"TLS": {"CA": "/nowhere/ca.pem"}}},
    "local": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"},
}
PATIENT = {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 60}
for entry in CACHES.values():
    if entry["BACKEND"] == NATS["BACKEND"]:
        entry["OPTIONS"] = {**PATIENT, **entry["OPTIONS"]}
SESSION_ENGINE = "django.contrib.sessions.backends.cache"
"""
CONFIGURATION = """
[pytest]
pythonpath = .
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
filterwarnings = error
"""

Run = Callable[..., pytest.RunResult]


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that runs a project's tests, with its settings and pytest's arguments."""
    monkeypatch.setenv("PYTHONPATH", str(Path(django_nats.__file__).parents[1]))
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "project_settings")
    plugins = {each.value for each in entry_points(group="pytest11")}
    loading = [] if "django_nats.pytest_plugin" in plugins else ["-p", "django_nats.pytest_plugin"]

    def run(
        tests: str, *arguments: str, settings: str = SETTINGS, ini: str = ""
    ) -> pytest.RunResult:
        pytester.makepyfile(project_settings=settings, test_project=tests)
        pytester.makeini(f"{CONFIGURATION}\n{ini}")
        return pytester.runpytest_subprocess(*loading, *arguments, timeout=850)

    return run


def test_a_test_gets_an_empty_cache_on_a_real_server(run: Run) -> None:
    result = run(
        """
        import json

        import pytest
        from django.conf import settings
        from django.contrib.sessions.backends.cache import SessionStore
        from django.core.cache import cache, caches

        from django_nats.cache import NatsCache
        from django_nats.client import drivers

        @pytest.mark.parametrize("time", ["first", "second"])
        def test_the_cache_begins_empty(nats_cache, time):
            assert nats_cache is caches["default"]
            assert cache.get("key") is None
            cache.set("key", time)
            assert nats_cache.get("key") == time

        def test_aliases_share_buckets_as_in_settings(nats_cache):
            nats_cache.set("key", 1)
            assert caches["twin"].get("key") == 1
            assert caches["huge"].get("key") is None

        ELSEWHERE = ["seed", "file", "vault", "tls", "hub", "account"]

        @pytest.mark.parametrize("alias", ["embedded", "allowed", *ELSEWHERE])
        def test_access_to_production_is_replaced(nats_cache, alias):
            caches[alias].set("key", 1)
            assert caches[alias].get("key") == 1

        def test_other_options_are_kept(nats_cache):
            bucket = caches["huge"].config.bucket
            assert (bucket.max_bytes, bucket.evict) == (900 * 1024**3, False)

        def test_other_backends_are_not_changed(nats_cache):
            caches["local"].set("key", 1)
            assert caches["local"].get("key") == 1
            assert nats_cache.get("key") is None

        def test_sessions_work(nats_cache):
            session = SessionStore()
            session["name"] = "Ada"
            session.save()
            assert SessionStore(session.session_key)["name"] == "Ada"

        async def test_async_methods_work(nats_cache):
            await nats_cache.aset("key", 1)
            assert await cache.aget("key") == 1

        def test_settings_are_restored_afterwards(nats_server):
            assert settings.CACHES["default"]["LOCATION"] == "nats://127.0.0.1:1"
            assert settings.CACHES["default"]["OPTIONS"]["REPLICAS"] == 3
            assert caches["default"].config.connection.servers == ("nats://127.0.0.1:1",)

        def test_buckets_are_deleted_afterwards(nats_server):
            options = {**settings.PATIENT, "TOKEN": nats_server.token}
            cache = NatsCache(nats_server.url, {"OPTIONS": options})

            def names():
                reply = yield cache.bucket.stream.api_request("$JS.API.STREAM.NAMES")
                return json.loads(reply.payload)["streams"]

            assert not drivers.run(cache.session, names())
        """,
        ini="log_cli = true",
    )

    result.assert_outcomes(passed=17)
    result.stdout.no_fnmatch_line("*No connection to NATS*")


@pytest.mark.once
def test_a_near_cache_stops_with_its_test(run: Run) -> None:
    near = """
NATS["OPTIONS"] = {"BUCKET": "web", "NEAR_CACHE": {}, **PATIENT}
FLAGS = {"NEAR_CACHE": {"MAX_STALE": 0.5}, **PATIENT}
CACHES = {"default": NATS, "flags": {**NATS, "OPTIONS": FLAGS}}
"""
    result = run(
        """
        import json
        import time

        import pytest
        from django.conf import settings
        from django.core.cache import caches

        from django_nats.cache import NatsCache
        from django_nats.client import drivers
        from django_nats.devserver.files import eventually
        from django_nats.nearcache import near

        near._STOP_TIMEOUT_S = 60.0  # seconds that a slow machine has to end a feed
        followed = []

        @pytest.mark.parametrize("reads", [1, 2, 100, "until whole"])
        def test_near_caches_are_read(nats_cache, reads):
            for cache in (nats_cache, caches["flags"]):
                cache.get("key")
                if reads == "until whole":
                    assert eventually(lambda: cache.near.state == "whole", time.monotonic() + 60)
                else:
                    for _ in range(reads):
                        cache.get("key")
                followed.append(cache.near)

        def test_near_caches_have_stopped_afterwards(nats_server):
            assert len(followed) == 8
            assert {each.state for each in followed} == {"not started"}
            options = {**settings.PATIENT, "TOKEN": nats_server.token}
            cache = NatsCache(nats_server.url, {"OPTIONS": options})

            def names():
                reply = yield cache.bucket.stream.api_request("$JS.API.STREAM.NAMES")
                return json.loads(reply.payload)["streams"]

            assert not drivers.run(cache.session, names())
        """,
        settings=SETTINGS + near,
    )

    result.assert_outcomes(passed=5)


@pytest.mark.once
def test_every_xdist_worker_has_a_server_which_ends_with_it(
    run: Run, pytester: pytest.Pytester
) -> None:
    result = run(
        """
        from pathlib import Path

        import pytest

        @pytest.mark.parametrize("number", range(5))
        def test_the_cache_begins_empty(nats_cache, nats_server, worker_id, number):
            assert nats_cache.add("key", number)
            Path(f"{worker_id}.{nats_server.port}").touch()
        """,
        "-n2",
        "--dist=each",
    )

    result.assert_outcomes(passed=10)
    servers = sorted(path.name for path in pytester.path.glob("gw*"))
    assert [name.partition(".")[0] for name in servers] == ["gw0", "gw1"]
    for name in servers:
        port = int(name.partition(".")[2])
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0


@pytest.mark.once
def test_usefixtures_gives_every_test_an_empty_cache(run: Run) -> None:
    result = run(
        """
        from django.core.cache import cache
        from django.test import SimpleTestCase

        def test_function():
            assert cache.add("key", 1)

        class Case(SimpleTestCase):
            def setUp(self):
                assert cache.add("key", 1)

            def test_one(self):
                assert cache.get("key") == 1

            def test_two(self):
                assert cache.get("key") == 1
        """,
        ini="usefixtures = nats_cache",
    )

    result.assert_outcomes(passed=3)


def test_nats_cache_is_the_first_alias_on_nats_if_the_default_is_not(run: Run) -> None:
    result = run(
        """
        from django.core.cache import caches

        def test_first(nats_cache):
            assert nats_cache is caches["pages"]
            assert nats_cache.add("key", 1)
        """,
        settings=SETTINGS + 'CACHES = {"default": CACHES["local"], "pages": CACHES["default"]}',
    )

    result.assert_outcomes(passed=1)


@pytest.mark.once
def test_a_project_without_a_nats_cache_gets_an_error(run: Run) -> None:
    result = run(
        "def test_it(nats_cache): pass",
        settings=SETTINGS + 'CACHES = {"default": CACHES["local"]}',
    )

    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["nats_cache: no alias of CACHES is served by*"])


@pytest.mark.once
def test_the_teardown_survives_a_killed_server(run: Run) -> None:
    result = run("""
        def test_it(nats_cache, nats_server):
            nats_cache.set("key", 1)
            nats_server.kill()
    """)

    result.assert_outcomes(passed=1)


def test_loading_the_plugin_imports_no_other_module_of_the_package() -> None:
    code = """
import sys
import pytest
before = set(sys.modules)
import django_nats.pytest_plugin
print(*set(sys.modules) - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    packages = ("django_nats", "django", "nats", "asgiref", "asyncio")
    loaded = {each for each in done.stdout.split() if each.partition(".")[0] in packages}
    assert loaded == {"django_nats", "django_nats.pytest_plugin"}
