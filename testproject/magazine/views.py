from __future__ import annotations

import time
from typing import Any

from django.core.cache import cache, caches
from django.core.cache.utils import make_template_fragment_key
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import get_object_or_404, redirect, render
from django.utils import timezone
from django.utils.cache import get_cache_key
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_http_methods, require_safe

from django_nats.exceptions import Unavailable
from testproject.magazine import almanac as almanacs
from testproject.magazine import dispatches as dispatch
from testproject.magazine.exhibits import EXHIBITS
from testproject.magazine.models import Article, Topic

PAGE_SECONDS = 60
SIDEBAR_SECONDS = 30
CSRF_SLOT = "the-token-of-this-reader"
"""Stands in the page that all readers share."""
STATS = ("server", "bucket", "entries", "bytes", "hits", "misses", "rtt", "connected")


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    newest, *others = Article.objects.all()[:4] or [None]
    context = {"exhibits": EXHIBITS, "newest": newest, "others": others}
    return render(request, "magazine/home.html", context)


@require_safe
def articles(request: HttpRequest, topic: str | None = None) -> HttpResponse:
    if topic is not None and topic not in Topic.values:
        raise Http404(f"There is no topic {topic!r}.")
    chosen = [each for each in Topic if topic in (None, each.value)]
    groups = [(each, Article.objects.filter(topic=each)) for each in chosen]
    context = {"groups": groups, "topics": Topic, "topic": topic}
    return render(request, "magazine/articles.html", context)


@require_safe
def latest(request: HttpRequest) -> HttpResponse:
    newest = Article.objects.first()
    return redirect(newest or "articles")


@require_http_methods(["GET", "HEAD", "POST"])
def article(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Show an article from the cache; POST drops its cached page.

    What belongs to one reader (the session, the CSRF token) is done here, outside of the page
    that every reader shares.
    """
    if request.method == "POST":
        key = get_cache_key(request, method="GET")
        if key is not None:
            cache.delete(key)
        return redirect("article", slug)
    response = rendered_article(request, slug)
    read = request.session.setdefault("read", [])
    if slug not in read:
        read.append(slug)
        request.session.modified = True
    token = get_token(request).encode()
    response.content = response.content.replace(CSRF_SLOT.encode(), token)
    # cache_page lets browsers keep the page too, where it can be neither counted nor dropped.
    response["Cache-Control"] = "no-cache"
    return response


@cache_page(PAGE_SECONDS)
def rendered_article(request: HttpRequest, slug: str) -> HttpResponse:
    piece = get_object_or_404(Article, slug=slug)
    related = Article.objects.filter(topic=piece.topic).exclude(pk=piece.pk)
    context = {
        "article": piece,
        "related": related,
        "rendered_at": timezone.now(),
        "seconds": PAGE_SECONDS,
        "csrf_slot": CSRF_SLOT,
    }
    return render(request, "magazine/article.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def almanac(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        cache.delete(make_template_fragment_key("almanac"))
        return redirect("almanac")
    began = time.perf_counter()
    context = {
        "articles": Article.objects.all(),
        "seconds": SIDEBAR_SECONDS,
        # Both are called by the template: the first only if the fragment is not in the cache,
        # the second when the rest of the page is done.
        "almanac": almanacs.compute,
        "elapsed": lambda: (time.perf_counter() - began) * 1000,
    }
    return render(request, "magazine/almanac.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def reading(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        request.session.flush()
        return redirect("reading")
    known = Article.objects.in_bulk(request.session.get("read", []), field_name="slug")
    read = [known[slug] for slug in reversed(request.session.get("read", [])) if slug in known]
    unread = Article.objects.exclude(slug__in=known)
    context = {"read": read, "unread": unread, "total": len(read) + len(unread)}
    return render(request, "magazine/reading.html", context)


@require_safe
async def dispatches(request: HttpRequest) -> HttpResponse:
    board = await dispatch.board()
    context = {"board": board, "seconds": dispatch.TIMEOUT}
    return render(request, "magazine/dispatches.html", context)


@require_safe
async def live(request: HttpRequest) -> HttpResponse:
    stats, problem = await read_stats()
    context = {"stats": stats, "problem": problem, "milliseconds": stats and stats["rtt"] * 1000}
    return render(request, "magazine/cache.html", context)


@require_safe
async def cache_stats(request: HttpRequest) -> HttpResponse:
    stats, problem = await read_stats()
    response = JsonResponse(stats or {"problem": problem}, status=200 if stats else 503)
    response["Cache-Control"] = "no-store"
    return response


async def read_stats() -> tuple[dict[str, Any] | None, str | None]:
    """Return the figures of ``STATS`` and None, or None and why there are none."""
    try:
        stats = await caches["default"].astats()  # type: ignore[attr-defined]
    except Unavailable as error:
        return None, str(error)
    return {name: getattr(stats, name) for name in STATS}, None
