"""Keys of limits and quotas: what users are told apart by, and the tokens of subjects made of them.

A key may be personal data, such as an address, and comes from requests. So a subject holds a keyed
hash of it: BLAKE2b (RFC 7693), with a key that is derived from SECRET_KEY.
"""

from __future__ import annotations

import base64
import re
from contextlib import suppress
from functools import lru_cache
from hashlib import blake2b
from uuid import UUID

from django.conf import settings
from django.core.signals import setting_changed
from django.db.models import Model

from ..exceptions import InvalidKey
from ..keys import text_of_token, token

MAX_READABLE_BYTES = 128
"""The length of the longest readable token."""
_HASH_BYTES = 15  # 20 characters of base64, without padding
_A_HASH = re.compile(r"(=h)?[-\w]{20}", re.ASCII)
_PURPOSE = b"django-nats key"


def key_text(key: object, where: str) -> str:
    """Return the text of a key: a string, an integer, a UUID, or a saved instance of a model.

    ``where`` is the place that an error message names, such as ``Limit("api")``. Raises TypeError
    for a key of another type, and ValueError for an instance without a primary key.
    """
    if isinstance(key, str):
        return key
    if isinstance(key, (int, UUID)) and not isinstance(key, bool):
        return str(key)
    if isinstance(key, Model):
        # A composite primary key is a tuple, which holds None until it is set.
        if key.pk is None or (isinstance(key.pk, tuple) and None in key.pk):
            raise ValueError(
                f"{where}: the key is a {key._meta.label} that is not saved, and has no primary key"
            )
        return f"{key._meta.concrete_model._meta.label_lower}.{key.pk}"  # type: ignore[union-attr]
    raise TypeError(
        f"{where}: the key must be a string, an integer, a UUID or a saved instance of a model, "
        f"not {type(key).__name__}"
    )


def key_token(text: str, *, readable: bool) -> str:
    """Return the token of a subject for the text of a key.

    With ``readable`` it is the text, escaped, unless that is too long. Otherwise it is a keyed
    hash.
    """
    if not readable:
        return _hash(text)
    with suppress(InvalidKey):  # lone surrogates come in with the names of headers and files
        escaped = token(text) or "="
        if len(escaped) <= MAX_READABLE_BYTES:
            return escaped
    return f"=h{_hash(text)}"


def key_tokens(text: str) -> list[str]:
    """Return all tokens that a key may have, whether it is readable or not.

    If the text may be the hash of a key, it is one of them.
    """
    tokens = [key_token(text, readable=False), key_token(text, readable=True)]
    return list(dict.fromkeys([*tokens, *([text] if is_hash(text) else [])]))


def is_hash(token: str) -> bool:
    """Return True if a token may be the hash of a key, and not the key itself."""
    return _A_HASH.fullmatch(token) is not None


def text_of(escaped: str) -> str:
    """Return the text of a token, or the token if it holds a hash."""
    if escaped == "=":
        return ""
    with suppress(InvalidKey):
        return text_of_token(escaped)
    return escaped


def _hash(text: str) -> str:
    data = text.encode("utf-8", "surrogatepass")
    digest = blake2b(data, digest_size=_HASH_BYTES, key=_secret()).digest()
    return base64.urlsafe_b64encode(digest).decode()


@lru_cache(maxsize=1)
def _secret() -> bytes:
    secret = settings.SECRET_KEY
    data = secret.encode() if isinstance(secret, str) else bytes(secret)
    return blake2b(data, digest_size=32, person=_PURPOSE).digest()


def _on_setting_changed(*, setting: str, **kwargs: object) -> None:
    if setting == "SECRET_KEY":
        _secret.cache_clear()


setting_changed.connect(_on_setting_changed, dispatch_uid="django_nats.limits.keys")
