"""Receipts of uses: what the id of a use holds, so that the use can be refunded.

An id is a signed text. It may pass through the hands of others, who can neither change it nor make
one.
"""

from __future__ import annotations

import secrets
from typing import NamedTuple

from django.core.signing import BadSignature, Signer

_SALT = "django_nats.limits.receipts"
_NONCE_BYTES = 9  # 12 characters


class Receipt(NamedTuple):
    """What is known of one use of a quota. The texts are tokens of subjects."""

    quota: str
    """The quota's name."""
    key: str
    """The tenant."""
    period: str
    n: int
    sequence: int
    """That of the increment in the quota's stream."""
    nonce: str
    """A random text, by which the use differs from all others."""

    def id(self) -> str:
        """Return the text from which read_receipt() makes this receipt."""
        return Signer(salt=_SALT).sign(".".join(map(str, self)))


def new_receipt(quota: str, key: str, period: str, n: int, sequence: int) -> Receipt:
    """Return the receipt of a use that has just been counted."""
    return Receipt(quota, key, period, n, sequence, secrets.token_urlsafe(_NONCE_BYTES))


def read_receipt(id: object, quota: str, where: str) -> Receipt:
    """Return the receipt that an id holds.

    ``where`` is the place that an error message names. Raises TypeError if the id is not a string,
    and ValueError if it is not one that the quota has given.
    """
    if not isinstance(id, str):
        raise TypeError(f"{where}: the id of a use is a string, not {type(id).__name__}")
    if not id:
        raise ValueError(f"{where}: the id is empty, as that of a use that was refused")
    try:
        parts = Signer(salt=_SALT).unsign(id).split(".")
    except (BadSignature, UnicodeEncodeError):
        # The id itself is not shown: with readable keys, it names a tenant.
        raise ValueError(
            f"{where}: this is not the id of a use. Pass the text of Usage.id, unchanged. If "
            "SECRET_KEY has changed, put the earlier key into SECRET_KEY_FALLBACKS."
        ) from None
    name, key, period, n, sequence, nonce = parts
    if name != quota:
        raise ValueError(f"{where}: this is the id of a use of another quota, {name}")
    return Receipt(name, key, period, int(n), int(sequence), nonce)
