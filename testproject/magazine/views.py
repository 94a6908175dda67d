"""The pages of the magazine. Each shows one use of the cache or of counters."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from typing import Any

from django.conf import settings
from django.contrib import messages
from django.core.cache import cache
from django.core.cache.utils import make_template_fragment_key
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.middleware.csrf import get_token
from django.shortcuts import aget_object_or_404, get_object_or_404, redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import get_cache_key
from django.views.decorators.cache import cache_page
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from django_nats.cache import nats_cache
from django_nats.exceptions import DevServerError, Unavailable
from testproject.magazine import almanac as almanacs
from testproject.magazine import bakery, totals
from testproject.magazine import dispatches as dispatch
from testproject.magazine import limits as api_limit
from testproject.magazine.exhibits import EXHIBITS
from testproject.magazine.models import Article, Flag, Topic
from testproject.magazine.sample import EDITOR
from testproject.magazine.streams import stream, ticking
from testproject.magazine.workers import WORKERS

PAGE_SECONDS = 60
SIDEBAR_SECONDS = 30
CSRF_SLOT = "the-token-of-this-reader"
TALLY_SLOT = "<!-- the counters of this moment -->"
"""Placeholders in the page that all readers share. The view replaces them."""
STATS = ("server", "bucket", "entries", "bytes", "hits", "misses", "rtt", "connected")


@require_safe
def home(request: HttpRequest) -> HttpResponse:
    """Show the newest articles, and list the pages of the demonstration."""
    newest, *others = Article.objects.all()[:4] or [None]
    context = {"exhibits": EXHIBITS, "newest": newest, "others": others}
    return render(request, "magazine/home.html", context)


@require_safe
def articles(request: HttpRequest, topic: str | None = None) -> HttpResponse:
    """Show all articles, or those of a topic, with their counters."""
    if topic is not None and topic not in Topic.values:
        raise Http404(f"There is no topic {topic!r}.")
    chosen = [each for each in Topic if topic in (None, each.value)]
    # One query and one round trip for all topics.
    found = Article.objects.with_counters().filter(topic__in=chosen)
    groups = [(each, [one for one in found if one.topic == each]) for each in chosen]
    context = {"groups": groups, "topics": Topic, "topic": topic}
    return render(request, "magazine/articles.html", context)


@require_safe
def latest(request: HttpRequest) -> HttpResponse:
    """Redirect to the newest article."""
    newest = Article.objects.first()
    return redirect(newest or "articles")


@require_http_methods(["GET", "HEAD", "POST"])
def article(request: HttpRequest, slug: str) -> HttpResponseBase:
    """Show an article from the cache. POST deletes its cached page.

    The cached page is shared by all readers. The session, the CSRF token and the counters are not
    part of it, since they differ between readers or change often.
    """
    if request.method == "POST":
        key = get_cache_key(request, method="GET")
        if key is not None:
            cache.delete(key)
        return redirect("article", slug)
    piece = get_object_or_404(Article.objects.with_counters(), slug=slug)
    if request.method == "GET":
        piece.views.incr_later()
    response = rendered_article(request, slug)
    read = request.session.setdefault("read", [])
    if slug not in read:
        read.append(slug)
        request.session.modified = True
    tally = render_to_string("magazine/tally.html", {"article": piece}, request)
    for slot, filling in ((CSRF_SLOT, get_token(request)), (TALLY_SLOT, tally)):
        response.content = response.content.replace(slot.encode(), filling.encode())
    # cache_page allows browsers to cache the page, too. Views of such a page could not be counted,
    # and it could not be deleted.
    response["Cache-Control"] = "no-cache"
    return response


@cache_page(PAGE_SECONDS)
def rendered_article(request: HttpRequest, slug: str) -> HttpResponse:
    """Render an article, with placeholders for the parts that must not be cached."""
    piece = get_object_or_404(Article, slug=slug)
    related = Article.objects.filter(topic=piece.topic).exclude(pk=piece.pk)
    context = {
        "article": piece,
        "related": related,
        "rendered_at": timezone.now(),
        "seconds": PAGE_SECONDS,
        "csrf_slot": CSRF_SLOT,
        "tally_slot": TALLY_SLOT,
    }
    return render(request, "magazine/article.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def almanac(request: HttpRequest) -> HttpResponse:
    """Show all articles by date, with cached figures. POST deletes the figures from the cache."""
    if request.method == "POST":
        cache.delete(make_template_fragment_key("almanac"))
        return redirect("almanac")
    began = time.perf_counter()
    context = {
        "articles": Article.objects.all(),
        "seconds": SIDEBAR_SECONDS,
        # The template calls both functions: the first only if the fragment is not in the cache, the
        # second when the rest of the page has been rendered.
        "almanac": almanacs.compute,
        "elapsed": lambda: (time.perf_counter() - began) * 1000,
    }
    return render(request, "magazine/almanac.html", context)


@require_http_methods(["GET", "HEAD", "POST"])
def reading(request: HttpRequest) -> HttpResponse:
    """Show which articles the reader has opened in this session. POST deletes the session."""
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
    """Show the reports of all harbours, and the time that reading them took."""
    board = await dispatch.board()
    context = {"board": board, "seconds": dispatch.TIMEOUT_S}
    return render(request, "magazine/dispatches.html", context)


@require_safe
async def cache_figures(request: HttpRequest) -> HttpResponse:
    """Show the cache's statistics."""
    stats, problem = await read_stats()
    rtt = stats and stats["rtt"]
    context = {"stats": stats, "problem": problem, "milliseconds": rtt and rtt * 1000}
    return render(request, "magazine/cache.html", context)


@require_safe
async def cache_stats(request: HttpRequest) -> HttpResponse:
    """Return the cache's statistics as JSON, or the status 503 if they cannot be read."""
    stats, problem = await read_stats()
    response = JsonResponse(stats or {"problem": problem}, status=200 if stats else 503)
    response["Cache-Control"] = "no-store"
    return response


async def read_stats() -> tuple[dict[str, Any] | None, str | None]:
    """Return the statistics named in ``STATS`` and None, or None and the reason."""
    try:
        stats = await nats_cache().astats()
    except Unavailable as error:
        return None, str(error)
    return {name: getattr(stats, name) for name in STATS}, None


@require_POST
async def like(request: HttpRequest, slug: str) -> HttpResponse:
    """Count a like."""
    piece = await aget_object_or_404(Article, slug=slug)
    likes = await piece.likes.aincr()
    if likes is None:  # FAIL_OPEN
        changed = {"problem": "The server is unavailable. The like was not counted."}
    else:
        changed = {f"likes-{piece.pk}": str(likes), "problem": ""}
    page = reverse("live") if "live" in request.POST else f"{piece.get_absolute_url()}#tally"
    return answer(request, changed, page)


def answer(request: HttpRequest, changed: totals.Totals, page: str) -> HttpResponse:
    """Return the changed totals as JSON for a script, or a redirect to a page for a form."""
    wanted = request.get_preferred_type(["text/html", "application/json"])
    return JsonResponse(changed) if wanted == "application/json" else redirect(page)


@require_safe
async def live(request: HttpRequest) -> HttpResponse:
    """Show the totals of all articles, which a script keeps up to date."""
    articles = [each async for each in Article.objects.all()]
    context = {"articles": articles, "totals": await totals.of_articles(articles)}
    return render(request, "magazine/live.html", context)


@require_safe
async def live_totals(request: HttpRequest) -> HttpResponseBase:
    """Stream the totals of all articles."""
    articles = [each async for each in Article.objects.all()]
    return stream(request, ticking(partial(totals.of_articles, articles)))


@require_http_methods(["GET", "HEAD", "POST"])
async def regions(request: HttpRequest) -> HttpResponse:
    """Show two regions and their sum. POST starts their servers."""
    if request.method == "POST":
        try:
            await asyncio.to_thread(settings.REGIONS.start)
        except DevServerError as error:
            return render(request, "magazine/regions.html", {"totals": {"problem": str(error)}})
        return redirect("regions")
    running = settings.REGIONS.running
    context = {"running": running, "totals": await totals.of_banks() if running else {}}
    return render(request, "magazine/regions.html", context)


@require_safe
async def regions_totals(request: HttpRequest) -> HttpResponseBase:
    """Stream the totals of both banks and of the river."""
    return stream(request, ticking(totals.of_banks))


@require_POST
async def count(request: HttpRequest, bank: str) -> HttpResponse:
    """Count a reader on a bank."""
    if bank not in totals.BANKS:
        raise Http404(f"The river has no bank {bank!r}.")
    try:
        counted = await totals.readers(bank).aincr()
    except Unavailable as error:
        changed = {"problem": str(error)}
    else:
        changed = {bank: str(counted), "problem": ""}
    return answer(request, changed, reverse("regions"))


@require_safe
async def flags(request: HttpRequest) -> HttpResponse:
    """Show the flags as two worker processes read them."""
    flags = [each async for each in Flag.objects.all()]
    context = {"flags": flags, "workers": WORKERS.names, "pid": os.getpid(), "editor": EDITOR}
    return render(request, "magazine/flags.html", context)


@require_safe
async def flags_seen(request: HttpRequest) -> HttpResponseBase:
    """Stream the reports of the workers."""
    return stream(request, WORKERS.follow())


@require_safe
def limits(request: HttpRequest) -> HttpResponse:
    """Show what the reader's address has used of the API's limit, and the orders of bread."""
    context: dict[str, Any] = {
        "totals": api_limit.usage(request),
        "count": api_limit.COUNT,
        "seconds": api_limit.SECONDS,
        "orders": bakery.orders(request.session),
    }
    try:
        context["villages"] = [
            (slug, bakery.VILLAGES[slug], usage) for slug, usage in bakery.usages().items()
        ]
    except Unavailable as error:
        context["bakery_problem"] = error
    return render(request, "magazine/limits.html", context)


@require_safe
async def limits_usage(request: HttpRequest) -> HttpResponseBase:
    """Stream what the reader's address has used of the API's limit."""
    return stream(request, ticking(partial(api_limit.ausage, request)))


@require_POST
def order(request: HttpRequest, village: str) -> HttpResponse:
    """Order loaves for a village."""
    loaves = request.POST.get("loaves")
    if village not in bakery.VILLAGES or loaves not in ("1", "5"):
        raise Http404("There is no such order.")
    try:
        usage = bakery.order(request.session, village, int(loaves))
    except Unavailable as error:
        messages.error(request, str(error))
    else:
        if not usage:
            name, left = bakery.VILLAGES[village].name, usage.remaining
            messages.error(request, f"{name} may order {left} more in this hour, and not {loaves}.")
    return redirect(f"{reverse('limits')}#bakery")


@require_POST
def give_back(request: HttpRequest) -> HttpResponse:
    """Give the loaves of an order back."""
    try:
        returned = bakery.give_back(request.session, request.POST.get("id", ""))
    except ValueError as error:
        raise Http404(str(error)) from error
    except Unavailable as error:
        messages.error(request, str(error))
    else:
        what = "are back" if returned else "were back already: nothing has changed"
        messages.info(request, f"The loaves {what}.")
    return redirect(f"{reverse('limits')}#bakery")
