"""``{% load django_nats %}``: a template filter that shows large numbers in a few characters."""

from __future__ import annotations

from django import template
from django.utils.formats import number_format

register = template.Library()

_UNITS = ("", "K", "M", "B", "T")


@register.filter
def compact(value: object) -> str:
    """Return a counter or an integer in a few characters: 999, 1.2K, 34K, 5.6M, 7B, 8T.

    The number is cut off, not rounded, so that the text never claims more than there is. It has
    the decimal separator of the current language. What is not an integer is returned as it is.
    Under FAIL_OPEN, a counter that cannot be read is an empty string.
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
