"""The demonstration site, started and visited as by a user."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.error import URLError
from urllib.request import Request

import pytest

from tests.support.demonstration import Site, Visitor, number, serving, start_regions, total

STATS = {"server", "bucket", "entries", "bytes", "hits", "misses", "rtt", "connected"}


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


def test_the_site_prints_its_url(site: Site) -> None:
    assert site.url in site.log.read_text()


def test_every_page_that_the_home_page_links_to_opens(visitor: Visitor) -> None:
    home = visitor.get("/")
    paths = set(re.findall(r'href="(/[^"#]*)', home))
    assert {"/almanac/", "/articles/latest/", "/cache/", "/dispatches/", "/reading/"} <= paths
    assert {"/articles/", "/flags/", "/limits/", "/live/", "/regions/"} <= paths
    for path in paths:
        assert visitor.get(path)


@pytest.mark.parametrize(
    "path",
    [
        "/topics/maps/",
        "/admin/login/",
        "/static/magazine/limits.js",
        "/static/magazine/site.js",
        "/static/magazine/stats.js",
        "/static/magazine/totals.js",
    ],
)
def test_other_pages_open(visitor: Visitor, path: str) -> None:
    assert visitor.get(path)


def test_every_page_has_an_icon_and_browsers_find_it_for_the_admin_as_well(
    visitor: Visitor,
) -> None:
    [path] = re.findall(r'<link rel="icon" href="([^"]+)"', visitor.get("/"))
    assert visitor.get(path).startswith("<svg ")
    assert visitor.get("/favicon.ico") == visitor.get(path)


def test_an_unknown_topic_is_not_found(visitor: Visitor) -> None:
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


def test_browsers_must_revalidate_an_article(visitor: Visitor) -> None:
    with visitor.opener.open(visitor.site.url + "/articles/slack-water/", timeout=60) as response:
        assert response.headers["Cache-Control"] == "no-cache"


def test_a_cached_page_contains_no_data_of_one_reader(site: Site, visitor: Visitor) -> None:
    path = "/articles/keeping-the-light/"
    other = Visitor(site)
    pages = {reader: reader.get(path) for reader in (visitor, other)}
    assert moment(pages[visitor], "rendered") == moment(pages[other], "rendered")
    for reader, page in pages.items():
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        assert found
        assert reader.post(path, found[1])  # another reader's token would be refused


def test_the_sidebar_is_computed_once_until_it_is_dropped(visitor: Visitor) -> None:
    assert re.search(r"<dt>Words in print</dt><dd>\d,\d{3}</dd>", visitor.get("/almanac/"))
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


def test_the_dispatch_board_is_served_from_the_cache(visitor: Visitor) -> None:
    boards = [visitor.get("/dispatches/") for _ in range(3)]
    # Earlier reports may expire before the second visit, but not before the third.
    assert any("All 20 reports came from the cache" in board for board in boards[1:])
    assert boards[0].count(" rising<") + boards[0].count(" falling<") == 20


def test_views_of_a_cached_page_are_counted(site: Site, visitor: Visitor) -> None:
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


def test_head_requests_are_not_counted_as_views(visitor: Visitor) -> None:
    path = "/articles/the-river-that-changed-its-mind/"
    name = f"views-{number('the-river-that-changed-its-mind')}"
    before = total(visitor.get(path), name)
    with visitor.following("/live/totals/") as events:
        assert any(int(event[name]) == before for event in events)
        with visitor.opener.open(Request(visitor.site.url + path, method="HEAD"), timeout=60):
            pass
        visitor.get(path)
        assert next(views for event in events if (views := int(event[name])) > before) == before + 1


def test_a_like_appears_on_all_pages_at_once(site: Site, visitor: Visitor) -> None:
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
def test_a_like_without_javascript_redirects_to_its_page(
    visitor: Visitor, fields: dict[str, str], page: str
) -> None:
    likes = f"likes-{number('the-four-oclock-loaf')}"
    before = total(visitor.get("/live/"), likes)
    with visitor.submit("/articles/the-four-oclock-loaf/like/", **fields) as response:
        assert response.url == visitor.site.url + page
        assert total(response.read().decode(), likes) == before + 1


def test_a_like_needs_post_and_a_csrf_token(visitor: Visitor) -> None:
    path = "/articles/keeping-the-light/like/"
    with pytest.raises(URLError, match="405"):
        visitor.get(path)
    visitor.get("/live/")
    with pytest.raises(URLError, match="403"):
        visitor.post(path, "x" * 64)


def test_two_regions_are_summed(site: Site, visitor: Visitor) -> None:
    start_regions(visitor)
    start_regions(visitor)  # a second start does nothing
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


def test_the_statistics_page_reports_hits_and_the_bucket(visitor: Visitor) -> None:
    visitor.get("/articles/slack-water/")
    before: dict[str, Any] = json.loads(visitor.get("/cache/stats.json"))
    visitor.get("/articles/slack-water/")
    after: dict[str, Any] = json.loads(visitor.get("/cache/stats.json"))
    assert set(after) == STATS
    assert after["bucket"] == "testproject"
    assert after["connected"] is True
    assert after["entries"] > 0
    assert 0 < after["rtt"] < 10  # TESTPROJECT_TIMEOUT
    assert after["hits"] > before["hits"]
