"""The exception of a refused request."""

from __future__ import annotations

import math

from django.core.exceptions import PermissionDenied

from .decision import Decision


class Ratelimited(PermissionDenied):
    """A request was refused by a limit. Django answers it with its page for status 403."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(refusal_text(decision))
        self.decision = decision
        """What the limit decided."""

    def __reduce__(self) -> tuple[type[Ratelimited], tuple[Decision]]:
        """Let copies be made of the decision, not of the text."""
        return type(self), (self.decision,)


def refusal_text(decision: Decision) -> str:
    """Return what a refused client is told: when to try again, and nothing of the limit."""
    if not decision.retry_after or math.isinf(decision.retry_after):
        return "Too many requests."
    return f"Too many requests. Try again in {math.ceil(decision.retry_after)} s."
