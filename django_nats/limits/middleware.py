"""Middleware that adds the headers of limits to responses that no view has returned."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest
from django.utils.decorators import sync_and_async_middleware

from .responses import with_headers


@sync_and_async_middleware
def limit_headers(get_response: Callable[[HttpRequest], Any]) -> Callable[[HttpRequest], Any]:
    """Add the headers of limits to every response to a request that one of them has counted.

    The decorator does that for the responses of views. Django makes others of exceptions, such as
    Ratelimited with STATUS 403, or Http404.
    """
    if iscoroutinefunction(get_response):

        async def amiddleware(request: HttpRequest) -> Any:
            return with_headers(request, await get_response(request))

        return amiddleware

    def middleware(request: HttpRequest) -> Any:
        return with_headers(request, get_response(request))

    return middleware
