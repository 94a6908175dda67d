"""Counters in Django's admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.views.main import ChangeList
from django.http import HttpRequest

from ..exceptions import Unavailable
from .fields import counter_fields
from .query import prefetch_counters

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Admin = ModelAdmin[Any]
else:
    _Admin = object


class CounterAdminMixin(_Admin):
    """For a ModelAdmin with counters in ``list_display``: one round trip for the whole page.

    A page is sorted by the field's snapshot; without one, that is not offered. When the server is
    away, the page comes without counters and says so.
    """

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        base = super().get_changelist(request, **kwargs)
        return type(base.__name__, (_CountedChangeList, base), {})

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        unsorted = {each.name for each in counter_fields(self.model) if not each.snapshot}
        return [each for each in super().get_sortable_by(request) if each not in unsorted]


class _CountedChangeList(ChangeList):
    def get_ordering_field(self, field_name: Any) -> Any:
        for each in counter_fields(self.model):
            if each.name == field_name:
                return each.snapshot
        return super().get_ordering_field(field_name)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        shown = [each.name for each in counter_fields(self.model) if each.name in self.list_display]
        if not shown:
            return
        try:
            prefetch_counters(self.result_list, *shown)
        except Unavailable as error:
            for each in self.result_list:
                for name in shown:
                    getattr(each, name).keep(None)
            self.model_admin.message_user(
                request, f"Counters cannot be read: {error}", messages.WARNING
            )
