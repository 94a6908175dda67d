"""What a limit decides about a hit."""

from __future__ import annotations

import math

from ..exceptions import NatsError
from .rates import Rate


class Decision:
    """Whether a hit is let through, and what the limit's headers say.

    It is true if the hit is let through. A decision is not changed once it is made.
    """

    __slots__ = (
        "allowed",
        "dry_run",
        "error",
        "limit",
        "rate",
        "remaining",
        "reset_after",
        "retry_after",
    )

    def __init__(
        self,
        allowed: bool,
        rate: Rate | None = None,
        remaining: int | None = None,
        reset_after: float = 0.0,
        retry_after: float = 0.0,
        *,
        error: NatsError | None = None,
        dry_run: bool = False,
    ) -> None:
        self.allowed = allowed
        """Whether the hit is let through."""
        self.rate = rate
        """The rate that decides, or None if there is no limit or the server is away.

        If the hit is refused, it is the rate that refuses for the longest time, otherwise the one
        that leaves the least.
        """
        self.limit = None if rate is None else rate.count
        """How many hits that rate lets through in its time."""
        self.remaining = remaining
        """How many more hits it would let through now."""
        self.reset_after = reset_after
        """Seconds until no earlier hit counts any more."""
        self.retry_after = retry_after
        """Seconds until this hit would be let through.

        0 if it is, and if that is not known since there is an error; math.inf if it never will be.
        """
        self.error = error
        """Why the server could not be asked in time, so that FAIL_OPEN has decided; else None."""
        self.dry_run = dry_run
        """Whether the hit would have been refused, and is let through by a dry run."""

    def __bool__(self) -> bool:
        return self.allowed

    def __repr__(self) -> str:
        """Return the verdict in words."""
        what = "allowed" if self.allowed else "refused"
        if self.dry_run:
            what = "would be refused"
        if self.error is not None:
            return f"<Decision {what}: {self.error}>"
        if self.rate is None:
            return f"<Decision {what}: no limit>"
        if math.isinf(self.retry_after):
            return f"<Decision {what} at any time: it costs more than {self.rate}>"
        wait = f", {self.retry_after:.3g} s to wait" if self.retry_after else ""
        return f"<Decision {what}{wait}: {self.remaining} of {self.rate} left>"
