"""The API of the demonstration site, and the page that shows its limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.demonstration import in_process

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


def test_the_page_follows_how_room_comes_back(tmp_path: Path) -> None:
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
assert full["state"].startswith("Room for one more in ")
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
