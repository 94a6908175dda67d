"""Counters in the admin, as its pages show them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.http import HttpRequest
from django.test import Client, override_settings
from django.urls import path

from django_nats.counters import Counters
from django_nats.counters.admin import CounterAdminMixin
from django_nats.devserver import NatsServer
from tests.blog.models import Article, Author, Product
from tests.support.proxy import Proxy

from .conftest import Configure

pytestmark = pytest.mark.django_db

site = admin.AdminSite()
plain_site = admin.AdminSite("plain")
counting_site = admin.AdminSite("counting")


@admin.register(Article, site=site)
class ArticleAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("title", "views", "likes")
    list_editable = ("title",)
    list_display_links = None
    readonly_fields = ("views",)


@admin.register(Product, site=site)
class ProductAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "sold")


class ArticleInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Article
    readonly_fields = ("views",)


@admin.register(Author, site=site)
class AuthorAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    inlines = (ArticleInline,)


class _Counting(admin.ModelAdmin):  # type: ignore[type-arg]
    """As Django's own is when the model's manager reads counters."""

    def get_queryset(self, request: HttpRequest) -> Any:
        return Article.objects.with_counters()


@admin.register(Article, site=counting_site)
class CountingAdmin(CounterAdminMixin, _Counting):
    list_display = ("title",)


@admin.register(Article, site=plain_site)
class PlainAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("title", "views")
    sortable_by = ("title",)


urlpatterns = [
    path("admin/", site.urls),
    path("plain/", plain_site.urls),
    path("counting/", counting_site.urls),
]


@pytest.fixture
def client() -> Iterator[Client]:
    client = Client()
    client.force_login(User.objects.create_superuser("ada"))
    templates = [
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {
                "context_processors": [
                    "django.template.context_processors.request",
                    "django.contrib.auth.context_processors.auth",
                    "django.contrib.messages.context_processors.messages",
                ]
            },
        }
    ]
    middleware = [
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "django.contrib.messages.middleware.MessageMiddleware",
    ]
    with override_settings(ROOT_URLCONF=__name__, TEMPLATES=templates, MIDDLEWARE=middleware):
        yield client


def page(client: Client, url: str) -> str:
    response = client.get(url)
    assert response.status_code == 200, url
    return response.content.decode()


def column(html: str, name: str) -> list[str]:
    return re.findall(rf'<td class="field-{name}">([^<]*)</td>', html)


def make(count: int) -> None:
    for number in range(count):
        Article.objects.create(pk=number + 1).views.set(1000 * number)


def test_a_change_list_is_one_round_trip(
    client: Client, server: NatsServer, configure: Configure, counters: Counters
) -> None:
    make(30)
    with Proxy(server.port) as proxy:
        configure(LOCATION=proxy.url)
        Counters().get_many(["warm-up"])
        before = proxy.round_trips
        html = page(client, "/admin/blog/article/")
        assert proxy.round_trips - before == 1
    assert column(html, "views") == [str(1000 * number) for number in reversed(range(30))]
    assert column(html, "likes") == ["0"] * 30


def test_without_the_mixin_it_works_too(client: Client, counters: Counters) -> None:
    make(2)
    assert column(page(client, "/plain/blog/article/"), "views") == ["1000", "0"]


def test_what_cannot_be_sorted_is_not_offered(client: Client, counters: Counters) -> None:
    make(1)
    html = page(client, "/admin/blog/article/?o=2.3")
    assert "sortable column-title" in html
    assert not re.search("sortable column-(views|likes)", html)


def test_it_is_sorted_by_the_snapshot(client: Client, counters: Counters) -> None:
    for total in (2, 3, 1):
        Product.objects.create(sold_total=total).sold.set(10 * total)
    html = page(client, "/admin/blog/product/?o=-2")
    assert "sortable column-sold" in html
    assert column(html, "sold") == ["30", "20", "10"]


def test_a_counter_is_read_only(client: Client, counters: Counters) -> None:
    make(2)
    html = page(client, "/admin/blog/article/2/change/")
    assert '<div class="readonly">1000</div>' in html
    assert "Since it was published" in html
    assert 'name="title"' in html
    assert 'name="views"' not in html
    assert 'name="likes"' not in html
    assert '<div class="readonly">-</div>' in page(client, "/admin/blog/article/add/")


def test_a_list_is_edited_beside_counters(client: Client, counters: Counters) -> None:
    make(1)
    form = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": 1, "form-0-title": "New"}
    client.post("/admin/blog/article/", {**form, "_save": "Save"})
    assert Article.objects.get().title == "New"


def test_the_list_comes_without_counters_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2)
    make(1)
    own_server.kill()
    html = page(client, "/admin/blog/article/")
    assert "Counters cannot be read: The counter stream" in html
    assert column(html, "views") == ["-"]


def test_a_form_comes_without_counters_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2)
    make(2)
    own_server.kill()
    html = page(client, "/admin/blog/article/2/change/")
    assert "Counters cannot be read: The counter stream" in html
    assert '<div class="readonly">-</div>' in html
    form = {"title": "New", "author": Author.objects.create().pk}
    assert client.post("/admin/blog/article/2/change/", form).status_code == 302
    assert Article.objects.get(pk=2).title == "New"
    html = client.post("/admin/blog/article/2/change/", {"title": ""}).content.decode()
    assert "This field is required" in html


def test_inlines_come_without_counters_too(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server, CONNECT_TIMEOUT=0.2)
    author = Author.objects.create()
    Article.objects.create(author=author).views.incr(77)
    url = f"/admin/blog/author/{author.pk}/change/"
    assert "<p>77</p>" in page(client, url)
    own_server.kill()
    assert "<p>-</p>" in page(client, url)


def test_nothing_is_read_that_a_page_does_not_show(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    """Not even where the model's manager always reads counters."""
    configure(on=own_server, CONNECT_TIMEOUT=0.2)
    make(2)
    own_server.kill()
    for url in ("/counting/blog/article/", "/counting/blog/article/2/change/"):
        assert "Counters cannot be read" not in page(client, url)
    selected = {"action": "delete_selected", "_selected_action": "2"}
    assert client.post("/counting/blog/article/", selected).status_code == 200
