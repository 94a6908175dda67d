"""The API of the magazine: articles as JSON."""

from __future__ import annotations

from django.db.models import Q
from django.http import HttpRequest, JsonResponse
from django.views.decorators.http import require_safe

from testproject.magazine.limits import limited
from testproject.magazine.models import Article


@require_safe
@limited
async def articles(request: HttpRequest) -> JsonResponse:
    """Return all articles."""
    return await _articles(Q())


@require_safe
@limited
async def search(request: HttpRequest) -> JsonResponse:
    """Return the articles with the text of the parameter ``q`` in their title or body."""
    text = request.GET.get("q", "")
    return await _articles(Q(title__icontains=text) | Q(body__icontains=text))


async def _articles(condition: Q) -> JsonResponse:
    found = [
        {"title": each.title, "author": each.author, "url": each.get_absolute_url()}
        async for each in Article.objects.filter(condition)
    ]
    return JsonResponse({"articles": found})
