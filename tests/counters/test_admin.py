"""Counters in the pages of the admin."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib import admin
from django.contrib.auth.models import User
from django.db import connection
from django.http import HttpRequest
from django.test import Client, override_settings
from django.test.utils import CaptureQueriesContext
from django.urls import path

from django_nats.client import process
from django_nats.counters import Counters
from django_nats.counters.admin import CounterAdminMixin
from django_nats.devserver import NatsServer
from tests.blog.models import Article, Author, Booking, Letter, Place, Product, Restaurant, Tag
from tests.support.proxy import Proxy

from .conftest import Configure

pytestmark = pytest.mark.django_db

DAY = dt.datetime(2026, 11, 29, tzinfo=dt.timezone.utc)

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


class LetterInline(admin.TabularInline):  # type: ignore[type-arg]
    model = Letter
    readonly_fields = ("answers",)


@admin.register(Author, site=site)
class AuthorAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    inlines = (ArticleInline, LetterInline)


@admin.register(Booking, site=site)
class BookingAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "restaurant__meals", "restaurant__visits", "product__sold")


@admin.register(Place, site=site)
class PlaceAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("id", "visits", "restaurant__meals")


@admin.register(Tag, site=site)
class TagAdmin(CounterAdminMixin, admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("name", "uses")
    readonly_fields = ("uses",)


class _Counting(admin.ModelAdmin):  # type: ignore[type-arg]
    """An admin class whose queryset always reads counters, as a model's manager may."""

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


def test_a_change_list_reads_all_counters_in_one_round_trip(
    client: Client, server: NatsServer, configure: Configure, counters: Counters
) -> None:
    make(30)
    with Proxy(server.port) as proxy:
        configure(LOCATION=proxy.url)
        Counters().get_many(["warm-up"])
        before = proxy.round_trips
        html = page(client, "/admin/blog/article/")
        assert proxy.round_trips - before == 1
        process.close()
    assert column(html, "views") == [str(1000 * number) for number in reversed(range(30))]
    assert column(html, "likes") == ["0"] * 30


def test_a_change_list_shows_counters_without_the_mixin(client: Client, counters: Counters) -> None:
    make(2)
    assert column(page(client, "/plain/blog/article/"), "views") == ["1000", "0"]


def test_counters_without_a_snapshot_are_not_sortable(client: Client, counters: Counters) -> None:
    make(1)
    html = page(client, "/admin/blog/article/?o=2.3")
    assert "sortable column-title" in html
    assert not re.search("sortable column-(views|likes)", html)


def test_a_counter_with_a_snapshot_is_sorted_by_it(client: Client, counters: Counters) -> None:
    for total in (2, 3, 1):
        Product.objects.create(sold_total=total).sold.set(10 * total)
    html = page(client, "/admin/blog/product/?o=-2")
    assert "sortable column-sold" in html
    assert column(html, "sold") == ["30", "20", "10"]


def test_a_form_shows_counters_as_read_only(client: Client, counters: Counters) -> None:
    make(2)
    html = page(client, "/admin/blog/article/2/change/")
    assert '<div class="readonly">1000</div>' in html
    assert "Since it was published" in html
    assert 'name="title"' in html
    assert 'name="views"' not in html
    assert 'name="likes"' not in html
    assert '<div class="readonly">-</div>' in page(client, "/admin/blog/article/add/")


def test_an_editable_list_with_counters_is_saved(client: Client, counters: Counters) -> None:
    make(1)
    form = {"form-TOTAL_FORMS": 1, "form-INITIAL_FORMS": 1, "form-0-id": 1, "form-0-title": "New"}
    client.post("/admin/blog/article/", {**form, "_save": "Save"})
    assert Article.objects.get().title == "New"


def test_a_change_list_is_shown_without_counters_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server)
    make(1)
    own_server.kill()
    html = page(client, "/admin/blog/article/")
    assert "Counters cannot be read: The counter stream" in html
    assert column(html, "views") == ["-"]


@pytest.mark.parametrize("url", ["/admin/blog/article/", "/admin/blog/article/2/change/"])
def test_a_page_says_with_fail_open_too_that_counters_are_missing(
    client: Client, own_server: NatsServer, configure: Configure, url: str
) -> None:
    configure(on=own_server, FAIL_OPEN=True)
    make(2)
    assert "cannot be read" not in page(client, url)
    own_server.kill()
    assert "Counters that are shown as - cannot be read at the moment" in page(client, url)


def test_a_form_is_shown_and_saved_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server)
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


def test_a_form_with_inlines_reads_all_counters_in_one_round_trip(
    client: Client, server: NatsServer, configure: Configure, counters: Counters
) -> None:
    author = Author.objects.create()
    Article.objects.create(author=author).views.incr(77)
    letter = Letter.objects.create(author=author, day=DAY.date(), arrived=DAY)
    letter.answers.incr(78)
    with Proxy(server.port) as proxy:
        configure(LOCATION=proxy.url)
        Counters().get_many(["warm-up"])
        before = proxy.round_trips
        html = page(client, f"/admin/blog/author/{author.pk}/change/")
        assert proxy.round_trips - before == 1
        process.close()
    assert "<p>77</p>" in html
    assert "<p>78</p>" in html


def test_inlines_are_shown_without_counters_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server)
    author = Author.objects.create()
    Article.objects.create(author=author).views.incr(77)
    url = f"/admin/blog/author/{author.pk}/change/"
    assert "<p>77</p>" in page(client, url)
    own_server.kill()
    assert "<p>-</p>" in page(client, url)


def test_a_page_reads_no_counters_that_it_does_not_show(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    """Even if the model's manager always reads counters."""
    configure(on=own_server)
    make(2)
    own_server.kill()
    for url in ("/counting/blog/article/", "/counting/blog/article/2/change/"):
        assert "Counters cannot be read" not in page(client, url)
    selected = {"action": "delete_selected", "_selected_action": "2"}
    assert client.post("/counting/blog/article/", selected).status_code == 200


# Counters of related objects -----------------------------------------------------------------


def make_bookings(count: int) -> None:
    for number in range(1, count + 1):
        restaurant, product = Restaurant.objects.create(), Product.objects.create(sold_total=number)
        restaurant.meals.set(10 * number)
        restaurant.visits.set(20 * number)
        product.sold.set(30 * number)
        Booking.objects.create(restaurant=restaurant, product=product)


def test_counters_of_related_objects_are_read_in_one_round_trip(
    client: Client, server: NatsServer, configure: Configure, counters: Counters
) -> None:
    make_bookings(5)
    Booking.objects.create()
    with Proxy(server.port) as proxy:
        configure(LOCATION=proxy.url)
        Counters().get_many(["warm-up"])
        before = proxy.round_trips
        with CaptureQueriesContext(connection) as few:
            html = page(client, "/admin/blog/booking/")
        assert proxy.round_trips - before == 1
        process.close()
    assert column(html, "restaurant__meals") == ["-", "50", "40", "30", "20", "10"]
    assert column(html, "restaurant__visits") == ["-", "100", "80", "60", "40", "20"]
    assert column(html, "product__sold") == ["-", "150", "120", "90", "60", "30"]
    configure()
    make_bookings(5)
    with CaptureQueriesContext(connection) as many:
        page(client, "/admin/blog/booking/")
    assert len(many) == len(few)


def test_related_counters_are_sorted_by_their_snapshots_only(
    client: Client, counters: Counters
) -> None:
    make_bookings(3)
    for order in ("2.3", "-2.-3"):
        html = page(client, f"/admin/blog/booking/?o={order}")
        assert not re.search("sortable column-restaurant", html)
        assert "sortable column-product__sold" in html
    assert column(page(client, "/admin/blog/booking/?o=4"), "product__sold") == ["30", "60", "90"]
    assert column(page(client, "/admin/blog/booking/?o=-4"), "product__sold") == ["90", "60", "30"]


def test_related_counters_are_dashes_while_the_server_is_away(
    client: Client, own_server: NatsServer, configure: Configure
) -> None:
    configure(on=own_server)
    make_bookings(2)
    own_server.kill()
    html = page(client, "/admin/blog/booking/")
    assert "Counters cannot be read: The counter stream" in html
    assert column(html, "restaurant__meals") == ["-", "-"]
    assert column(html, "product__sold") == ["-", "-"]


def test_counters_of_a_row_that_another_one_points_to_are_shown(
    client: Client, counters: Counters
) -> None:
    Place.objects.create().visits.set(1)
    restaurant = Restaurant.objects.create()
    restaurant.visits.set(2)
    restaurant.meals.set(3)
    html = page(client, "/admin/blog/place/")
    assert column(html, "visits") == ["2", "1"]
    assert column(html, "restaurant__meals") == ["3", "-"]


# Rows that cannot have a counter -------------------------------------------------------------


def test_a_row_whose_key_is_too_long_for_a_counter_is_shown_with_a_dash(
    client: Client, counters: Counters
) -> None:
    for name in ("short", "é" * 200):
        Tag.objects.create(name=name)
    Tag.objects.get(name="short").uses.incr(7)
    assert sorted(column(page(client, "/admin/blog/tag/"), "uses")) == ["-", "7"]
    html = page(client, f"/admin/blog/tag/{quote('é' * 200)}/change/")
    assert '<div class="readonly">-</div>' in html
