"""Counters in Django's admin."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet
from django.http import HttpRequest, HttpResponse

from ..exceptions import Unavailable
from .fields import counter_fields
from .query import CounterQuerySet, prefetch_counters

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Admin = ModelAdmin[Any]
else:
    _Admin = object


class CounterAdminMixin(_Admin):
    """For a ModelAdmin with counters in ``list_display`` or ``readonly_fields``: one round trip.

    A list is sorted by the field's snapshot; without one, that is not offered. When the server is
    away, lists and forms come without counters and say so. Inlines need no mixin of their own.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        found = super().get_queryset(request)
        # Pages that show no counters, as that for deletion, do without the server.
        return found.without_counters() if isinstance(found, CounterQuerySet) else found

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        base = super().get_changelist(request, **kwargs)
        return type(base.__name__, (_CountedChangeList, base), {})

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        unsorted = {each.name for each in counter_fields(self.model) if not each.snapshot}
        return [each for each in super().get_sortable_by(request) if each not in unsorted]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        fieldsets = [context["adminform"]]
        objects = [[context["adminform"].form.instance]]
        for inline in context["inline_admin_formsets"]:
            fieldsets.append(inline)
            objects.append([form.instance for form in inline.formset.initial_forms])
        for fieldset, shown in zip(fieldsets, objects, strict=True):
            _read(self, request, shown, fieldset.readonly_fields)
        return super().render_change_form(request, context, *args, **kwargs)


class _CountedChangeList(ChangeList):
    def get_ordering_field(self, field_name: Any) -> Any:
        for each in counter_fields(self.model):
            if each.name == field_name:
                return each.snapshot
        return super().get_ordering_field(field_name)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        _read(self.model_admin, request, self.result_list, self.list_display)


def _read(
    admin: ModelAdmin[Any], request: HttpRequest, objects: Iterable[Model], shown: Iterable[Any]
) -> None:
    """Read the counters that a page shows, or have it say why it cannot."""
    rows = [each for each in objects if not each._state.adding]
    if not rows:
        return
    counters = {each.name for each in counter_fields(type(rows[0]))}
    names = [each for each in shown if isinstance(each, str) and each in counters]
    if not names:
        return
    try:
        prefetch_counters(rows, *names)
    except Unavailable as error:
        for each in rows:
            for name in names:
                getattr(each, name).keep(None)
        admin.message_user(request, f"Counters cannot be read: {error}", messages.WARNING)
