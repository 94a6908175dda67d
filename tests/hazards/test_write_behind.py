"""What incr_later has added survives the end of its process, forks, and the servers around it."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from django.test import override_settings

from django_nats.client import bridge
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import CounterUnavailable
from tests.servers import ROOT, eventually
from tests.support.cluster import Cluster
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.scripts import Ended, run_script

_PRELUDE = """
import logging, os, sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    NATS_COUNTERS={
        "default": {"LOCATION": sys.argv[1], "TOKEN": sys.argv[2], "FLUSH_INTERVAL": 3000}
    },
)
from django_nats.counters import Counter, counters, later
"""
_GO = """
print("ready", flush=True)
sys.stdin.readline()
"""

Script = Callable[..., Ended]


@pytest.fixture
def total(own_server: NatsServer) -> Iterator[Callable[[], int]]:
    """The total of the counter ``k``, as another process sees it."""
    aliases = {"default": {"LOCATION": own_server.url, "TOKEN": own_server.token}}
    with override_settings(NATS_COUNTERS=aliases):
        yield Counter("k").value


@pytest.fixture
def script(own_server: NatsServer) -> Script:
    """Runs a program that finds ``counters``, which only flush() and the end publish."""

    def run(code: str, **kwargs: object) -> Ended:
        where = (own_server.url, own_server.token)
        return run_script(code, *where, prelude=_PRELUDE, **kwargs)  # type: ignore[arg-type]

    return run


def _in_order(ended: Ended, stdout: str = "") -> None:
    assert (ended.status, ended.stdout, ended.stderr) == (0, stdout, "")


# The end -------------------------------------------------------------------------------------


def test_importing_starts_nothing(script: Script) -> None:
    _in_order(script(_GO + "import threading; print(threading.active_count())"), "1")


def test_at_exit(script: Script, total: Callable[[], int]) -> None:
    ended = script(_GO + "for _ in range(1000): counters.incr_later('k')")
    _in_order(ended)
    assert total() == 1000
    assert ended.seconds < 20


def test_by_a_function_at_exit(script: Script, total: Callable[[], int]) -> None:
    """Even where Python starts no thread any more, as 3.12 does."""
    code = "counters.incr('k'); import atexit; atexit.register(counters.incr_later, 'k', 5)"
    assert script(code + _GO).status == 0
    assert total() == 6


def test_by_a_function_at_exit_that_was_registered_first(
    own_server: NatsServer, total: Callable[[], int]
) -> None:
    """It is called last, when the connection is closed: what it adds is told to be lost."""
    late = """
import atexit
added = []
atexit.register(lambda: [counters.incr_later("k", n) for n in added])
"""
    for known, added in (("k", [5, 2]), ("", [5])):
        code = f"known = {known!r}\nif known: counters.incr_later(known)\nadded += {added}"
        where = (own_server.url, own_server.token)
        ended = run_script(code + _GO, *where, prelude=late + _PRELUDE)
        assert ended.status == 0
        assert total() == 1
        assert f"{sum(added):+d} in all, may be lost" in ended.stderr


def test_with_other_threads_in_the_middle_of_it(script: Script, total: Callable[[], int]) -> None:
    ended = script(
        """
import threading
counters.incr("k")

def work():
    while True:
        counters.incr_later("k")

for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
"""
        + _GO
    )
    _in_order(ended)
    assert total() > 1


def test_when_the_server_is_away(script: Script, own_server: NatsServer) -> None:
    """The end is held up for so long, and what is lost is told."""
    ended = script(
        "counters.flush(); counters.incr('k')" + _GO + "counters.incr_later('k', 7)",
        when_ready=lambda _: own_server.kill(),
    )
    assert ended.status == 0
    assert "1 counters of the stream COUNTERS, +7 in all, may be lost" in ended.stderr
    assert 2.5 < ended.seconds < 9  # the deadline would be 10


def test_when_the_server_comes_back_in_time(
    script: Script, own_server: NatsServer, total: Callable[[], int]
) -> None:
    def restart(_: object) -> None:
        own_server.kill()
        own_server.start()

    _in_order(
        script(
            "logging.disable(); counters.incr('k')\n" + _GO + "counters.incr_later('k', 7)",
            when_ready=restart,
        )
    )
    assert total() == 8


@pytest.mark.parametrize("module", ["multiprocessing", "billiard"])
def test_the_end_of_a_forked_child(script: Script, total: Callable[[], int], module: str) -> None:
    """It ends by os._exit, without functions at exit; so do Celery's, which are billiard's."""
    pytest.importorskip(module)
    ended = script(
        f"""
import {module}
counters.incr_later("k", 100)
"""
        + _GO
        + f"""
context = {module}.get_context("fork")
children = [context.Process(target=counters.incr_later, args=("k", 2)) for _ in range(3)]
for child in children: child.start()
for child in children: child.join()
print([child.exitcode for child in children])
"""
    )
    _in_order(ended, "[0, 0, 0]")
    assert total() == 106


def test_what_was_pending_when_settings_changed(script: Script, total: Callable[[], int]) -> None:
    """It goes where it was meant to."""
    ended = script(
        """
from django.test import override_settings
counters.incr_later("k", 3)
with override_settings(NATS_COUNTERS={"default": {"LOCATION": "nats://127.0.0.1:1"}}):
    pass
"""
        + _GO
    )
    _in_order(ended)
    assert total() == 3


# Servers that fail ---------------------------------------------------------------------------


@pytest.mark.faults
def test_lost_acknowledgements(own_server: NatsServer) -> None:
    """Each time, between the server's counting and its word of it, the connection ends."""
    common = {"TOKEN": own_server.token, "STREAM": "C", "FLUSH_INTERVAL": 3000}
    common |= {"CONNECT_TIMEOUT": 10, "REQUEST_TIMEOUT": 10}
    with Proxy(own_server.port) as proxy:
        aliases = {
            "past": {**common, "LOCATION": own_server.url},
            "through": {**common, "LOCATION": proxy.url},
        }
        with override_settings(NATS_COUNTERS=aliases), ThreadPoolExecutor(1) as pool:
            past, counters = Counter("k", alias="past"), Counters("through")
            for turn in range(1, 6):
                counters.get_many(["k"])  # connected
                counters.incr_later("k", 10)
                with proxy.losing(b"MSG") as lost:
                    flush = pool.submit(counters.flush)
                    assert eventually(lambda turn=turn: past >= 10 * turn)  # type: ignore[misc]
                    assert lost.wait(10)
                proxy.cut()
                flush.result()
                assert past == 10 * turn
            assert counters.stream.recognised == 5
        bridge.close()


@pytest.mark.faults
@pytest.mark.timeout(180)
def test_leaders_that_die_and_hang() -> None:
    with Cluster(3) as cluster:
        entry = {"LOCATION": cluster.urls, "TOKEN": cluster.token, "REPLICAS": 3, "STREAM": "C"}
        # An election takes its time where others want the processors.
        alias = {**entry, "FLUSH_INTERVAL": 0.01, "FLUSH_AT": 1000, "REQUEST_TIMEOUT": 0.5}
        alias["DEADLINE"] = 60
        with override_settings(NATS_COUNTERS={"default": alias}):
            counters, stop = Counters(), threading.Event()

            def work(number: int) -> int:
                added = 0
                while not stop.wait(0.001):
                    for name in "abc":
                        counters.incr_later(name)
                    counters.incr_later(("own", str(number)), -1)
                    added += 1
                return added

            counters.incr("life")
            with ThreadPoolExecutor(4) as pool:
                threads = [pool.submit(work, number) for number in range(4)]
                try:
                    for number, fault in enumerate((NatsServer.kill, NatsServer.pause) * 2, 2):
                        assert eventually(partial(_more_than, Counter("a").value()), 30)
                        fault(cluster.leader("C"))
                        assert counters.incr("life") == number  # another leads
                        cluster.mend()
                finally:
                    stop.set()
                added = [thread.result() for thread in threads]
            counters.flush()
            assert counters.get_many("abc") == dict.fromkeys("abc", sum(added))
            names = [("own", str(number)) for number in range(4)]
            assert counters.get_many(names) == {
                name: -each for name, each in zip(names, added, strict=True)
            }
            assert counters.pending.counters == 0
        bridge.close()


def _more_than(before: int) -> bool:
    """Whether some that nobody waited for have been published meanwhile."""
    try:
        return Counter("a").value() > before
    except CounterUnavailable:
        return False


# Forks ---------------------------------------------------------------------------------------


def test_a_fork_publishes_what_is_pending_once(script: Script, total: Callable[[], int]) -> None:
    """By the parent; what comes after, each its own, by a thread of its own."""
    ended = script(
        """
import threading
counters.incr_later("k", 1)
"""
        + _GO
        + """
children = []
for turn in range(3):
    counters.incr_later("k", 10)
    child = os.fork()
    if not child:
        assert counters.pending.counters == 0
        assert threading.active_count() == 1
        counters.incr_later("k", 100)
        assert "django-nats-counters" in {each.name for each in threading.enumerate()}
        sys.exit()
    children.append(child)
print([os.waitpid(child, 0)[1] for child in children])
"""
    )
    _in_order(ended, "[0, 0, 0]")
    assert total() == 1 + 30 + 300


def test_what_publishing_needs_is_there_before(script: Script) -> None:
    """By the caller: a fork while another thread imports leaves the child a module locked, and
    at the end Python 3.12 starts no thread."""
    ended = script(
        _GO
        + """
import threading
assert counters.pending.counters == 0
counters.incr_later("k")
print("nats" in sys.modules, *sorted(each.name for each in threading.enumerate()))
"""
    )
    _in_order(ended, "True MainThread django-nats django-nats-counters")


def test_a_fork_while_others_add_and_publish(script: Script, total: Callable[[], int]) -> None:
    ended = script(
        """
import threading
counters.incr("k")
stop = threading.Event()
added = [0] * 4

def work(number):
    while not stop.is_set():
        counters.incr_later("k")
        added[number] += 1
        if not added[number] % 1000:
            counters.flush()

threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
"""
        + _GO
        + """
for turn in range(10):
    child = os.fork()
    if not child:
        counters.incr_later("k")
        counters.flush()
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
stop.set()
for thread in threads: thread.join()
print(1 + sum(added) + 10)
"""
    )
    _in_order(ended, str(total()))


# Servers that run Django ---------------------------------------------------------------------

_APPLICATION = """
import sys
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    NATS_COUNTERS={{
        "default": {{"LOCATION": {url!r}, "TOKEN": {token!r}, "FLUSH_INTERVAL": 3000}}
    }},
)
import django
django.setup()
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path
from django_nats.counters import counters


def view(request):
    counters.incr_later("k")
    return HttpResponse("counted")


urlpatterns = [path("", view)]
counters.incr_later("loaded")
wsgi = get_wsgi_application()
asgi = get_asgi_application()


async def with_lifespan(scope, receive, send):
    if scope["type"] != "lifespan":
        return await asgi(scope, receive, send)
    while True:
        message = await receive()
        if message["type"] == "lifespan.shutdown":
            await counters.aflush()
        await send({{"type": message["type"] + ".complete"}})
        if message["type"] == "lifespan.shutdown":
            return
"""


class Site:
    """A real server that runs a Django project with a view that counts."""

    def __init__(self, directory: Path, nats: NatsServer, module: str, *arguments: str) -> None:
        text = _APPLICATION.format(url=nats.url, token=nats.token)
        (directory / "application.py").write_text(text)
        self.port = free_port()
        words = [each.replace("PORT", str(self.port)) for each in arguments]
        self._log = directory / "log"
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", module, *words],
                cwd=directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )

    def __enter__(self) -> Site:
        try:
            assert eventually(lambda: self._is_up() or self._process.poll() is not None, 20)
            assert self._process.poll() is None, self.log()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._process.kill()
        self._process.wait()

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return True
        except OSError:
            return False

    def log(self) -> str:
        return self._log.read_text()

    def visit(self, number: int = 0) -> int:
        """One request, on a connection of its own; whether it was counted."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", "/")
            return int(connection.getresponse().read() == b"counted")
        except (OSError, http.client.HTTPException):
            return 0  # its worker was about to be replaced
        finally:
            connection.close()

    def visits(self, count: int) -> int:
        with ThreadPoolExecutor(4) as pool:
            return sum(pool.map(self.visit, range(count)))

    def end(self) -> str:
        """End it in order; what it has logged."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(20)
        return self.log()


@pytest.mark.parametrize("worker", ["sync", "gthread"])
@pytest.mark.parametrize("preload", [False, True], ids=["", "preload"])
def test_gunicorn(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], worker: str, preload: bool
) -> None:
    """Through its workers' restarts, too."""
    pytest.importorskip("gunicorn")
    arguments = ["-b", "127.0.0.1:PORT", "-w", "2", "-k", worker, "--threads", "4"]
    arguments += ["--max-requests", "30", *(["--preload"] if preload else [])]
    with Site(tmp_path, own_server, "gunicorn", *arguments, "application:wsgi") as site:
        counted = site.visits(100)
        log = site.end()
    assert counted > 70
    assert total() == counted, log
    boots = log.count("Booting worker")
    assert boots > 3
    assert Counter("loaded") == (1 if preload else boots)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_granian(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], interface: str
) -> None:
    pytest.importorskip("granian")
    arguments = ["--interface", interface, "--port", "PORT", "--workers", "2"]
    target = f"application:{interface}"
    with Site(tmp_path, own_server, "granian", *arguments, target) as site:
        # Until then it takes no notice of signals.
        assert eventually(lambda: site.log().count("Started worker") == 2, 20), site.log()
        counted = site.visits(50)
        log = site.end()
    assert counted == 50, log
    assert total() == 50, log
    assert Counter("loaded") == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_uvicorn(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], workers: int
) -> None:
    """It kills itself by the signal it got: what is pending goes when its lifespan ends."""
    pytest.importorskip("uvicorn")
    arguments = ["--port", "PORT", "--workers", str(workers), "application:with_lifespan"]
    with Site(tmp_path, own_server, "uvicorn", *arguments) as site:
        counted = site.visits(50)
        log = site.end()
    assert counted == 50, log
    assert total() == 50, log
