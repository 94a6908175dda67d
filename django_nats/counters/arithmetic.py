"""What a counter is not: an int that can be calculated with."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NoReturn


class NoArithmetic:
    """A base that raises TypeErrors which say how to calculate with a counter's total."""

    __slots__ = ()

    # Type checkers would accept an operator that they see, although it raises.
    if not TYPE_CHECKING:

        def __add__(self, other):
            return self._refuse(other, "int(counter) + …")

        def __radd__(self, other):
            return self._refuse(other, "… + int(counter)")

        def __sub__(self, other):
            return self._refuse(other, "int(counter) - …")

        def __rsub__(self, other):
            return self._refuse(other, "… - int(counter)")

        def __mul__(self, other):
            return self._refuse(other, "int(counter) * …")

        def __rmul__(self, other):
            return self._refuse(other, "… * int(counter)")

        def __truediv__(self, other):
            return self._refuse(other, "int(counter) / …")

        def __rtruediv__(self, other):
            return self._refuse(other, "… / int(counter)")

        def __floordiv__(self, other):
            return self._refuse(other, "int(counter) // …")

        def __rfloordiv__(self, other):
            return self._refuse(other, "… // int(counter)")

        def __mod__(self, other):
            return self._refuse(other, "int(counter) % …")

        def __rmod__(self, other):
            return self._refuse(other, "… % int(counter)")

        def __neg__(self):
            _raise("-int(counter)")

    def _refuse(self, other: object, instead: str) -> Any:
        if isinstance(other, (int, float, Decimal, Fraction, NoArithmetic)):
            _raise(instead)
        return NotImplemented  # a list times a counter, for example


def _raise(instead: str) -> NoReturn:
    raise TypeError(
        f"A counter is not an int. Write {instead} to calculate with its total, and use incr() or "
        "decr() to change it."
    )
