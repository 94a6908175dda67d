"""Helpers for tests with real servers and processes: bounded waits, bare sockets, scripts."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from django_nats.devserver import Endpoint, NatsServer

ROOT = Path(__file__).resolve().parent.parent


def eventually(happened: Callable[[], object], seconds: float = 60.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def greeting(url: str, seconds: float = 60.0) -> dict[str, object] | None:
    """Return the INFO that the server sends first, or None if none comes within the seconds."""
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), seconds) as peer:
            return json.loads(peer.makefile("rb").readline().removeprefix(b"INFO "))
    except (OSError, ValueError):
        return None


def request(server: NatsServer | Endpoint, subject: str, payload: object = "") -> dict[str, object]:
    """Send a request over a bare socket and return the answer, or {"refused": the error}."""
    body = json.dumps(payload).encode() if payload else b""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), 60) as peer:
        peer.settimeout(60)
        lines = peer.makefile("rb")
        lines.readline()
        connect = {"auth_token": server.token, "headers": True, "no_responders": True}
        peer.sendall(
            b"CONNECT %b\r\nSUB reply 1\r\nPUB %b reply %d\r\n%b\r\n"
            % (json.dumps(connect).encode(), subject.encode(), len(body), body)
        )
        while line := lines.readline():
            if line.startswith((b"-ERR", b"HMSG")):
                return {"refused": line.decode().strip()}
            if line.startswith(b"MSG"):
                return json.loads(lines.readline())
    raise AssertionError("the server hung up")


def make_stream(server: NatsServer | Endpoint, name: str) -> None:
    answer = request(server, f"$JS.API.STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
    assert "config" in answer, answer


def streams(server: NatsServer | Endpoint) -> object:
    return request(server, "$JS.API.STREAM.NAMES")["streams"]


def exists(pid: int) -> bool:
    """Return True if the process runs. A zombie does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def commands(mention: object) -> list[str]:
    """Return the command lines of all processes that contain a text."""
    table = subprocess.run(
        ["ps", "axww", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [line for line in table.stdout.splitlines() if str(mention) in line]


def python(script: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start a script that can import this package, with pipes as its stdin and stdout."""
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def program(file: Path, script: str) -> str:
    file.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    file.chmod(0o755)
    return str(file)


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()
