"""What tests of real servers and real processes need: bounded waits, bare sockets, scripts."""

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


def eventually(happened: Callable[[], object], seconds: float = 30.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def greeting(url: str) -> dict[str, object] | None:
    """What the server says first, or None if nobody does."""
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=1) as peer:
            return json.loads(peer.makefile("rb").readline().removeprefix(b"INFO "))
    except (OSError, ValueError):
        return None


def request(server: NatsServer | Endpoint, subject: str, payload: object = "") -> dict[str, object]:
    """One request over a bare socket; the server's refusal is {"refused": its words}."""
    body = json.dumps(payload).encode() if payload else b""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), 5) as peer:
        peer.settimeout(5)
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
    """Whether the process runs; one that only waits for its parent's notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def commands(mention: object) -> list[str]:
    """The command lines of all processes that mention something."""
    table = subprocess.run(
        ["ps", "axww", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [line for line in table.stdout.splitlines() if str(mention) in line]


def python(script: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Run a script that can import this package; its stdin and stdout are pipes."""
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
