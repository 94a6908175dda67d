"""The API of the demonstration site, and the page that shows its limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.demonstration import Visitor, in_process, serving

pytestmark = pytest.mark.once

CLOCK = """
from django_nats.client.counters.stream import CounterStream
from testproject.magazine.limits import COUNT, SECONDS

class Clock:
    now = 1_800_000_000.0

CounterStream.now = lambda stream: Clock.now
"""


def test_the_api_refuses_what_exceeds_its_limit(tmp_path: Path) -> None:
    code = """
for left in reversed(range(COUNT)):
    response = await client.get("/api/articles/" if left % 2 else "/api/search/?q=tide")
    assert response.status_code == 200
    assert response["RateLimit-Limit"] == str(COUNT)
    assert response["RateLimit-Remaining"] == str(left)
    assert 0 < int(response["RateLimit-Reset"]) <= 2 * SECONDS
response = await client.get("/api/articles/")
assert response.status_code == 429
assert response["RateLimit-Remaining"] == "0"
assert 0 < int(response["Retry-After"]) <= 2 * SECONDS
other = await sync_to_async(Client().get)("/api/articles/", REMOTE_ADDR="198.51.100.7")
assert other.status_code == 200
"""
    in_process(tmp_path, CLOCK + code)


def test_a_forged_address_does_not_help(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        left = []
        for number in range(5):
            visitor = Visitor(site)
            visitor.opener.addheaders = [("X-Forwarded-For", f"198.51.100.{number}")]
            with visitor.opener.open(f"{site.url}/api/articles/", timeout=60) as response:
                left.append(response.headers["RateLimit-Remaining"])
    assert min(left) < max(left)


def test_the_api_lists_and_searches_articles(tmp_path: Path) -> None:
    code = """
response = await client.get("/api/articles/")
listed = response.json()["articles"]
assert len(listed) == await Article.objects.acount()
assert {"title": "Slack Water", "author": "Hanne Vik", "url": "/articles/slack-water/"} in listed
response = await client.get("/api/search/?q=harbour master")
assert [each["title"] for each in response.json()["articles"]] == ["Slack Water"]
response = await client.post("/api/articles/")
assert response.status_code == 405
"""
    in_process(tmp_path, CLOCK + code)


def test_the_page_shows_what_is_used_without_using_any(tmp_path: Path) -> None:
    code = """
async def page():
    return (await client.get("/limits/")).content.decode()

assert f"0</b> <span>of {COUNT} used" in await page()
assert ">Empty</span>" in await page()
await client.get("/api/articles/")
assert f"1</b> <span>of {COUNT} used" in await page()
assert 'value="1"' in await page()
for path in ("/api/articles/", "/api/search/"):  # without JavaScript, its forms lead there
    assert f'<form action="{path}"' in await page()
"""
    in_process(tmp_path, CLOCK + code)


def test_the_page_follows_how_the_limit_recovers(tmp_path: Path) -> None:
    code = """
events = aiter(await client.get("/limits/usage/"))

async def next_with(**expected):
    async for event in events:
        found = told(event)
        if expected.items() <= found.items():
            return found

await next_with(used="0", state="Empty", problem="")
for _ in range(COUNT + 2):
    await client.get("/api/articles/")
full = await next_with(used=str(COUNT))
assert full["state"].startswith("Next request allowed in ")
Clock.now += SECONDS
half = await next_with(problem="")
assert 0 < int(half["used"]) < COUNT
assert half["state"].startswith("Empty again in ")
Clock.now += SECONDS
await next_with(used="0", state="Empty")
"""
    in_process(tmp_path, CLOCK + code)


def test_the_api_answers_every_request_while_the_counters_are_away(tmp_path: Path) -> None:
    code = """
events = aiter(await client.get("/limits/usage/"))
assert not told(await anext(events))["problem"]
server.kill()
settings.NATS_COUNTERS["default"] |= {"REQUEST_TIMEOUT": 2}
assert told(await anext(events))["problem"]
for _ in range(COUNT + 1):
    response = await client.get("/api/articles/")
    assert response.status_code == 200
    assert "RateLimit-Limit" not in response
page = await client.get("/limits/")
assert page.status_code == 200
assert "the API answers every request" in page.content.decode()
server.start()
async for event in events:
    if not told(event)["problem"]:
        break
"""
    in_process(tmp_path, CLOCK + code)


BAKERY = """
import re

async def page():
    return (await client.get("/limits/")).content.decode()

async def order(village, loaves):
    response = await client.post(f"/bakery/{village}/order/", {"loaves": loaves})
    if response.status_code == 302:
        assert response.url == "/limits/#bakery"
    return response

async def give_back(id):
    return await client.post("/bakery/give-back/", {"id": id})
"""


def test_a_village_gets_no_more_loaves_than_its_quota(tmp_path: Path) -> None:
    code = """
assert "6 left until 09:00" in await page()
await order("saltings", 5)
assert "1 left until 09:00" in await page()
await order("saltings", 5)
assert "Saltings may order 1 more in this hour, and not 5." in await page()
await order("saltings", 1)
assert "0 left until 09:00" in await page()
assert "12 left until 09:00" in await page()
Clock.now += 3600
assert "6 left until 10:00" in await page()
for village, loaves in (("atlantis", 1), ("saltings", 6), ("saltings", "")):
    assert (await order(village, loaves)).status_code == 404
assert (await client.get("/bakery/saltings/order/")).status_code == 405
"""
    in_process(tmp_path, CLOCK + BAKERY + code)


def test_concurrent_orders_do_not_exceed_the_quota(tmp_path: Path) -> None:
    code = """
await asyncio.gather(*(order("nether-ambry", 5) for _ in range(4)))
await asyncio.gather(*(order("nether-ambry", 1) for _ in range(12)))
assert "12</b> <span>of 12 loaves" in await page()
"""
    in_process(tmp_path, CLOCK + BAKERY + code)


def test_an_order_is_given_back_once(tmp_path: Path) -> None:
    code = """
await order("saltings", 5)
await order("nether-ambry", 1)
shown = await page()
assert "5 loaves for Saltings" in shown
assert "1 loaf for Nether Ambry" in shown
newest, oldest = re.findall('name="id" value="([^"]+)"', shown)
for message in ("The loaves are back.", "The loaves were back already"):
    assert (await give_back(oldest)).url == "/limits/#bakery"
    shown = await page()
    assert message in shown
    assert "6 left until 09:00" in shown
    assert "11 left until 09:00" in shown
assert "5 loaves for Saltings, given back" in shown
for id in ("", newest[:-1], "nonsense"):
    assert (await give_back(id)).status_code == 404
assert "11 left until 09:00" in await page()
"""
    in_process(tmp_path, CLOCK + BAKERY + code)


def test_another_reader_sees_the_orders_of_a_village_but_not_whose_they_are(tmp_path: Path) -> None:
    code = """
await order("saltings", 5)
client.cookies.clear()
shown = await page()
assert "1 left until 09:00" in shown
assert 'name="id"' not in shown
"""
    in_process(tmp_path, CLOCK + BAKERY + code)


def test_the_bakery_reports_that_the_counters_are_away(tmp_path: Path) -> None:
    code = """
await order("saltings", 5)
[id] = re.findall('name="id" value="([^"]+)"', await page())
settings.NATS_COUNTERS["default"] |= {"DEADLINE": 0.5, "REQUEST_TIMEOUT": 0.5}
server.kill()
assert "The orders cannot be read." in await page()
for post in (order("saltings", 1), give_back(id)):
    assert (await post).status_code == 302
    shown = await page()
    assert 'class="notice" role="status"' in shown
server.start()
"""
    in_process(tmp_path, CLOCK + BAKERY + code)
