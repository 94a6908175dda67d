"""Live totals on the demonstration site's pages, in one process."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.demonstration import in_process, run


def test_a_list_of_articles_takes_one_round_trip(tmp_path: Path) -> None:
    code = """
await client.get("/articles/")
for path in ("/articles/", "/topics/water/", "/live/"):
    before = proxy.round_trips
    assert (await client.get(path)).status_code == 200
    assert proxy.round_trips == before + 1, path
"""
    in_process(tmp_path, code)


@pytest.mark.once
def test_events_are_sent_when_totals_change(tmp_path: Path) -> None:
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
assert not waiting.done(), "unchanged totals are sent again"
await article.views.aincr()
totals = told(await waiting)
assert totals[f"views-{article.pk}"] == "1"
assert (totals["views"], totals["likes"], totals["problem"]) == ("1", "2", "")
"""
    in_process(tmp_path, code)


@pytest.mark.once
def test_a_stream_of_events_ends_with_its_client_and_the_site(tmp_path: Path) -> None:
    code = """
async def follow():
    return aiter(await client.get("/live/totals/"))

scope = (await client.get("/live/totals/")).asgi_request.scope
browser = ApplicationCommunicator(application, scope)
await browser.send_input({"type": "http.request", "body": b"", "more_body": False})
assert (await browser.receive_output(60))["status"] == 200
assert told((await browser.receive_output(60))["body"])
await browser.send_input({"type": "http.disconnect"})
await browser.wait(60)

events = await follow()
await anext(events)
streams.LONGEST_S = 0
assert not [event async for event in await follow()]
streams.LONGEST_S = 600
streams.close()
assert not [event async for event in events]
"""
    in_process(tmp_path, code)


@pytest.mark.once
def test_live_totals_need_asgi(tmp_path: Path) -> None:
    code = """
response = await sync_to_async(Client().get)("/live/totals/")
assert response.status_code == 501
"""
    in_process(tmp_path, code)


@pytest.mark.once
def test_pages_are_served_while_the_counters_are_away(tmp_path: Path) -> None:
    code = """
events = aiter(await client.get("/live/totals/"))
assert not told(await anext(events))["problem"]
server.kill()
settings.NATS_COUNTERS["default"] |= {"DEADLINE": 2, "REQUEST_TIMEOUT": 2}
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


@pytest.mark.once
def test_concurrent_requests_start_the_regions_once(tmp_path: Path) -> None:
    code = """
starts = await asyncio.gather(*(client.post("/regions/") for _ in range(3)))
assert [each.status_code for each in starts] == [302] * 3, starts
for bank in ("north", "south"):
    response = await client.post(f"/regions/{bank}/", headers={"Accept": "application/json"})
    assert response.json() == {bank: "1", "problem": ""}
async for event in aiter(await client.get("/regions/totals/")):
    if told(event).get("river") == "2":
        break
"""
    in_process(tmp_path, code)


@pytest.mark.once
def test_the_regions_page_reports_problems(tmp_path: Path) -> None:
    code = """
page = await client.get("/regions/")
assert "Start the three servers" in page.content.decode()
settings.NATS_COUNTERS["north"] |= {"DEADLINE": 0.2, "REQUEST_TIMEOUT": 0.2}
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


def test_counter_fields_need_no_migrations(tmp_path: Path) -> None:
    result = run(tmp_path, "-m", "django", "makemigrations", "--check", "--dry-run")
    assert result.returncode == 0, result.stdout


def test_the_admin_sorts_articles_by_the_views_of_the_last_snapshot(tmp_path: Path) -> None:
    code = """
from django.contrib.auth.models import User
await client.aforce_login(await User.objects.aget(username="editor"))
article = await Article.objects.alast()
await article.views.aincr(5)
await sync_to_async(call_command)("nats", "counters", "snapshot")
await article.asave()
listed = (await client.get("/admin/magazine/article/?o=-5")).content.decode()
assert [each[0] for each in listed.split('class="field-views">')[1:3]] == ["5", "0"], listed
form = (await client.get(f"/admin/magazine/article/{article.pk}/change/")).content.decode()
assert 'name="title"' in form and 'name="views_total"' not in form
"""
    in_process(tmp_path, code)
