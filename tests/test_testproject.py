"""The demonstration site, started and visited as a person would."""

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
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, build_opener

import pytest

ROOT = Path(__file__).resolve().parent.parent
STATS = {"server", "bucket", "entries", "bytes", "hits", "misses", "rtt", "connected"}


def environment(data: Path, **more: str) -> dict[str, str]:
    inherited = {name: value for name, value in os.environ.items() if name != "NATS_URL"}
    settings = {"DJANGO_SETTINGS_MODULE": "testproject.settings", "TESTPROJECT_DATA": str(data)}
    return {**inherited, **settings, **more}


def run(data: Path, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment(data, **more),
        capture_output=True,
        text=True,
        timeout=30,
    )


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass
class Site:
    port: int
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def interrupt(self) -> int:
        """Press Ctrl-C; return the exit status."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(10)


class Visitor:
    """A browser, as far as cookies go."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.cookies = CookieJar()
        self.opener = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> str:
        with self.opener.open(self.site.url + path, timeout=10) as response:
            assert response.status == 200
            text: str = response.read().decode()
            return text

    def post(self, path: str, token: str | None = None) -> str:
        if token is None:
            token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        form = urlencode({"csrfmiddlewaretoken": token}).encode()
        with self.opener.open(self.site.url + path, form, timeout=10) as response:
            text: str = response.read().decode()
            return text


@contextmanager
def started(data: Path) -> Iterator[Site]:
    port = free_port()
    log = data / f"{port}.log"
    # A shell's background job ignores Ctrl-C, and so would the processes it starts.
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "testproject", "--port", str(port)],
                cwd=ROOT,
                env=environment(data, DJANGO_SETTINGS_MODULE="another.projects.settings"),
                stdout=output,
                stderr=subprocess.STDOUT,
            )
    finally:
        signal.signal(signal.SIGINT, handler)
    try:
        yield Site(port, process, log)
    finally:
        process.kill()
        process.wait(10)


def wait_until(happened: Callable[[], bool], site: Site) -> None:
    deadline = time.monotonic() + 20
    while not happened():
        if site.process.poll() is not None or time.monotonic() > deadline:
            pytest.fail(f"the site did not start:\n{site.log.read_text()}")
        time.sleep(0.02)


@contextmanager
def serving(data: Path) -> Iterator[Site]:
    with started(data) as site:
        wait_until(site.listens, site)
        yield site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with serving(tmp_path_factory.mktemp("testproject")) as running:
        yield running


@pytest.fixture
def visitor(site: Site) -> Visitor:
    return Visitor(site)


def moment(page: str, name: str) -> str:
    found = re.search(rf'id="{name}" datetime="([^"]+)"', page)
    assert found, f"no time called {name} in the page"
    return found[1]


def test_it_says_where_it_serves(site: Site) -> None:
    assert site.url in site.log.read_text()


def test_every_page_that_the_home_page_links_to_opens(visitor: Visitor) -> None:
    home = visitor.get("/")
    paths = set(re.findall(r'href="(/[^"#]*)', home))
    assert {"/almanac/", "/articles/latest/", "/cache/", "/dispatches/", "/reading/"} <= paths
    for path in paths:
        assert visitor.get(path)


@pytest.mark.parametrize(
    "path",
    ["/topics/maps/", "/admin/login/", "/static/magazine/site.js", "/static/magazine/stats.js"],
)
def test_other_pages_open(visitor: Visitor, path: str) -> None:
    assert visitor.get(path)


def test_a_topic_that_does_not_exist_is_not_found(visitor: Visitor) -> None:
    with pytest.raises(URLError, match="404"):
        visitor.get("/topics/weather/")


def test_an_article_is_rendered_once_until_it_is_dropped(site: Site, visitor: Visitor) -> None:
    path = "/articles/contour-lines-for-beginners/"
    first = moment(visitor.get(path), "rendered")
    assert moment(visitor.get(path), "rendered") == first
    assert moment(Visitor(site).get(path), "rendered") == first
    dropped = moment(visitor.post(path), "rendered")
    assert dropped > first
    assert moment(visitor.get(path), "rendered") == dropped


def test_an_article_is_not_kept_by_the_browser(visitor: Visitor) -> None:
    with visitor.opener.open(visitor.site.url + "/articles/slack-water/", timeout=10) as response:
        assert response.headers["Cache-Control"] == "no-cache"


def test_a_kept_page_holds_nothing_of_one_reader(site: Site, visitor: Visitor) -> None:
    path = "/articles/keeping-the-light/"
    other = Visitor(site)
    pages = {reader: reader.get(path) for reader in (visitor, other)}
    assert moment(pages[visitor], "rendered") == moment(pages[other], "rendered")
    for reader, page in pages.items():
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert found
        assert reader.post(path, found[1])  # refused with anybody else's token


def test_the_sidebar_is_computed_once_until_it_is_dropped(visitor: Visitor) -> None:
    visitor.get("/almanac/")
    first = moment(visitor.post("/almanac/"), "computed")
    assert moment(visitor.get("/almanac/"), "computed") == first
    assert moment(visitor.post("/almanac/"), "computed") > first


def articles_read(visitor: Visitor) -> int:
    found = re.search(r'id="count">(\d+)<', visitor.get("/reading/"))
    assert found
    return int(found[1])


def test_the_session_counts_the_articles_read(site: Site, visitor: Visitor) -> None:
    assert articles_read(visitor) == 0
    visitor.get("/articles/what-the-starter-knows/")
    visitor.get("/articles/a-ferry-with-no-timetable/")
    visitor.get("/articles/a-ferry-with-no-timetable/")
    assert articles_read(visitor) == 2
    assert articles_read(Visitor(site)) == 0
    visitor.post("/reading/")
    assert articles_read(visitor) == 0


def test_the_dispatch_board_comes_from_the_cache_the_second_time(visitor: Visitor) -> None:
    boards = [visitor.get("/dispatches/") for _ in range(3)]
    # An earlier visitor's reports may run out before the second look, but not before the third.
    assert any("All 20 reports came from the cache" in board for board in boards[1:])
    assert boards[0].count(" rising<") + boards[0].count(" falling<") == 20


def test_statistics(visitor: Visitor) -> None:
    visitor.get("/articles/slack-water/")
    before: dict[str, Any] = json.loads(visitor.get("/cache/stats.json"))
    visitor.get("/articles/slack-water/")
    after: dict[str, Any] = json.loads(visitor.get("/cache/stats.json"))
    assert set(after) == STATS
    assert after["bucket"] == "testproject"
    assert after["connected"] is True
    assert after["entries"] > 0
    assert 0 < after["rtt"] < 5
    assert after["hits"] > before["hits"]


def test_a_busy_port_is_said_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = run(tmp_path, "-m", "testproject", "--port", str(port))
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


def test_without_a_server_it_says_so_and_ends(tmp_path: Path) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    result = run(tmp_path, "-m", "testproject", "--port", str(free_port()), NATS_URL=nowhere)
    assert result.returncode == 1
    assert "The cache cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_statistics_page_outlives_the_server(tmp_path: Path) -> None:
    visit = """if True:
        import django
        django.setup()
        from django.test import Client
        visitor = Client(SERVER_NAME="localhost")
        page, figures = visitor.get("/cache/"), visitor.get("/cache/stats.json")
        assert page.status_code == 200, page
        assert b"The cache is not available" in page.content
        assert figures.status_code == 503, figures
        assert figures.json()["problem"]
    """
    result = run(tmp_path, "-c", visit, NATS_URL=f"nats://127.0.0.1:{free_port()}")
    assert result.returncode == 0, result.stderr


def test_it_ends_on_ctrl_c_and_starts_again_on_the_same_data(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path) as site:
            articles = re.findall(r'class="entry ', Visitor(site).get("/articles/"))
            status = site.interrupt()
        assert len(articles) == 10
        assert status == 0
        assert "Traceback" not in site.log.read_text()


def test_ctrl_c_while_it_starts_is_as_quiet(tmp_path: Path) -> None:
    with started(tmp_path) as site:
        wait_until((tmp_path / "db.sqlite3").exists, site)
        status = site.interrupt()
    assert status == 0
    assert "Traceback" not in site.log.read_text()
