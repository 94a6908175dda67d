"""Tests that are skipped for a reason that is given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import skip


def skip_excused(excused: Mapping[tuple[type[Any], str], str]) -> None:
    """Skip tests, given by class and name, with a reason. The run fails if any other is skipped."""
    for (case, test), why in excused.items():
        setattr(case, test, skip(why)(getattr(case, test)))
