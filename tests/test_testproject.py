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
from urllib.request import HTTPCookieProcessor, Request, build_opener

import pytest

from testproject.magazine.sample import ARTICLES
from tests.support.ports import free_port

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

    def interrupt(self, signum: int = signal.SIGINT) -> int:
        """Press Ctrl-C; return the exit status."""
        self.process.send_signal(signum)
        return self.process.wait(20)


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
        with self.submit(path, token) as response:
            text: str = response.read().decode()
            return text

    def submit(self, path: str, token: str | None = None, **fields: str) -> Any:
        if token is None:
            token = next(cookie.value for cookie in self.cookies if cookie.name == "csrftoken")
        form = urlencode({"csrfmiddlewaretoken": token, **fields}).encode()
        return self.opener.open(self.site.url + path, form, timeout=10)

    def count(self, path: str) -> dict[str, str]:
        """Press a button as the page's script does; return what it is told."""
        self.opener.addheaders = [("Accept", "application/json")]
        try:
            with self.submit(path) as response:
                totals: dict[str, str] = json.load(response)
                return totals
        finally:
            self.opener.addheaders = []

    @contextmanager
    def following(self, path: str) -> Iterator[Iterator[dict[str, str]]]:
        """The totals that a page is sent, as they come."""
        with self.opener.open(self.site.url + path, timeout=10) as response:
            assert response.headers["Content-Type"] == "text/event-stream"
            lines = (line for line in response if line.startswith(b"data: "))
            yield (json.loads(line.removeprefix(b"data: ")) for line in lines)


@contextmanager
def started(data: Path, **more: str) -> Iterator[Site]:
    port = free_port()
    log = data / f"{port}.log"
    # A shell's background job ignores Ctrl-C, and so would the processes it starts.
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
    assert {"/articles/", "/flags/", "/live/", "/regions/"} <= paths
    for path in paths:
        assert visitor.get(path)


@pytest.mark.parametrize(
    "path",
    [
        "/topics/maps/",
        "/admin/login/",
        "/static/magazine/site.js",
        "/static/magazine/stats.js",
        "/static/magazine/totals.js",
    ],
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


def total(page: str, name: str) -> int:
    found = re.search(rf'data-total="{name}">(\d+)<', page)
    assert found, f"no total called {name} in the page"
    return int(found[1])


def number(slug: str) -> int:
    """The primary key of an article: they are loaded in order."""
    return [sample["slug"] for sample in ARTICLES].index(slug) + 1


def test_views_are_counted_though_the_page_is_kept(site: Site, visitor: Visitor) -> None:
    path = "/articles/drawing-the-village-from-memory/"
    views = f"views-{number('drawing-the-village-from-memory')}"
    first = visitor.get(path)
    with visitor.following("/live/totals/") as events:
        assert any(int(event[views]) == total(first, views) for event in events)
        second = Visitor(site).get(path)
        assert moment(second, "rendered") == moment(first, "rendered")
        assert total(second, views) == total(first, views) + 1
        assert any(int(event[views]) == total(second, views) for event in events)
    assert total(visitor.get("/articles/"), views) == total(second, views)


def test_a_view_is_a_page_that_was_read(visitor: Visitor) -> None:
    path = "/articles/the-river-that-changed-its-mind/"
    name = f"views-{number('the-river-that-changed-its-mind')}"
    before = total(visitor.get(path), name)
    with visitor.following("/live/totals/") as events:
        assert any(int(event[name]) == before for event in events)
        with visitor.opener.open(Request(visitor.site.url + path, method="HEAD"), timeout=10):
            pass
        visitor.get(path)
        assert next(views for event in events if (views := int(event[name])) > before) == before + 1


def test_a_like_is_counted_at_once(site: Site, visitor: Visitor) -> None:
    slug = "keeping-the-light"
    likes = f"likes-{number(slug)}"
    before = total(visitor.get("/live/"), likes)
    with Visitor(site).following("/live/totals/") as events:
        first = next(events)
        assert visitor.count(f"/articles/{slug}/like/") == {likes: str(before + 1), "problem": ""}
        event = next(event for event in events if event[likes] != first[likes])
    assert int(event[likes]) == before + 1
    assert int(event["likes"]) == int(first["likes"]) + 1
    for page in ("/articles/", f"/articles/{slug}/", "/live/"):
        assert total(visitor.get(page), likes) == before + 1


@pytest.mark.parametrize(
    ("fields", "page"),
    [({}, "/articles/the-four-oclock-loaf/#tally"), ({"live": ""}, "/live/")],
    ids=["article", "live"],
)
def test_without_a_script_a_like_leads_to_where_it_shows(
    visitor: Visitor, fields: dict[str, str], page: str
) -> None:
    likes = f"likes-{number('the-four-oclock-loaf')}"
    before = total(visitor.get("/live/"), likes)
    with visitor.submit("/articles/the-four-oclock-loaf/like/", **fields) as response:
        assert response.url == visitor.site.url + page
        assert total(response.read().decode(), likes) == before + 1


def test_a_like_is_a_readers_own(visitor: Visitor) -> None:
    path = "/articles/keeping-the-light/like/"
    with pytest.raises(URLError, match="405"):
        visitor.get(path)
    visitor.get("/live/")
    with pytest.raises(URLError, match="403"):
        visitor.post(path, "x" * 64)


def start_regions(visitor: Visitor) -> None:
    visitor.get("/articles/slack-water/")  # which has a form, and so a token, in any case
    assert "Count here" in visitor.post("/regions/")


def test_two_regions_and_their_sum(site: Site, visitor: Visitor) -> None:
    start_regions(visitor)
    start_regions(visitor)  # once more does no harm
    with Visitor(site).following("/regions/totals/") as events:
        first = {name: int(each or 0) for name, each in next(events).items()}
        assert visitor.count("/regions/north/")["north"] == str(first["north"] + 1)
        assert visitor.count("/regions/north/")["north"] == str(first["north"] + 2)
        assert visitor.count("/regions/south/")["south"] == str(first["south"] + 1)
        event = next(event for event in events if int(event["river"]) == first["river"] + 3)
    assert int(event["from_north"]) == int(event["north"]) == first["north"] + 2
    assert int(event["from_south"]) == int(event["south"]) == first["south"] + 1
    page = visitor.post("/regions/south/")
    assert total(page, "south") == first["south"] + 2
    with pytest.raises(URLError, match="404"):
        visitor.post("/regions/east/")


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
    assert "The cache or the counters cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_without_uvicorn_it_says_what_to_install(tmp_path: Path) -> None:
    start = """if True:
        import sys
        sys.modules["uvicorn"] = None
        from testproject.__main__ import main
        sys.exit(main(["--port", sys.argv[1]]))
    """
    result = run(tmp_path, "-c", start, str(free_port()))
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert 'pip install -e ".[demo]"' in line


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


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_what_was_counted_a_moment_ago_is_not_lost(tmp_path: Path, signum: int) -> None:
    with serving(tmp_path) as site:
        for _ in range(3):
            Visitor(site).get("/articles/slack-water/")
        assert site.interrupt(signum) == 0
    with serving(tmp_path) as site:
        assert total(Visitor(site).get("/live/"), "views") == 3


def test_it_ends_while_pages_are_followed_and_regions_run(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        visitor = Visitor(site)
        start_regions(visitor)
        with visitor.following("/live/totals/") as live, visitor.following("/regions/totals/") as r:
            assert next(live)
            assert next(r)
            assert list(tmp_path.glob("nats-*"))
            assert site.interrupt() == 0
        assert not list(tmp_path.glob("nats-*"))
        assert len(site.log.read_text().splitlines()) == 2, site.log.read_text()


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


def test_ctrl_c_while_it_waits_for_a_server_is_as_quiet(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(20)
        nats_url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with started(tmp_path, NATS_URL=nats_url) as site, silent.accept()[0]:
            status = site.interrupt()
    assert status == 0
    assert "cannot be used" not in site.log.read_text()
    assert "Traceback" not in site.log.read_text()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(
    "step",
    [
        pytest.param("weakref.finalize(set(), press)", id="in a finalizer, which ignores errors"),
        pytest.param("sqlite(press)", id="in a function of SQLite, whose errors are another's"),
    ],
)
@pytest.mark.parametrize("command", ["migrate", "load_sample_data", "check"])
def test_ctrl_c_in_the_midst_of_a_step_is_heeded(
    tmp_path: Path, step: str, signum: int, command: str
) -> None:
    start = f"""if True:
        import signal, sqlite3, sys, weakref
        from django.core import management
        from testproject.__main__ import main

        def press():
            signal.raise_signal({signum:d})

        def sqlite(function):
            connection = sqlite3.connect(":memory:")
            connection.create_function("press", 0, function)
            connection.execute("SELECT press()")

        def call_command(*arguments, **options):
            if arguments[0] == sys.argv[2]:
                {step}
            return once(*arguments, **options)

        once, management.call_command = management.call_command, call_command
        sys.exit(main(["--port", sys.argv[1]]))
    """
    result = run(tmp_path, "-c", start, str(free_port()), command)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def in_process(data: Path, code: str, **more: str) -> None:
    """Run a coroutine's body in the site's process: it finds the site's modules, and a server."""
    body = code.strip("\n").replace("\n", "\n    ")
    program = f"""
import asyncio, json, os
from django_nats.devserver import NatsServer
from tests.support.proxy import Proxy

server = NatsServer(token="")
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


def test_a_list_of_articles_is_one_round_trip(tmp_path: Path) -> None:
    code = """
await client.get("/articles/")
for path in ("/articles/", "/topics/water/", "/live/"):
    before = proxy.round_trips
    assert (await client.get(path)).status_code == 200
    assert proxy.round_trips == before + 1, path
"""
    in_process(tmp_path, code)


def test_events_come_when_totals_change(tmp_path: Path) -> None:
    code = """
article = await Article.objects.alast()
likes = f"likes-{article.pk}"
response = await client.get("/live/totals/")
assert response["Content-Type"] == "text/event-stream"
assert response["Cache-Control"] == "no-store"
events = aiter(response)
assert told(await anext(events))[likes] == "0"
before = proxy.round_trips
await article.likes.aincr(2)
assert told(await anext(events))[likes] == "2"
waiting = asyncio.ensure_future(anext(events))
while proxy.round_trips < before + 4:
    await asyncio.sleep(0)
assert not waiting.done(), "what has not changed is sent again"
await article.views.aincr()
totals = told(await waiting)
assert totals[f"views-{article.pk}"] == "1"
assert (totals["views"], totals["likes"], totals["problem"]) == ("1", "2", "")
"""
    in_process(tmp_path, code)


def test_a_stream_ends(tmp_path: Path) -> None:
    code = """
async def follow():
    return aiter(await client.get("/live/totals/"))

scope = (await client.get("/live/totals/")).asgi_request.scope
browser = ApplicationCommunicator(application, scope)
await browser.send_input({"type": "http.request", "body": b"", "more_body": False})
assert (await browser.receive_output(10))["status"] == 200
assert told((await browser.receive_output(10))["body"])
await browser.send_input({"type": "http.disconnect"})
await browser.wait(10)

events = await follow()
await anext(events)
streams.LONGEST = 0
assert not [event async for event in await follow()]
streams.LONGEST = 600
streams.close()
assert not [event async for event in events]
"""
    in_process(tmp_path, code)


def test_totals_move_under_asgi_only(tmp_path: Path) -> None:
    code = """
response = await sync_to_async(Client().get)("/live/totals/")
assert response.status_code == 501
"""
    in_process(tmp_path, code)


def test_pages_come_while_the_counters_are_away(tmp_path: Path) -> None:
    code = """
settings.NATS_COUNTERS["default"]["DEADLINE"] = 0.2
events = aiter(await client.get("/live/totals/"))
assert not told(await anext(events))["problem"]
server.kill()
assert told(await anext(events))["problem"]
for path in ("/articles/", "/live/"):
    page = await client.get(path)
    assert page.status_code == 200
    assert 'data-total="likes-1"></b>' in page.content.decode()
headers = {"Accept": "application/json"}
response = await client.post("/articles/slack-water/like/", headers=headers)
assert "was not counted" in response.json()["problem"]
server.start()
async for event in events:
    if not told(event)["problem"]:
        break
"""
    in_process(tmp_path, code)


def test_regions_start_once(tmp_path: Path) -> None:
    code = """
starts = await asyncio.gather(*(client.post("/regions/") for _ in range(3)))
assert [each.status_code for each in starts] == [302] * 3, starts
counted = [await client.post(f"/regions/{bank}/") for bank in ("north", "south")]
assert [each.url for each in counted] == ["/regions/"] * 2
async for event in aiter(await client.get("/regions/totals/")):
    if told(event)["river"] == "2":
        break
"""
    in_process(tmp_path, code)


def test_regions_say_what_is_wrong(tmp_path: Path) -> None:
    code = """
page = await client.get("/regions/")
assert "Start the three servers" in page.content.decode()
settings.NATS_COUNTERS["north"]["DEADLINE"] = 0.2
response = await client.post("/regions/north/", headers={"Accept": "application/json"})
assert "NORTH" in response.json()["problem"]
events = aiter(await client.get("/regions/totals/"))
assert told(await anext(events))["problem"]
os.environ["NATS_SERVER_BINARY"] = "nowhere"
page = await client.post("/regions/")
assert page.status_code == 200
assert "NATS_SERVER_BINARY" in page.content.decode()
assert "Start the three servers" in page.content.decode()
"""
    in_process(tmp_path, code)


def test_counters_are_no_matter_of_migrations(tmp_path: Path) -> None:
    result = run(tmp_path, "-m", "django", "makemigrations", "--check", "--dry-run")
    assert result.returncode == 0, result.stdout
