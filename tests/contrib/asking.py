"""Requests to views with throttles."""

from __future__ import annotations

from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest

pytest.importorskip("rest_framework")

from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from django_nats.contrib.rest_framework import SimpleRateThrottle


class PerKey(SimpleRateThrottle):
    """Counts all requests together, at a time that stands still."""

    rate = "2/min"
    now = 1_000_000.0
    key = "everyone"

    def get_cache_key(self, request: Any, view: Any) -> Any:
        return self.key

    def timer(self) -> float:
        return self.now


def ask(
    *throttles: type[Any], user: Any = None, scope: str = "", request: Any = None, **meta: str
) -> Any:
    """Return the response of a view with these throttles."""

    class Page(APIView):
        throttle_classes = throttles
        throttle_scope = scope

        def get(self, request: Any) -> Response:
            return Response()

    request = request or APIRequestFactory().get("/", **meta)
    force_authenticate(request, user or AnonymousUser())
    return Page.as_view()(request)


def statuses(count: int, *throttles: type[Any], **options: Any) -> list[int]:
    return [ask(*throttles, **options).status_code for _ in range(count)]


def allowed(throttle: type[SimpleRateThrottle]) -> bool:
    return throttle().allow_request(HttpRequest(), None)
