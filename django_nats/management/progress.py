"""A progress bar for long commands."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from django.core.management.base import OutputWrapper

_BAR_WIDTH = 30


class Progress:
    """A progress bar in plain text, shown while the block runs.

    It is written only if standard error is a terminal and the verbosity is above 0. Without a
    total, it shows a count instead of a bar.
    """

    def __init__(
        self, out: OutputWrapper, label: str, total: int | None, options: Mapping[str, Any]
    ) -> None:
        """Prepare a bar. ``options`` are those of the command."""
        self._out = out
        self._label = label
        self._total = total
        self._done = 0
        self._shown = options["verbosity"] > 0 and out.isatty()

    def __enter__(self) -> Progress:
        """Show the empty bar."""
        self.advance(0)
        return self

    def advance(self, count: int) -> None:
        """Show that ``count`` more are done."""
        self._done += count
        if self._total is None:
            self._write(f"\r{self._label} {self._done:,}")
            return
        # Rows may have been added since they were counted.
        self._total = max(self._total, self._done)
        full = _BAR_WIDTH * self._done // max(self._total, 1)
        bar = "#" * full + "." * (_BAR_WIDTH - full)
        self._write(f"\r{self._label} [{bar}] {self._done:,}/{self._total:,}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the line of the bar."""
        self._write("\n")

    def _write(self, text: str) -> None:
        if self._shown:
            self._out.write(text, lambda plain: plain, ending="")
            self._out.flush()
