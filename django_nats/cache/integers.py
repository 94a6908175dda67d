"""Adding to integers, as in Django's cache API.

``django_nats.counters`` is faster if many processes add to one number: the server adds it up.
"""

from __future__ import annotations

from ..client.kv.entry import Entry, Write
from ..client.protocol.steps import Steps
from .core import MISSING, Core


class Integers(Core):
    """Operations that read an integer and store the sum, by compare-and-set."""

    def incr(  # type: ignore[override]  # Django's never returns None
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int | None:
        """Add delta to an integer of any size. Return the new value. The timeout stays as it is.

        No update is lost: a caller repeats its change if another one has changed the key meanwhile.

        Raise TypeError if the value is not an integer, and ValueError if the key has no value. With
        ``ignore_key_check``, store delta instead in that case, without a timeout. FAIL_OPEN: None.
        """
        return self._run(
            self._incr(key, delta, version, ignore_key_check=ignore_key_check), away=None
        )

    async def aincr(  # type: ignore[override]
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int | None:
        """Async version of incr()."""
        return await self._arun(
            self._incr(key, delta, version, ignore_key_check=ignore_key_check), away=None
        )

    def _incr(
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> Steps[int]:
        made_key = self.make_and_validate_key(key, version=version)
        if not isinstance(delta, int):
            raise TypeError(f"delta must be an integer, not {type(delta).__name__}")

        def decide(entry: Entry | None) -> Steps[tuple[Write | None, int]]:
            value = self._value(made_key, entry)
            if entry is None or value is MISSING:
                if not ignore_key_check:
                    raise ValueError(f"Key {key!r} not found")
                return self._write(made_key, int(delta), None), int(delta)
            if type(value) is not int:
                raise TypeError(
                    f"The value of {key!r} is of type {type(value).__name__}, not an integer"
                )
            total = value + delta
            return self._write_keeping_expiry(made_key, total, entry), total
            yield  # makes this a generator, as change() expects

        return (yield from self._bucket.change(made_key, decide))

    def decr(  # type: ignore[override]
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int | None:
        """Subtract delta from an integer, as incr() adds it. Return the new value.

        FAIL_OPEN: None.
        """
        return self._run(
            self._decr(key, delta, version, ignore_key_check=ignore_key_check), away=None
        )

    async def adecr(  # type: ignore[override]
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> int | None:
        """Async version of decr()."""
        return await self._arun(
            self._decr(key, delta, version, ignore_key_check=ignore_key_check), away=None
        )

    def _decr(
        self,
        key: str,
        delta: int = 1,
        version: int | None = None,
        *,
        ignore_key_check: bool = False,
    ) -> Steps[int]:
        steps = self._incr(key, -delta, version, ignore_key_check=ignore_key_check)
        return (yield from steps)
