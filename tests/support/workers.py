"""Programs that count in worker processes of servers and pools."""

from __future__ import annotations

import http.client
import os
import signal
import socket
import subprocess
import sys
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from django_nats.devserver import NatsServer
from tests.servers import ROOT, eventually
from tests.support.ports import free_port

PATIENCE = 600.0  # seconds; a replaced worker imports everything again

_SETTINGS = """
import os
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    ALLOWED_HOSTS=["*"],
    ROOT_URLCONF=__name__,
    CACHES={
        "default": {
            "BACKEND": "django_nats.cache.NatsCache",
            "LOCATION": os.environ["NATS_URL"],
            "OPTIONS": {"TOKEN": os.environ["NATS_TOKEN"], "REQUEST_TIMEOUT": 20},
        }
    },
    NATS_COUNTERS={
        "default": {
            "LOCATION": os.environ["NATS_URL"],
            "TOKEN": os.environ["NATS_TOKEN"],
            "FLUSH_INTERVAL": 3000,
        }
    },
)
import django
django.setup()
from django_nats.counters import counters, write_behind

write_behind._EXIT_TIMEOUT_S = 60.0  # also enough on a stalled machine
urlpatterns = []


def done():
    with open("done", "a") as file:
        file.write(f"{os.getpid()}\\n")
"""


class Program:
    """A program of several processes, which has its own directory.

    Its module ``application`` can use ``counters``, whose increments are published only by flush()
    and at the end of a process, and ``done()``, which reports to the test that a task is done.
    """

    def __init__(self, directory: Path, nats: NatsServer, code: str, *words: str) -> None:
        (directory / "application.py").write_text(_SETTINGS + code)
        self._done = directory / "done"
        self._log = directory / "log"
        # uWSGI restarts itself as a Python that does not know the virtual environment.
        path = os.pathsep.join([str(ROOT), sysconfig.get_path("platlib")])
        environment = {"PYTHONPATH": path, "NATS_URL": nats.url, "NATS_TOKEN": nats.token}
        with self._log.open("w") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-X", "faulthandler", "-W", "ignore", *words],
                cwd=directory,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(ProcessLookupError):  # with workers that outlive it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    @property
    def runs(self) -> bool:
        return self._process.poll() is None

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def workers(self) -> list[str]:
        """Return the process id of the worker of each task that is done."""
        return self._done.read_text().split() if self._done.exists() else []

    def wait_for(self, tasks: int) -> None:
        """Wait until this number of tasks is done."""
        if not eventually(lambda: len(self.workers()) >= tasks or not self.runs, PATIENCE):
            os.killpg(self._process.pid, signal.SIGABRT)  # faulthandler logs every thread's stack
            self._process.wait()
        assert len(self.workers()) == tasks, self.log()

    def wait(self) -> str:
        """Wait until the program has ended with status 0. Return its log."""
        assert self._process.wait(PATIENCE) == 0, self.log()
        return self.log()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def end(self, number: signal.Signals = signal.SIGTERM) -> str:
        """Send a signal, wait until the program has ended, and return its log."""
        self.send(number)
        self._process.wait(PATIENCE)
        return self.log()


_VIEWS = """
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse
from django.urls import path


def view(request):
    counters.incr_later("k")
    return HttpResponse("counted")


urlpatterns += [path("", view)]
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
        await send({"type": message["type"] + ".complete"})
        if message["type"] == "lifespan.shutdown":
            return
"""


class Site(Program):
    """A real web server that runs a Django project with a view that counts."""

    def __init__(self, directory: Path, nats: NatsServer, *words: str, code: str = "") -> None:
        self._port = str(free_port())
        words = tuple(each.replace("PORT", self._port) for each in words)
        super().__init__(directory, nats, _VIEWS + code, *words)

    def __enter__(self) -> Site:
        try:
            self.wait_until_up()
        except BaseException:
            self.__exit__()
            raise
        return self

    def wait_until_up(self) -> None:
        assert eventually(lambda: self._is_up() or not self.runs, PATIENCE)
        assert self.runs, self.log()

    def _is_up(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", int(self._port)), timeout=1):
                return True
        except OSError:
            return False

    def visit(self, number: int = 0) -> int:
        """Send a request on a new connection. Return 1 if it was counted, otherwise 0."""
        connection = http.client.HTTPConnection("127.0.0.1", int(self._port), timeout=PATIENCE)
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
