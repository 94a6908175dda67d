"""The API of the magazine: lists of articles as JSON, at a limited rate."""

from __future__ import annotations

from math import ceil

from django.db.models import Q
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from testproject.magazine.limits import API, SEARCH_COST
from testproject.magazine.models import Article


@require_safe
async def articles(request: HttpRequest) -> JsonResponse:
    """Return all articles."""
    return await _limited(request, 1, Q())


@require_safe
async def search(request: HttpRequest) -> JsonResponse:
    """Return the articles whose text has the words of the parameter ``q``."""
    words = request.GET.get("q", "")
    return await _limited(request, SEARCH_COST, Q(title__icontains=words) | Q(body__icontains=words))


async def _limited(request, cost, which):
    decision = await API.ahit(request.META["REMOTE_ADDR"], cost)
    if decision:
        found = [
            {"title": each.title, "topic": each.topic, "url": each.get_absolute_url()}
            async for each in Article.objects.filter(which)
        ]
        response = JsonResponse({"articles": found})
    else:
        response = JsonResponse({"problem": "too many"}, status=429)
        response["Retry-After"] = ceil(decision.retry_after)
    response["RateLimit-Limit"] = decision.limit
    response["RateLimit-Remaining"] = decision.remaining
    response["RateLimit-Reset"] = ceil(decision.reset_after)
    return response
