"""A bar that shows how far a long command is, to who looks on."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from django.core.management.base import OutputWrapper

_WIDTH = 30


class Progress:
    """Plain text on a terminal's standard error, nothing anywhere else or at verbosity 0.

    Without a total only what is done is counted.
    """

    def __init__(
        self, out: OutputWrapper, label: str, total: int | None, options: Mapping[str, Any]
    ) -> None:
        self._out = out
        self._label = label
        self._total = total
        self._done = 0
        self._shown = options["verbosity"] > 0 and out.isatty()

    def __enter__(self) -> Progress:
        self.advance(0)
        return self

    def advance(self, count: int) -> None:
        self._done += count
        if self._total is None:
            self._write(f"\r{self._label} {self._done:,}")
            return
        # More may be found than there were at first.
        self._total = max(self._total, self._done)
        full = _WIDTH * self._done // max(self._total, 1)
        bar = "#" * full + "." * (_WIDTH - full)
        self._write(f"\r{self._label} [{bar}] {self._done:,}/{self._total:,}")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._write("\n")

    def _write(self, text: str) -> None:
        if self._shown:
            self._out.write(text, lambda plain: plain, ending="")
            self._out.flush()
