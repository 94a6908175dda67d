"""The page on moving from django-ratelimit lists all of its names, and what it says is true."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import django_ratelimit
import pytest
from asgiref.sync import iscoroutinefunction
from django.contrib.auth.models import AnonymousUser, User
from django.core.cache import cache
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from django.utils.decorators import method_decorator
from django.views import View
from django_ratelimit import core, decorators, exceptions, middleware

from django_nats import limits
from django_nats.conf.limits import LIMIT_OPTIONS
from django_nats.limits import request_limits
from django_nats.limits.rates import parse_rate
from tests.limits.conftest import alias, configure, counters, delete_streams, time

__all__ = ["alias", "configure", "counters", "delete_streams", "time"]

PAGE = (
    Path(__file__).resolve().parent.parent / "docs" / "how-to" / "moving-from-django-ratelimit.md"
)
FUNCTIONS = {
    "ratelimit": (decorators.ratelimit, limits.ratelimit),
    "get_usage": (core.get_usage, limits.get_usage),
    "is_ratelimited": (core.is_ratelimited, limits.is_ratelimited),
}


def rows(heading: str) -> dict[str, str]:
    """Return the second cell of each name in the first cells of a table."""
    section = PAGE.read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found: dict[str, str] = {}
    for names, here in re.findall(r"^\| (`.*?) \| (.*?) \|", section, re.M):
        for name in re.findall(r"`([^`]+)`", names):
            assert name not in found, f"{name} is there twice"
            found[name] = here.strip("`")
    return found


SETTINGS, NAMES = rows("Settings"), rows("Names")


# The tables ----------------------------------------------------------------------------------


def test_the_page_lists_exactly_the_settings_of_django_ratelimit() -> None:
    modules = (core, decorators, middleware)
    known = {
        name
        for module in modules
        for name in re.findall(r"RATELIMIT_[A-Z0-9_]+", inspect.getsource(module))
    }
    assert set(SETTINGS) == known


@pytest.mark.parametrize("name", SETTINGS)
def test_the_counterpart_of_a_setting_exists(name: str) -> None:
    assert SETTINGS[name] in {*LIMIT_OPTIONS, "absent"}


def test_the_page_lists_exactly_the_names_of_django_ratelimit() -> None:
    known = {"ALL", "UNSAFE", "Ratelimited", "RatelimitMiddleware"}
    assert known <= {*vars(django_ratelimit), *vars(exceptions), *vars(middleware)}
    for name, (theirs, _) in FUNCTIONS.items():
        known |= {f"{name}({each})" for each in inspect.signature(theirs).parameters}
        known |= {f"{name}.{each}" for each in vars(theirs)}
    assert set(NAMES) == known


@pytest.mark.parametrize("name", NAMES)
def test_the_verdict_on_a_name_is_true(name: str) -> None:
    assert NAMES[name] in ("the same", "differs", "absent")
    ours, argument, attribute = re.findall(r"(\w+)(?:\((\w+)\))?(?:\.(\w+))?", name)[0]
    exists = ours in limits.__all__
    if argument:
        exists = argument in inspect.signature(getattr(limits, ours)).parameters
    elif attribute:
        exists = hasattr(getattr(limits, ours), attribute)
    assert exists is (NAMES[name] != "absent")


@pytest.mark.parametrize("name", ["get_usage", "is_ratelimited"])
def test_the_arguments_of_a_function_are_in_the_same_order(name: str) -> None:
    theirs, ours = FUNCTIONS[name]
    assert list(inspect.signature(ours).parameters) == list(inspect.signature(theirs).parameters)


def test_the_page_lists_all_further_arguments_of_the_decorator() -> None:
    further = set(inspect.signature(limits.ratelimit).parameters) - set(
        inspect.signature(decorators.ratelimit).parameters
    )
    listed = PAGE.read_text().partition("It also takes ")[2].partition(". ")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == further


def test_both_exceptions_are_of_django() -> None:
    assert issubclass(limits.Ratelimited, PermissionDenied)
    assert issubclass(exceptions.Ratelimited, PermissionDenied)


def test_the_same_methods_are_unsafe() -> None:
    assert set(limits.UNSAFE) == set(django_ratelimit.UNSAFE)


# Behaviour, side by side ---------------------------------------------------------------------


@pytest.mark.parametrize("rate", ["5/s", "100/m", "100/5m", "100/300s", "100/300", "0/s", "9/2d"])
def test_rates_mean_the_same(rate: str) -> None:
    assert parse_rate(rate, "here") == core._split_rate(rate)


@pytest.mark.parametrize("rate", ["10/month", "10/minute", "10/x", "10/", "10/5 m"])
def test_what_django_ratelimit_reads_in_part_is_an_error(rate: str) -> None:
    core._split_rate(rate)
    with pytest.raises(ValueError, match=r"^here: the rate '10/"):
        parse_rate(rate, "here")


@pytest.fixture
def side_by_side(monkeypatch: pytest.MonkeyPatch, alias: object, time: Any) -> Iterator[None]:
    """Let both count from zero, in windows that do not end."""
    monkeypatch.setattr(core, "_get_window", lambda value, period: 0)
    cache.clear()
    request_limits._limit.cache_clear()
    yield
    cache.clear()


Decorator = Callable[..., Any]


def theirs(**arguments: Any) -> Any:
    return decorators.ratelimit(**arguments)


def ours(**arguments: Any) -> Any:
    return limits.ratelimit(**arguments, algorithm="fixed")


def page(request: HttpRequest) -> HttpResponse:
    return HttpResponse("limited" if request.limited else "fine")  # type: ignore[attr-defined]


def other(request: HttpRequest) -> HttpResponse:
    return HttpResponse("fine")


def one_for_anonymous(group: str, request: HttpRequest) -> str | None:
    return None if request.user.is_authenticated else "1/d"


def by_path(group: str, request: HttpRequest) -> str:
    return request.path


SHOP = {"group": "shop", "rate": "2/d"}
SCENARIOS: dict[str, Callable[[Decorator], list[Any]]] = {
    "ip": lambda limit: [limit(key="ip", rate="2/d")(page)],
    "user": lambda limit: [limit(key="user", rate="2/d")(page)],
    "user_or_ip": lambda limit: [limit(key="user_or_ip", rate="2/d")(page)],
    "header": lambda limit: [limit(key="header:x-key", rate="2/d")(page)],
    "get": lambda limit: [limit(key="get:q", rate="2/d")(page)],
    "post": lambda limit: [limit(key="post:q", rate="2/d")(page)],
    "a function as key": lambda limit: [limit(key=by_path, rate="2/d")(page)],
    "a path as key": lambda limit: [limit(key=f"{__name__}.by_path", rate="2/d")(page)],
    "a function as rate": lambda limit: [limit(key="ip", rate=one_for_anonymous)(page)],
    "a path as rate": lambda limit: [limit(key="ip", rate=f"{__name__}.one_for_anonymous")(page)],
    "a tuple as rate": lambda limit: [limit(key="ip", rate=(2, 86_400))(page)],
    "no limit": lambda limit: [limit(key="ip", rate=None)(page)],
    "nothing": lambda limit: [limit(key="ip", rate="0/s")(page)],
    "not blocked": lambda limit: [limit(key="ip", rate="2/d", block=False)(page)],
    "one method": lambda limit: [limit(key="ip", rate="1/d", method="POST")(page)],
    "methods": lambda limit: [limit(key="ip", rate="1/d", method=["POST", "put"])(page)],
    "unsafe": lambda limit: [limit(key="ip", rate="1/d", method=django_ratelimit.UNSAFE)(page)],
    "stacked": lambda limit: [
        limit(key="ip", rate="4/d")(limit(key="header:x-key", rate="2/d")(page))
    ],
    "stacked methods": lambda limit: [
        limit(key="ip", rate="3/d", method=["GET", "POST"])(
            limit(key="ip", rate="1/d", method="POST")(page)
        )
    ],
    "two views": lambda limit: [
        limit(key="ip", rate="2/d")(page),
        limit(key="ip", rate="2/d")(other),
    ],
    "one group": lambda limit: [limit(key="ip", **SHOP)(page), limit(key="ip", **SHOP)(other)],
    "one group, two rates": lambda limit: [
        limit(key="ip", **SHOP)(page),
        limit(key="ip", group="shop", rate="3/d")(other),
    ],
    "one group, two methods": lambda limit: [
        limit(key="ip", **SHOP, method=["GET", "POST"])(page),
        limit(key="ip", **SHOP, method="GET")(other),
    ],
    "one group, the same methods": lambda limit: [
        limit(key="ip", **SHOP, method=["GET", "POST"])(page),
        limit(key="ip", **SHOP, method=["POST", "GET"])(other),
    ],
}


def requests() -> Iterator[HttpRequest]:
    """Yield requests that differ in everything that a limit may look at."""
    for method in ("GET", "POST"):
        for path in ("/tea?q=1", "/cups?q=2"):
            for user in (AnonymousUser(), User(pk=1), User(pk=2)):
                for address in ("203.0.113.7", "2001:db8::1", "2001:db8::2"):
                    meta = {"REMOTE_ADDR": address, "HTTP_X_KEY": address[:3]}
                    made: Any = getattr(RequestFactory(), method.lower())
                    request = made(path, {"q": address[-1]} if method == "POST" else None, **meta)
                    request.user = user
                    yield request


def play(views: list[Any], made: Iterable[HttpRequest] | None = None) -> list[str]:
    """Return what becomes of a series of requests, each to all of the views."""
    results = []
    for request in requests() if made is None else made:
        for view in views:
            try:
                results.append(view(request).content.decode())
            except PermissionDenied:
                results.append("refused")
    return results


@pytest.mark.usefixtures("side_by_side")
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_same_requests_are_refused(scenario: str) -> None:
    make = SCENARIOS[scenario]
    assert play(make(ours)) == play(make(theirs))


class Shop(View):
    def get(self, request: HttpRequest) -> HttpResponse:
        return HttpResponse("fine")


class Bar(Shop):
    pass


@pytest.mark.usefixtures("side_by_side")
def test_methods_of_classes_are_refused_the_same() -> None:
    def views(limit: Decorator) -> list[Any]:
        decorate: Any = method_decorator(limit(key="ip", rate="2/d"), name="get")
        made = decorate(type("Shop", (Shop,), {"__module__": limit.__name__}))
        child = type("Child", (made,), {"__module__": limit.__name__})
        return [made.as_view(), child.as_view()]

    assert play(views(ours)) == play(views(theirs))


# What the page says of the differences -------------------------------------------------------


@pytest.mark.usefixtures("side_by_side")
def test_class_based_views_of_a_module_are_counted_apart() -> None:
    def statuses(limit: Decorator) -> list[str]:
        views = [limit(key="ip", rate="1/d")(each.as_view()) for each in (Shop, Bar)]
        return play(views, [RequestFactory().get("/")])

    assert statuses(theirs) == ["fine", "refused"]
    assert statuses(ours) == ["fine", "fine"]


@pytest.mark.usefixtures("side_by_side")
def test_head_counts_as_get() -> None:
    def statuses(limit: Decorator) -> list[str]:
        view = limit(key="ip", rate="1/d", method="GET")(other)
        return play([view], [RequestFactory().head("/"), RequestFactory().head("/")])

    assert statuses(theirs) == ["fine", "fine"]
    assert statuses(ours) == ["fine", "refused"]


@pytest.mark.usefixtures("side_by_side")
def test_mapped_addresses_are_counted_apart() -> None:
    def statuses(limit: Decorator) -> list[str]:
        made = [RequestFactory().get("/", REMOTE_ADDR=f"::ffff:203.0.113.{n}") for n in (1, 2)]
        return play([limit(key="ip", rate="1/d")(other)], made)

    assert statuses(theirs) == ["fine", "refused"]
    assert statuses(ours) == ["fine", "fine"]


@pytest.mark.usefixtures("side_by_side")
def test_usage_differs_only_in_what_was_refused_or_is_to_come() -> None:
    request = RequestFactory().get("/")
    arguments: Any = {"group": "shop", "key": "ip", "rate": "2/d"}

    def usages(get_usage: Any, increment: bool) -> tuple[Any, ...]:
        usage = get_usage(request, **arguments, increment=increment)
        return usage["count"], usage["limit"], usage["should_limit"]

    for counted in (1, 2):
        for get_usage in (limits.get_usage, core.get_usage):
            assert usages(get_usage, True) == (counted, 2, False)
    assert usages(limits.get_usage, False) == (2, 2, True)
    assert usages(core.get_usage, False) == (2, 2, False)
    assert usages(limits.get_usage, True) == (2, 2, True)
    assert usages(core.get_usage, True) == (3, 2, True)


def test_a_decorator_without_a_rate_is_an_error() -> None:
    assert theirs(key="ip")(other)(RequestFactory().get("/")).content == b"fine"
    with pytest.raises(TypeError, match="rate"):
        ours(key="ip")


def test_an_async_view_stays_one() -> None:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse()

    assert not iscoroutinefunction(theirs(key="ip", rate="1/d")(view))
    assert iscoroutinefunction(ours(key="ip", rate="1/d")(view))
