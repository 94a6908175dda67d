"""The demonstration site, as a process that a test starts, visits and stops."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

from testproject.magazine.sample import ARTICLES
from tests.support.ports import free_port

ROOT = Path(__file__).resolve().parents[2]


def environment(data: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NATS_URL"}
    settings = {
        "DJANGO_SETTINGS_MODULE": "testproject.settings",
        "TESTPROJECT_DATA": str(data),
        "TESTPROJECT_TIMEOUT": "10",
    }
    return {**inherited, **settings, **more}


def run(data: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(data, **more),
        capture_output=True,
        text=True,
        timeout=600,
    )


@dataclass
class Site:
    """A running demonstration site."""

    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=60).close()
        except OSError:
            return False
        return True

    def interrupt(self, signum: int = signal.SIGINT) -> int:
        """Send a signal, by default that of Ctrl-C. Return the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(120)


class Visitor:
    """A client with cookies, like a browser."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> str:
        with self.opener.open(self.site.url + path, timeout=60) as response:
            assert response.status == 200
            text: str = response.read().decode()
            return text

    def post(self, path: str, token: str | None = None) -> str:
        with self.submit(path, token) as response:
            text: str = response.read().decode()
            return text

    def submit(self, path: str, token: str | None = None, **fields: str) -> Any:
        if token is None:
            token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        form = urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        return self.opener.open(self.site.url + path, form, timeout=60)

    def count(self, path: str) -> dict[str, str]:
        """Send the request of a page's button. Return the totals of the response."""
        self.opener.addheaders = [("Accept", "application/json")]
        try:
            with self.submit(path) as response:
                totals: dict[str, str] = json.load(response)
                return totals
        finally:
            self.opener.addheaders = []

    @contextmanager
    def following(self, path: str) -> Iterator[Iterator[dict[str, str]]]:
        """Yield an iterator over the totals that the server sends to a page."""
        with self.opener.open(self.site.url + path, timeout=60) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            lines = (line for line in response if line.startswith(b"data: "))
            yield (json.loads(line.removeprefix(b"data: ")) for line in lines)


@contextmanager
def started(data: Path, **more: str) -> Iterator[Site]:
    port = free_port()
    log = data / f"{port}.log"
    # Background jobs of a shell ignore Ctrl-C, and so would the processes they start.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "testproject", "--port", str(port)],
                cwd=ROOT,
                env=environment(
                    data,
                    DJANGO_SETTINGS_MODULE="another.projects.settings",
                    TMPDIR=str(data),
                    **more,
                ),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield Site(port, process, log)
    finally:
        process.kill()
        process.wait(60)


def wait_until(happened: Callable[[], bool], site: Site) -> None:
    deadline = time.monotonic() + 60
    while not happened():
        if site.process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the site did not start:\n{site.log.read_text()}")
        time.sleep(0.02)  # real time: the interval between two checks


@contextmanager
def serving(data: Path) -> Iterator[Site]:
    with started(data) as site:
        wait_until(site.listens, site)
        yield site


def total(page: str, name: str) -> int:
    found = re.search(rf'data-total="{name}">(\d+)<', page)
    assert found, f"no total called {name} in the page"
    return int(found[1])


def number(slug: str) -> int:
    """Return the primary key of an article. Articles are loaded in order."""
    return [sample["slug"] for sample in ARTICLES].index(slug) + 1


def start_regions(visitor: Visitor) -> None:
    visitor.get("/articles/slack-water/")  # this page always has a form, and with it a CSRF token
    assert "Count here" in visitor.post("/regions/")


def in_process(data: Path, code: str, **more: str) -> None:
    """Run the body of a coroutine in a process with the site's modules and a NATS server."""
    body = code.strip("\n").replace("\n", "\n    ")
    program = f"""
import asyncio, json, os
from django_nats.devserver import NatsServer
from tests.support.ports import free_port
from tests.support.proxy import Proxy

server = NatsServer(token="", port=free_port())  # a fixed port, because tests restart it
server.start()
proxy = Proxy(server.port)
os.environ["NATS_URL"] = proxy.url
import django
django.setup()
from asgiref.sync import sync_to_async
from asgiref.testing import ApplicationCommunicator
from django.conf import settings
from django.core.management import call_command
from django.test import AsyncClient, Client
from testproject.asgi import application
from testproject.magazine import streams
from testproject.magazine.models import Article

settings.ALLOWED_HOSTS.append("testserver")
call_command("migrate", verbosity=0)
call_command("load_sample_data", verbosity=0)
client = AsyncClient()

def told(event):
    return json.loads(event.decode().removeprefix("data: "))

async def main():
    {body}

with server, proxy:
    asyncio.run(main())
"""
    result = run(data, "-W", "error", "-c", program, **more)
    assert result.returncode == 0, result.stderr
