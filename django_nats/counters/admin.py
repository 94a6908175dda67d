"""Counters in Django's admin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from django.contrib import messages
from django.contrib.admin.views.main import ChangeList
from django.db.models import Model, QuerySet, prefetch_related_objects
from django.db.models.constants import LOOKUP_SEP
from django.http import HttpRequest, HttpResponse

from ..exceptions import Unavailable
from .bound import BoundCounter
from .fields import counter_at
from .nameless import NamelessCounter
from .query import CounterQuerySet, Group, prefetch_groups

if TYPE_CHECKING:
    from django.contrib.admin import ModelAdmin

    _Admin = ModelAdmin[Any]
else:
    _Admin = object

UNKNOWN = "Counters that are shown as - cannot be read at the moment. The log says why."


class CounterAdminMixin(_Admin):
    """A mixin for a ModelAdmin with counters in ``list_display`` or ``readonly_fields``.

    Each page reads its counters in one round trip, those of related objects in a list
    ("author__followers") included. A list is sorted by the column that the field's ``snapshot``
    names. Without one, the admin does not offer to sort by the counter. When the server is
    unavailable, lists and forms come without counters and show a message. Inlines need no mixin of
    their own.
    """

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Return the objects without their counters, which only lists and forms read."""
        # Other pages, such as that for deletion, must not depend on the server.
        return _without_counters(super().get_queryset(request))

    def get_formset_kwargs(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Return the arguments of an inline's formset, whose objects come without counters."""
        arguments: dict[str, Any] = super().get_formset_kwargs(*args, **kwargs)
        return {**arguments, "queryset": _without_counters(arguments["queryset"])}

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        """Return the list's class, extended to read counters and to sort by their snapshots."""
        base = super().get_changelist(request, **kwargs)
        return type(base.__name__, (_CountedChangeList, base), {})

    def get_sortable_by(self, request: HttpRequest) -> list[Any]:
        """Return the columns to sort by: all but counters without a snapshot."""
        return [
            each
            for each in super().get_sortable_by(request)
            if (field := counter_at(self.model, each)) is None or field.snapshot
        ]

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Read the counters that the form and its inlines show, then render it."""
        form = context["adminform"]
        groups = _groups([form.form.instance], form.readonly_fields)
        for inline in context["inline_admin_formsets"]:
            objects = [each.instance for each in inline.formset.initial_forms]
            groups += _groups(objects, inline.readonly_fields)
        _read(self, request, groups)
        return super().render_change_form(request, context, *args, **kwargs)


class _CountedChangeList(ChangeList):
    def get_ordering_field(self, field_name: Any) -> Any:
        field = counter_at(self.model, field_name)
        if field is not None:
            relation, sep, _ = field_name.rpartition(LOOKUP_SEP)
            return f"{relation}{sep}{field.snapshot}" if field.snapshot else None
        return super().get_ordering_field(field_name)

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        _read(self.model_admin, request, _groups(self.result_list, self.list_display))
        for path in self.list_display:
            if isinstance(path, str) and LOOKUP_SEP in path and counter_at(self.model, path):
                _mark_unknown(self.result_list, path)


def _mark_unknown(rows: Iterable[Model], path: str) -> None:
    """Let unknown totals of related objects be shown as other empty values are.

    Before Django 6.1, the admin shows what a path leads to without asking the field at its end
    which values are empty. It prefers an attribute of the row that has the path for a name.
    """
    for row in rows:
        found: Any = row
        for name in path.split(LOOKUP_SEP):
            found = getattr(found, name, None)
        if isinstance(found, BoundCounter) and found._kept() == (None,):
            vars(row)[path] = None


def _without_counters(objects: QuerySet[Any]) -> QuerySet[Any]:
    return objects.without_counters() if isinstance(objects, CounterQuerySet) else objects


def _groups(objects: Iterable[Model], shown: Iterable[Any]) -> list[Group]:
    """Return the objects, and objects related to them, with the names of the counters shown."""
    rows = [each for each in objects if not each._state.adding]
    names: dict[str, list[str]] = {}
    for each in shown if rows else ():
        if isinstance(each, str):
            relation, _, name = each.rpartition(LOOKUP_SEP)
            field = counter_at(type(rows[0]), each)
            if field is not None and field.name == name:
                names.setdefault(relation, []).append(name)
    return [(_related(rows, relation), counters) for relation, counters in names.items()]


def _related(objects: Sequence[Model], relation: str) -> Sequence[Model]:
    """Return the objects at the end of a path of relations to one object each."""
    for name in relation.split(LOOKUP_SEP) if relation else ():
        prefetch_related_objects(objects, name)
        found = [getattr(each, name, None) for each in objects]
        objects = [each for each in found if each is not None]
    return objects


def _read(admin: ModelAdmin[Any], request: HttpRequest, groups: Sequence[Group]) -> None:
    """Read the counters that a page shows. If some cannot be read, say so on the page."""
    try:
        prefetch_groups(groups)
    except Unavailable as error:
        for objects, names in groups:
            for each in objects:
                for name in names:
                    getattr(each, name).keep(None)
        admin.message_user(request, f"Counters cannot be read: {error}", messages.WARNING)
    else:
        shown = (
            getattr(each, name) for objects, names in groups for each in objects for name in names
        )
        if any(each._kept() == (None,) for each in shown if not isinstance(each, NamelessCounter)):
            # With FAIL_OPEN, the error does not come here.
            admin.message_user(request, UNKNOWN, messages.WARNING)
