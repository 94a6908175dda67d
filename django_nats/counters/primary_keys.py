"""The text of a primary key in a counter's name, which does not depend on where the key is from."""

from __future__ import annotations

from base64 import b64encode
from datetime import datetime, timezone
from decimal import MAX_PREC, ROUND_HALF_EVEN, ROUND_HALF_UP, Context, Decimal
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.utils.timezone import get_default_timezone, is_naive, make_aware, make_naive


def key_text(field: models.Field[Any, Any], value: Any, database: str) -> str:
    """Return a primary key as text: the same for all values that the database stores as one.

    An object that was created with Decimal("5.5") has that key until it is reloaded, when its key
    is what the database returns, Decimal("5.50"). No query is made. Raises ValueError if the value
    cannot be a key.
    """
    field = target_of(field)
    try:
        # A field with a type of its own need not know what it stores unless it is to store it.
        convert = field.get_prep_value if has_own_type(field) else field.to_python
        return _text(field, convert(value), database)
    except (ValidationError, ArithmeticError) as error:  # a number or a date is out of range
        raise ValueError(*error.args) from error


def target_of(field: models.Field[Any, Any]) -> models.Field[Any, Any]:
    """Return the field whose values a field holds: of another model, if it is a relation."""
    while field.remote_field is not None:
        field = field.target_field  # type: ignore[attr-defined]  # only relations have it
    return field


def holds_several_values(field: models.Field[Any, Any]) -> bool:
    """Return whether a field holds JSON, an array, a range or a mapping."""
    field = target_of(field)
    containers = isinstance(field, models.JSONField) or hasattr(field, "base_field")
    return containers or field.get_internal_type() == "HStoreField"


def has_own_type(field: models.Field[Any, Any]) -> bool:
    """Return whether a field converts what the database returns, to any type."""
    return hasattr(field, "from_db_value")


def _text(field: models.Field[Any, Any], value: Any, database: str) -> str:
    if isinstance(value, str):
        return str.__str__(value)  # an enum's own __str__() may return another text
    if isinstance(value, Decimal):
        return _decimal(field, value, database)
    if isinstance(value, datetime):
        return _moment(value)
    if isinstance(value, float):
        return str(value + 0.0)  # databases find -0.0 by 0.0
    if isinstance(value, (bytes, bytearray, memoryview)):
        return b64encode(value).decode()  # which BinaryField.to_python() reads
    return str(value)


def _decimal(field: models.Field[Any, Any], value: Decimal, database: str) -> str:
    places = getattr(field, "decimal_places", None)
    if places is None:
        text = f"{value:f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    connection = connections[database]
    stored = Decimal(field.get_db_prep_save(value, connection))
    # SQL rounds halves up. SQLite stores all digits, and Django rounds when it reads them.
    rounding = ROUND_HALF_EVEN if connection.vendor == "sqlite" else ROUND_HALF_UP
    context = Context(getattr(field, "max_digits", None) or MAX_PREC, rounding)
    rounded = stored.quantize(Decimal(1).scaleb(-places), context=context)
    return f"{rounded if rounded else abs(rounded):f}"


def _moment(value: datetime) -> str:
    zone = get_default_timezone()  # as DateTimeField takes a naive value when it saves it
    if settings.USE_TZ:
        aware = make_aware(value, zone) if is_naive(value) else value
        return str(aware.astimezone(timezone.utc))
    return str(value if is_naive(value) else make_naive(value, zone))
