"""The HTTP methods that a limit counts."""

from __future__ import annotations

from typing import Final

from django.views import View

ALL: Final = None
"""All methods."""
UNSAFE: Final = ("DELETE", "PATCH", "POST", "PUT")
"""The methods that change something."""


def parse_methods(method: object, where: str) -> tuple[str, ...]:
    """Return the methods that a limit counts, in order; none if it counts all.

    ``method`` is a name such as "POST", or a list or tuple of names, or ALL. Raises TypeError or
    ValueError, which names ``where``, for anything else.
    """
    if method is None:
        return ()
    names = [method] if isinstance(method, str) else method
    if not isinstance(names, (list, tuple)) or not all(isinstance(each, str) for each in names):
        raise TypeError(
            f'{where}: method must be a name such as "POST", a list of names, ALL or UNSAFE, '
            f"not {method!r}"
        )
    for each in names or ("",):
        if each.lower() not in View.http_method_names:
            raise ValueError(f"{where}: method is {method!r}, and {each!r} is no HTTP method")
    return tuple(sorted({each.upper() for each in names}))


def covers(methods: tuple[str, ...], method: str | None) -> bool:
    """Return whether a request's method is one of these. HEAD is answered, and counted, as GET."""
    return not methods or method in methods or (method == "HEAD" and "GET" in methods)
