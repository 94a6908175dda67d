"""Packages that record what changes in a row. NATS is not configured: they must not need it."""

from __future__ import annotations

import pytest
from auditlog.models import LogEntry
from django.db import NotSupportedError

from tests.neighbours.models import Audited, Misrecorded, Mistracked, Recorded, Tracked

pytestmark = pytest.mark.django_db


def test_simple_history_records_columns_only() -> None:
    row = Recorded.objects.create(title="On engines")
    row.title = "On looms"
    row.save()
    assert [each.title for each in row.history.order_by("history_id")] == ["On engines", "On looms"]
    latest, first = row.history.order_by("-history_id")
    assert [each.field for each in latest.diff_against(first).changes] == ["title"]
    assert first.instance.title == "On engines"
    assert first.instance.pk == row.pk
    assert "views" not in {each.name for each in Recorded.history.model._meta.get_fields()}
    row.delete()
    assert Recorded.history.filter(history_type="-").count() == 1


def test_a_field_tracker_follows_columns_only() -> None:
    row = Tracked.objects.create(title="On engines")
    row.title = "On looms"
    assert row.tracker.changed() == {"title": "On engines"}
    row.save()
    assert row.tracker.changed() == {}
    assert set(row.tracker.fields) == {"id", "title"}


def test_auditlog_records_columns_only() -> None:
    row = Audited.objects.create(title="On engines")
    row.title = "On looms"
    row.save()
    row.delete()
    entries = LogEntry.objects.order_by("id")
    assert [each.action for each in entries] == [
        *(LogEntry.Action.CREATE, LogEntry.Action.UPDATE, LogEntry.Action.DELETE)
    ]
    assert not [each for each in entries if "views" in each.changes_dict]
    assert entries[1].changes_dict == {"title": ["On engines", "On looms"]}


def test_a_counter_among_excluded_fields_breaks_historical_instances() -> None:
    row = Misrecorded.objects.create(title="On engines")
    row.save()
    with pytest.raises(NotSupportedError, match="is a counter, not a column"):
        _ = row.history.first().instance


def test_a_field_tracker_of_a_counter_breaks_saved_objects() -> None:
    with pytest.raises(ValueError, match="Save the Mistracked before you use its views"):
        Mistracked.objects.create(pk=1)
