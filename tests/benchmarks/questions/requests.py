"""How many requests does a view with six cache operations serve, compared with an empty view?

The web server shares the cores with two load generators and the server of the cache. gunicorn
serves WSGI with one worker of 8 threads, since 50 connections are never distributed evenly to two
workers. granian serves ASGI with one worker, on uvloop for all contestants. It reads and writes
HTTP outside the interpreter, so that the ceiling is Django's, not that of an HTTP parser. Each
round starts a new web server: none begins with the connections and the memory of an earlier round,
and none runs while others are measured.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from tempfile import TemporaryFile
from typing import Any
from urllib.request import urlopen

import psutil

from tests.support.ports import free_port

from ..contestants import EMPTY_VIEW, FILE, Contestant
from ..lab import DIRECT, ROOT, JobFailed, Lab
from ..load import LoadFailed, put_load
from ..measuring import percentiles
from ..results import Cell

NAME = "requests"
TITLE = "How many requests does a view with six cache operations serve?"
NEEDS = ("gunicorn", "granian", "uvloop")

CLIENTS = 50
_SPANS = 6  # times as long as other measurements, since these figures vary more
_PATIENCE = 30.0
_LOG_LENGTH = 5000
_SERVE = {
    "WSGI": (
        *("gunicorn", "tests.benchmarks.site:wsgi", "--bind", "127.0.0.1:{port}"),
        *("--worker-class", "gthread", "--workers", "1", "--threads", "8"),
        *("--keep-alive", "60", "--no-control-socket", "--log-level", "warning"),
    ),
    "ASGI": (
        *("granian", "tests.benchmarks.site:asgi", "--port", "{port}"),
        *("--interface", "asginl", "--workers", "1", "--loop", "uvloop"),
        *("--http", "1", "--no-ws", "--no-log"),
    ),
}


def cells(quick: bool) -> list[dict[str, Any]]:
    return [_cell("ASGI")] if quick else [_cell("WSGI"), _cell("ASGI")]


def _cell(interface: str) -> dict[str, Any]:
    return {"interface": interface, "clients": CLIENTS}


def takes_part(contestant: Contestant, cell: Cell) -> bool:
    able = contestant.asynchronous or cell["interface"] == "WSGI"
    return able and not contestant.floor and contestant.name != FILE


def measure(lab: Lab, contestant: Contestant, cell: Cell, route: str = DIRECT) -> dict[str, float]:
    """Measure a web server under load.

    ``connections`` is the number of connections that it opens to the server of the cache.
    """
    interface, clients = cell["interface"], cell["clients"]
    view = "empty" if contestant.name == EMPTY_VIEW else "operations"
    server = lab.server(contestant)
    before = server.connections() if server else 0
    span = _SPANS * lab.span
    with web_server(lab, contestant, interface, route) as (process, port):
        url = f"http://127.0.0.1:{port}/{interface}/prepare?users={clients}"
        urlopen(url, timeout=_PATIENCE).close()
        paths = [f"/{interface}/{view}?user={user}" for user in range(clients)]
        load = put_load(port, paths, view, warmup=span / 4, span=span)
        figures = {"rate": load.rate, **percentiles(load.times)}
        figures["peak_mb"] = peak_bytes(process) / 1e6
        if server:
            figures["connections"] = server.connections() - before
    return figures


@contextmanager
def web_server(
    lab: Lab, contestant: Contestant, interface: str, route: str
) -> Iterator[tuple[psutil.Process, int]]:
    """Start a web server with the contestant's cache. Yield its first process and its port.

    Raises JobFailed, with the end of its log, if it does not start or if an answer is wrong.
    """
    port = free_port()
    cache = json.dumps(lab.entry(contestant, route))
    with TemporaryFile("w+", errors="replace") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *(word.format(port=port) for word in _SERVE[interface])],
            cwd=ROOT,
            env={**os.environ, **lab.environment(contestant), "BENCHMARK_CACHE": cache},
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            _wait_until_it_listens(process, port)
            yield psutil.Process(process.pid), port
        except (OSError, LoadFailed) as error:
            log.seek(0)
            raise JobFailed(f"{error}\n{log.read()[-_LOG_LENGTH:]}") from None
        finally:
            # Killed with its process group: to stop in order, it would wait for open connections.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise LoadFailed("The web server does not start")


def peak_bytes(process: psutil.Process) -> int:
    """Return the peak memory of a process and its children.

    Pages that they share are counted for each of them.
    """
    total = 0
    for each in (process, *process.children(recursive=True)):
        with open(f"/proc/{each.pid}/status") as status:
            peak = next(line for line in status if line.startswith("VmHWM:"))
        total += int(peak.split()[1]) * 1024
    return total
