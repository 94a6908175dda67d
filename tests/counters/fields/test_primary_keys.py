"""A row's counters have one name, whether its key was given or comes from the database."""

from __future__ import annotations

import enum
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from django.apps.registry import Apps
from django.core.management import call_command
from django.db import connection, models
from django.test import override_settings
from django.test.utils import CaptureQueriesContext
from django.utils.safestring import mark_safe

from django_nats.counters import CounterField, Counters
from django_nats.keys import counter_subject
from tests.counters.fields.conftest import committing

if TYPE_CHECKING:
    _CharField = models.CharField[Any, Any]
    _IntegerField = models.IntegerField[Any, Any]
else:
    _CharField, _IntegerField = models.CharField, models.IntegerField

pytestmark = committing


class Mood(str, enum.Enum):
    GLAD = "glad"


class Suit(models.TextChoices):
    HEARTS = "H", "Hearts of gold"


class Colour(enum.Enum):
    RED = "r"


class ColourField(_CharField):
    """Has a Python type of its own, which its to_python() does not know."""

    def get_prep_value(self, value: Any) -> Any:
        return value.value if isinstance(value, Colour) else value

    def from_db_value(self, value: str, *args: object) -> Colour:
        return Colour(value)


class ScoreField(_IntegerField):
    """Stores an integer, and returns it as text."""

    def get_prep_value(self, value: Any) -> Any:
        return int(str(value).removeprefix("score "))

    def from_db_value(self, value: int, *args: object) -> str:
        return f"score {value}"


Make = Callable[[], "models.Field[Any, Any]"]


def money() -> models.Field[Any, Any]:
    return models.DecimalField(max_digits=8, decimal_places=2)


def text() -> models.Field[Any, Any]:
    return models.CharField(max_length=50)


def moment() -> models.Field[Any, Any]:
    return models.DateTimeField()


NOON_IN_TOKYO = datetime(2024, 5, 1, 12, tzinfo=timezone(timedelta(hours=9)))
KEYS: dict[str, tuple[Make, Any, str]] = {
    "a Decimal of a smaller scale": (money, Decimal("5.5"), "5.50"),
    "a Decimal of a larger scale": (money, Decimal("5.5000"), "5.50"),
    "a Decimal in exponents": (money, Decimal("1E+3"), "1000.00"),
    "a Decimal as text": (money, "5.5", "5.50"),
    "a float for a Decimal": (money, 5.5, "5.50"),
    "an aware datetime": (moment, NOON_IN_TOKYO, "2024-05-01 03:00:00+00:00"),
    "a datetime as text": (moment, "2024-05-01T12:00+09:00", "2024-05-01 03:00:00+00:00"),
    "a (str, Enum)": (text, Mood.GLAD, "glad"),
    "a choice": (text, Suit.HEARTS, "H"),
    "a safe string": (text, mark_safe("a<b"), "a<b"),
    "an enum of a field's own": (lambda: ColourField(max_length=9), Colour.RED, "r"),
    "what such a field stores": (lambda: ColourField(max_length=9), "r", "r"),
    "an integer that is returned as text": (ScoreField, 7, "7"),
    "an integer as text": (models.IntegerField, "5", "5"),
    "a float for an integer": (models.IntegerField, 5.0, "5"),
    "a boolean for an integer": (models.IntegerField, True, "1"),
    "an integer for a float": (models.FloatField, 5, "5.0"),
    "a float's negative zero": (models.FloatField, -0.0, "0.0"),
    "a UUID as text": (models.UUIDField, uuid.UUID(int=15).hex.upper(), str(uuid.UUID(int=15))),
    "a datetime for a date": (models.DateField, datetime(2024, 5, 1), "2024-05-01"),
    "a date": (models.DateField, date(2024, 5, 1), "2024-05-01"),
    "a time": (models.TimeField, time(12, 30), "12:30:00"),
    "a duration": (models.DurationField, timedelta(hours=30), "1 day, 6:00:00"),
    "an address": (models.GenericIPAddressField, "2001:0DB8::0001", "2001:db8::1"),
    "bytes": (models.BinaryField, b"\x00\xff", "AP8="),
}
# SQLite stores these with all their digits, so that Django finds their rows only before a reload.
ROUNDED: dict[str, tuple[Make, Any, str]] = {
    "a Decimal that is rounded up": (money, Decimal("5.555"), "5.56"),
    "a Decimal that is rounded to even": (money, Decimal("5.565"), "5.56"),
    "a Decimal below zero that is rounded": (money, Decimal("-0.001"), "0.00"),
}
each_key = pytest.mark.parametrize(("field", "given", "name"), KEYS.values(), ids=KEYS)


@contextmanager
def table(**fields: models.Field[Any, Any]) -> Iterator[Any]:
    """Create the table of a model with a counter, with the given fields."""
    meta = type("Meta", (), {"app_label": "blog", "apps": Apps()})
    attributes = {"__module__": __name__, "Meta": meta, "hits": CounterField(), **fields}
    model = type("Made", (models.Model,), attributes)
    with connection.schema_editor() as editor:
        editor.create_model(model)
    try:
        yield model
    finally:
        with connection.schema_editor() as editor:
            editor.delete_model(model)


def primary(make: Make) -> models.Field[Any, Any]:
    field = make()
    field.primary_key = True
    field._unique = True  # type: ignore[attr-defined]
    return field


@pytest.mark.parametrize(
    ("field", "given", "name"), [*KEYS.values(), *ROUNDED.values()], ids=[*KEYS, *ROUNDED]
)
def test_a_created_row_and_the_same_row_reloaded_have_one_counter(
    counters: Counters, field: Make, given: Any, name: str
) -> None:
    with table(key=primary(field)) as model:
        created = model.objects.create(key=given)
        assert created.hits.incr(5) == 5
        reloaded = model.objects.get()
        assert reloaded.hits.value() == 5
        assert reloaded.hits.name == ("default", "blog", "made", name, "hits")
        assert model.hits.counter(given).value() == 5
        assert model.hits.counter(reloaded.pk).value() == 5


@each_key
def test_a_deleted_row_leaves_no_counter_behind(
    counters: Counters, field: Make, given: Any, name: str
) -> None:
    with table(key=primary(field)) as model:
        created = model.objects.create(key=given)
        created.hits.incr()
        model.objects.get().delete()
        assert counters.total(">") == 0
        created = model.objects.create(key=given)
        model.objects.get().hits.incr()
        created.delete()
        assert counters.total(">") == 0


@each_key
def test_the_key_in_a_subject_finds_the_row(field: Make, given: Any, name: str) -> None:
    with table(key=primary(field)) as model:
        model.objects.create(key=given)
        subject = model.hits.counter_subject(given)
        key = model.hits.pk_of(subject)
        assert model.objects.filter(pk__in=[key]).count() == 1
        assert model.hits.counter_subject(key) == subject


def test_parts_of_a_composite_key_are_named_as_the_database_returns_them(
    counters: Counters,
) -> None:
    whole = models.CompositePrimaryKey("price", "at", "mood")
    with table(pk=whole, price=money(), at=moment(), mood=text()) as model:
        created = model.objects.create(price=Decimal("5.5"), at=NOON_IN_TOKYO, mood=Mood.GLAD)
        created.hits.incr(5)
        reloaded = model.objects.get()
        assert reloaded.hits.value() == 5
        assert reloaded.hits.name[3:-1] == ("5.50", "2024-05-01 03:00:00+00:00", "glad")
        reloaded.delete()
        assert counters.total(">") == 0


def test_a_key_of_another_model_is_named_as_that_models(counters: Counters) -> None:
    apps = Apps()
    meta = type("Meta", (), {"app_label": "blog", "apps": apps})
    made: dict[str, Any] = {}
    for name, target in (("Price", None), ("Tag", "Price"), ("Label", "Tag")):
        key = (
            primary(money)
            if target is None
            else models.OneToOneField(made[target], models.CASCADE, primary_key=True)
        )
        attributes = {"__module__": __name__, "Meta": meta, "key": key, "hits": CounterField()}
        made[name] = type(name, (models.Model,), attributes)
    assert made["Label"].hits.counter_subject(Decimal("5.5")) == "default.blog.label.5=2E50.hits"


def test_a_naive_datetime_is_taken_as_django_saves_it() -> None:
    naive = datetime(2024, 5, 1, 12)
    with table(key=primary(moment)) as model:
        with override_settings(TIME_ZONE="Asia/Tokyo"):
            assert model.hits.counter(naive).name[3] == "2024-05-01 03:00:00+00:00"
        with override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo"):
            assert model.hits.counter(naive).name[3] == "2024-05-01 12:00:00"
            assert model.hits.counter(NOON_IN_TOKYO).name[3] == "2024-05-01 12:00:00"


@pytest.mark.parametrize("given", ["no number", Decimal("1234567890.5"), Decimal("NaN")])
def test_what_no_row_can_have_as_its_key_raises_an_error(given: Any) -> None:
    with (
        table(key=primary(money)) as model,
        pytest.raises(ValueError, match=r"is not a primary key of blog\.Made"),
    ):
        model.hits.counter(given)


BEYOND: list[tuple[Make, str]] = [
    (money, "1e400"),
    (models.DateTimeField, "0001-01-01 00:00:00+23:00"),
    (models.DurationField, "P999999999999D"),
]


@pytest.mark.parametrize(("field", "text"), BEYOND)
def test_a_text_beyond_what_a_column_can_hold_is_no_key(field: Make, text: str) -> None:
    with table(key=primary(field)) as model:
        assert model.hits.pk_of(counter_subject("default", "blog", "made", text, "hits")) is None
        with pytest.raises(ValueError, match=r"is not a primary key of blog\.Made"):
            model.hits.counter(text)


def test_a_decimal_without_a_scale_has_one_name_for_all_its_forms() -> None:
    field = models.DecimalField(primary_key=True)  # allowed by Django's checks from 6.1
    with table(key=field) as model:
        names = {model.hits.counter(Decimal(each)).name[3] for each in ("5.5", "5.50", "0.55E1")}
        assert names == {"5.5"}
        assert model.hits.counter(Decimal("1E+3")).name[3] == "1000"


@pytest.mark.parametrize("given", [Decimal("5.5"), 5], ids=["decimal", "int"])
def test_an_increment_makes_no_query(given: Any) -> None:
    with table(key=primary(money)) as model:
        created = model.objects.create(key=given)
        with CaptureQueriesContext(connection) as queries:
            created.hits.incr()
            model.hits.counter(given).incr()
        assert len(queries) == 0


def test_prune_keeps_rows_whose_keys_have_a_type_of_their_own(
    counters: Counters, monkeypatch: pytest.MonkeyPatch
) -> None:
    with table(key=primary(lambda: ColourField(max_length=9))) as model:
        model.objects.create(key=Colour.RED).hits.incr()
        model.hits.counter("gone").incr()
        monkeypatch.setattr(
            "django_nats.management.counters.prune.fields_of", lambda labels: [model.hits]
        )
        call_command("nats", "counters", "prune", idle=0, verbosity=0)
        assert list(counters.matching(">")) == ["default.blog.made.r.hits"]
