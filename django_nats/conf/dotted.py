"""Functions that are named by their dotted paths."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

DOTTED_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")


@lru_cache(maxsize=1024)
def function_at(path: str, where: str) -> Callable[..., Any]:
    """Return the function at a dotted path.

    Raises ImproperlyConfigured, which begins with ``where``, if there is none.
    """
    try:
        function = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"{where}: {path!r} cannot be imported: {error}") from error
    if not callable(function):
        kind = type(function).__name__
        raise ImproperlyConfigured(f"{where}: {path!r} is not a function, but {kind}.")
    return function  # type: ignore[no-any-return]
