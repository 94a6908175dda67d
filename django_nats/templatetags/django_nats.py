"""``{% load django_nats %}``: numbers of views and likes as pages show them."""

from __future__ import annotations

from django import template
from django.utils.formats import number_format

register = template.Library()

_UNITS = ("", "K", "M", "B", "T")


@register.filter
def compact(value: object) -> str:
    """A counter or an integer in a few characters: 999, 1.2K, 34K, 5.6M, 7B, 8T.

    It is cut, not rounded, so as not to claim what is not reached, and written with the decimal
    separator of the language. What is no integer stays what it is; a counter that cannot be read
    under FAIL_OPEN is empty.
    """
    text = str(value)
    try:
        number = int(text)
    except ValueError:
        return text
    tenths, unit = 10 * abs(number), 0
    while tenths >= 10_000 and unit < len(_UNITS) - 1:
        tenths //= 1000
        unit += 1
    whole, tenth = divmod(tenths, 10)
    shown = f"{whole}.{tenth}" if tenth and whole < 10 else str(whole)
    sign = "-" if number < 0 else ""
    return f"{sign}{number_format(shown, use_l10n=True)}{_UNITS[unit]}"
