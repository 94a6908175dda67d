"""The servers of the contestants, each on a free port of 127.0.0.1. They persist no data."""

from __future__ import annotations

import contextlib
import getpass
import json
import re
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any
from urllib.request import urlopen

from django_nats.devserver import NatsServer
from django_nats.exceptions import DevServerError
from tests.support.ports import free_port

from .results import LeftOut

_PATIENCE = 10.0


class ServerMissing(Exception):
    """A server is not installed, or does not start. The text says which, and why."""


class Server(ABC):
    """A running server."""

    name: str
    version: str
    pid: int
    port: int

    @abstractmethod
    def connections(self) -> int:
        """Return the number of connections that clients have opened so far."""


class Nats(Server):
    name = "nats"

    def __init__(self, server: NatsServer) -> None:
        self.pid = server.pid
        self.port = server.port
        ports = next(server.directory.glob(f"*_{server.pid}.ports")).read_text()
        self._monitoring = json.loads(ports)["monitoring"][0]
        self.version = self._variables()["version"]

    def connections(self) -> int:
        return int(self._variables()["total_connections"])

    def _variables(self) -> dict[str, Any]:
        with urlopen(f"{self._monitoring}/varz", timeout=_PATIENCE) as response:
            variables: dict[str, Any] = json.load(response)
        return variables


class TextServer(Server):
    """A server that sends its statistics as lines of text."""

    def __init__(self, name: str, process: subprocess.Popen[bytes], port: int, ask: bytes) -> None:
        self.name = name
        self.pid = process.pid
        self.port = port
        self._ask = ask
        self._asked = 0
        self.version = self._statistic(rb"\bversion|redis_version")

    def connections(self) -> int:
        return int(self._statistic(rb"total_connections(?:_received)?")) - self._asked

    def _statistic(self, field: bytes) -> str:
        self._asked += 1
        with socket.create_connection(("127.0.0.1", self.port), _PATIENCE) as connection:
            connection.sendall(self._ask)
            with connection.makefile("rb") as answer:
                found = re.search(rb"(?:%b)[: ](\S+)" % field, answer.read())
        assert found is not None
        return found[1].decode()


@contextmanager
def _nats() -> Iterator[Nats]:
    # No token, since the other servers have no password. The long ping interval is for the floors:
    # they answer no ping while others are measured, and the server would close their connections.
    config = 'http: "127.0.0.1:-1"\nping_interval: "1h"'
    with NatsServer(token="", config=config) as server:
        yield Nats(server)


@contextmanager
def _text_server(name: str, ask: bytes, program: str, options: list[str]) -> Iterator[TextServer]:
    binary = shutil.which(program)
    if binary is None:
        raise ServerMissing(
            f"{program} is not on PATH: install it with the system's package manager"
        )
    port = free_port()
    with tempfile.TemporaryDirectory() as directory, open(f"{directory}/log", "w+b") as log:
        process = subprocess.Popen(
            [binary, *(option.format(port=port) for option in options)],
            cwd=directory,
            stdout=log,
            stderr=log,
            start_new_session=True,  # Ctrl-C must not end it before its clients
        )
        try:
            _wait_until_it_listens(process, port)
            yield TextServer(name, process, port, ask)
        except ServerMissing as error:
            log.seek(0)
            raise ServerMissing(f"{program} {error}: {log.read().decode().strip()}") from None
        finally:
            process.terminate()
            process.wait()


def _wait_until_it_listens(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + _PATIENCE
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        time.sleep(0.01)
    raise ServerMissing("does not start")


_SERVERS: dict[str, Callable[[], AbstractContextManager[Server]]] = {
    "nats": _nats,
    "redis": partial(
        _text_server,
        "redis",
        b"INFO\r\nQUIT\r\n",
        "redis-server",
        ["--bind", "127.0.0.1", "--port", "{port}", "--save", "", "--appendonly", "no"],
    ),
    "memcached": partial(
        _text_server,
        "memcached",
        b"stats\r\nquit\r\n",
        "memcached",
        # Room for a million entries, for values of 500 kB, and for 1,000 callers with one
        # connection each. memcached allocates memory only when it is used.
        [
            *("-l", "127.0.0.1", "-p", "{port}", "-u", getpass.getuser()),
            *("-m", "2048", "-I", "2m", "-c", "4096"),
        ],
    ),
}


@contextmanager
def start(names: Collection[str]) -> Iterator[tuple[dict[str, Server], list[LeftOut]]]:
    """Start servers. Yield those that run, by name, and those that could not be started."""
    running: dict[str, Server] = {}
    left_out: list[LeftOut] = []
    with ExitStack() as stack:
        for name in names:
            try:
                running[name] = stack.enter_context(_SERVERS[name]())
            except (ServerMissing, DevServerError) as error:
                left_out.append(LeftOut(name, str(error)))
        yield running, left_out
