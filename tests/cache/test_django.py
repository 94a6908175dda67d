"""The parts of Django that use a cache: sessions, pages, template fragments and aliases."""

from __future__ import annotations

import itertools
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.core.cache import InvalidCacheBackendError, caches
from django.core.cache import cache as default_cache
from django.core.cache.utils import make_template_fragment_key
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, HttpResponse
from django.template import engines
from django.test import AsyncClient, Client, override_settings
from django.urls import path
from django.utils.module_loading import import_string
from django.views.decorators.cache import cache_page, never_cache
from django.views.decorators.vary import vary_on_headers

from django_nats.cache import NatsCache, nats_cache, nats_caches
from django_nats.devserver import NatsServer
from tests.cache.conftest import Left
from tests.conftest import PATIENT, api

served = itertools.count(1)


def numbered(request: HttpRequest) -> HttpResponse:
    """Return a page that differs each time it is rendered."""
    return HttpResponse(f"made {next(served)}")


def visits(request: HttpRequest) -> HttpResponse:
    request.session["visits"] = request.session.get("visits", 0) + 1
    return HttpResponse(request.session["visits"])


def look(request: HttpRequest) -> HttpResponse:
    return HttpResponse(request.session.get("visits", "a stranger"))


async def async_visits(request: HttpRequest) -> HttpResponse:
    visited = await request.session.aget("visits", 0) + 1
    await request.session.aset("visits", visited)
    return HttpResponse(visited)


def log_out(request: HttpRequest) -> HttpResponse:
    request.session.flush()
    return HttpResponse()


urlpatterns = [
    path("numbered/", numbered),
    path("cached/", cache_page(60)(numbered)),
    path("cached-elsewhere/", cache_page(60, cache="pages", key_prefix="p")(numbered)),
    path("cached-by-shape/", cache_page(60)(vary_on_headers("X-Shape")(numbered))),
    path("never/", never_cache(numbered)),
    path("visits/", visits),
    path("look/", look),
    path("async-visits/", async_visits),
    path("log-out/", log_out),
]


@pytest.fixture(autouse=True)
def project(server: NatsServer) -> Iterator[None]:
    """Configure two aliases, each with a bucket of its own, and the URLs above."""
    bucket = f"test_{secrets.token_hex(6)}"

    def alias(name: str, **more: Any) -> dict[str, Any]:
        return {
            "BACKEND": "django_nats.cache.NatsCache",
            "LOCATION": server.url,
            "OPTIONS": {"BUCKET": f"{bucket}_{name}", "TOKEN": server.token, **PATIENT},
            **more,
        }

    entries = {"default": alias("default"), "pages": alias("pages", KEY_PREFIX="p", TIMEOUT=60)}
    with override_settings(CACHES=entries, ROOT_URLCONF=__name__):
        yield
        for each in nats_caches().values():
            api(each, f"STREAM.DELETE.{each.bucket.config.stream}")


def test_caches_and_nats_caches_find_aliases_by_name() -> None:
    default, pages = caches["default"], caches["pages"]
    assert (default.alias, pages.alias) == ("default", "pages")
    assert nats_caches() == {"default": default, "pages": pages}
    default_cache.set("key", 1)
    assert default.get("key") == 1
    assert pages.get("key") is None
    pages.set("key", 2)
    assert pages.ttl("key") == Left(60)
    assert (default.get("key"), pages.get("key")) == (1, 2)


def test_the_connection_outlives_requests() -> None:
    client = Client()
    client.get("/cached/")
    session = caches["default"].session
    assert session.connected
    client.get("/cached/")  # Django closes every cache after every request
    assert caches["default"].session is session
    assert session.connected


class TestPages:
    def test_cache_page_serves_a_cached_page_until_the_cache_is_cleared(self) -> None:
        client = Client()
        first = client.get("/cached/")
        assert client.get("/cached/").content == first.content
        assert client.get("/cached/?page=2").content != first.content
        assert "max-age=60" in first["Cache-Control"]
        assert client.head("/cached/").status_code == 200
        assert client.post("/cached/").content != first.content
        pages = caches["default"].keys("views.decorators.cache.cache_page.*")
        assert [caches["default"].ttl(page) for page in pages] == [Left(60), Left(60)]
        caches["default"].clear()
        assert client.get("/cached/").content != first.content

    def test_cache_page_uses_the_alias_it_is_given(self) -> None:
        client = Client()
        first = client.get("/cached-elsewhere/")
        assert client.get("/cached-elsewhere/").content == first.content
        assert caches["default"].keys() == []
        assert len(caches["pages"].keys("views.decorators.cache.*")) == 2

    def test_pages_that_vary_on_a_header_are_cached_separately(self) -> None:
        client = Client()
        pages = [
            client.get("/cached-by-shape/", headers={"X-Shape": shape}).content
            for shape in ("round", "square", "round", "square")
        ]
        assert pages[:2] == pages[2:]
        assert pages[0] != pages[1]

    def test_the_cache_middleware_caches_pages(self) -> None:
        middleware = [
            "django.middleware.cache.UpdateCacheMiddleware",
            "django.middleware.cache.FetchFromCacheMiddleware",
        ]
        with override_settings(MIDDLEWARE=middleware, CACHE_MIDDLEWARE_ALIAS="pages"):
            client = Client()
            first = client.get("/numbered/")
            assert client.get("/numbered/").content == first.content
            assert client.get("/never/").content != client.get("/never/").content
            assert len(caches["pages"].keys()) == 2

    async def test_a_cached_page_is_served_under_asgi(self) -> None:
        client = AsyncClient()
        first = await client.get("/cached/")
        assert (await client.get("/cached/")).content == first.content


class TestFragments:
    template = "{% load cache %}{% cache 60 part who %}{{ number }}{% endcache %}"

    def render(self, who: str, **context: Any) -> str:
        template = engines["django"].from_string(self.template)
        return template.render({"who": who, **context})

    def test_a_fragment_is_rendered_once_for_each_value_it_varies_on(self) -> None:
        assert self.render("ada", number=1) == "1"
        assert self.render("ada", number=2) == "1"
        assert self.render("eve", number=3) == "3"
        caches["default"].delete(make_template_fragment_key("part", ["ada"]))
        assert self.render("ada", number=4) == "4"
        assert self.render("eve", number=5) == "3"

    def test_fragments_use_the_alias_template_fragments(self) -> None:
        with override_settings(
            CACHES={**settings.CACHES, "template_fragments": settings.CACHES["pages"]}
        ):
            assert self.render("ada", number=1) == "1"
            assert caches["default"].keys() == []
            assert len(caches["pages"].keys("template.cache.part.*")) == 1

    def test_a_fragment_uses_the_alias_it_names(self) -> None:
        template = engines["django"].from_string(
            '{% load cache %}{% cache 60 part using="pages" %}x{% endcache %}'
        )
        assert template.render() == "x"
        assert len(caches["pages"].keys("template.cache.part.*")) == 1


@pytest.fixture(params=["cache", "cached_db"])
def engine(request: pytest.FixtureRequest, db: None) -> Iterator[str]:
    middleware = ["django.contrib.sessions.middleware.SessionMiddleware"]
    name = f"django.contrib.sessions.backends.{request.param}"
    with override_settings(SESSION_ENGINE=name, MIDDLEWARE=middleware):
        yield name


@pytest.fixture
def store(engine: str) -> type[SessionBase]:
    found: type[SessionBase] = import_string(f"{engine}.SessionStore")
    return found


def cached_sessions() -> list[str]:
    return list(caches["default"].iter_keys("django.contrib.sessions.*"))


@pytest.mark.django_db
class TestSessions:
    def test_a_session_lasts_from_request_to_request(self, engine: str) -> None:
        one, other = Client(), Client()
        assert [one.get("/visits/").content for _ in range(3)] == [b"1", b"2", b"3"]
        assert other.get("/visits/").content == b"1"
        assert len(cached_sessions()) == 2
        one.get("/log-out/")
        assert one.get("/visits/").content == b"1"
        assert other.get("/visits/").content == b"2"
        assert len(cached_sessions()) == 2

    @pytest.mark.django_db(transaction=True)
    async def test_a_session_lasts_from_request_to_request_under_asgi(self, engine: str) -> None:
        client = AsyncClient()
        pages = [(await client.get("/async-visits/")).content for _ in range(3)]
        assert pages == [b"1", b"2", b"3"]

    def test_a_session_store_saves_expires_cycles_and_deletes(
        self, store: type[SessionBase]
    ) -> None:
        session = store()
        session["name"] = "ada"
        session.set_expiry(100)
        session.save()
        key = session.session_key
        assert store(key)["name"] == "ada"
        (cached,) = cached_sessions()
        assert caches["default"].ttl(cached) == Left(100)
        session.cycle_key()
        assert not store().exists(key)
        assert store(session.session_key)["name"] == "ada"
        session.delete()
        assert cached_sessions() == []
        assert not store().exists(session.session_key)

    def test_a_session_with_the_key_of_another_cannot_be_created(
        self, store: type[SessionBase]
    ) -> None:
        first = store()
        first.create()
        second = store()
        second._session_key = first.session_key
        with pytest.raises(CreateError):
            second.save(must_create=True)

    def test_a_session_that_was_deleted_is_not_saved_again(self, store: type[SessionBase]) -> None:
        session = store()
        session.create()
        store().delete(session.session_key)
        session["late"] = True
        with pytest.raises(UpdateError):
            session.save()
        assert cached_sessions() == []

    def test_cached_db_survives_an_empty_cache(self, engine: str) -> None:
        client = Client()
        client.get("/visits/")
        caches["default"].clear()
        assert client.get("/visits/").content == (b"2" if engine.endswith("cached_db") else b"1")

    @pytest.mark.parametrize("storage", ["file", "memory"])
    @pytest.mark.parametrize("fail_open", [True, False], ids=["fails open", "raises"])
    def test_only_cached_db_with_fail_open_keeps_visitors_logged_in_during_an_outage(
        self, engine: str, fail_open: bool, storage: str, own_server: NatsServer
    ) -> None:
        entry = {
            "BACKEND": "django_nats.cache.NatsCache",
            "LOCATION": own_server.url,
            "OPTIONS": {
                "TOKEN": own_server.token,
                "STORAGE": storage,
                "FAIL_OPEN": fail_open,
                **PATIENT,
            },
        }
        client = Client(raise_request_exception=False)
        with override_settings(CACHES={"default": entry}):
            assert client.get("/visits/").content == b"1"
            own_server.kill()
            during = client.get("/look/")
            kept = bool(client.cookies["sessionid"].value)
        if engine.endswith("cached_db"):
            assert (during.status_code, kept) == (200 if fail_open else 500, True)
            assert during.content == b"1" or not fail_open
        else:
            assert (during.status_code, during.content, kept) == (200, b"a stranger", False)


def test_nats_caches_finds_subclasses_and_skips_broken_aliases(server: NatsServer) -> None:
    path_of_subclass = f"{__name__}.Subclass"
    entry = {**settings.CACHES["default"], "BACKEND": path_of_subclass}
    with override_settings(CACHES={"default": entry, "other": {"BACKEND": "no.such.Backend"}}):
        assert [type(each) for each in nats_caches().values()] == [Subclass]


def test_nats_cache_returns_the_cache_of_an_alias() -> None:
    assert nats_cache() is caches["default"]
    assert nats_cache("pages") is caches["pages"]


def test_nats_cache_refuses_an_alias_with_another_backend() -> None:
    local = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
    with override_settings(CACHES={"default": local}):
        with pytest.raises(
            ImproperlyConfigured, match=r'CACHES\["default"\] is a LocMemCache, not'
        ):
            nats_cache()
        with pytest.raises(InvalidCacheBackendError, match="nowhere"):
            nats_cache("nowhere")


class Subclass(NatsCache):
    pass
