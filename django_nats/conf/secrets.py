"""Read the options that hold secrets, and refuse secrets in the options that do not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..client.transport.secrets import SecretFunction, holds_content
from .dotted import DOTTED_PATH
from .reader import Reader

SECRETS = ("PASSWORD", "TOKEN", "NKEY_SEED", "CREDENTIALS", "CREDENTIALS_CONTENT")
"""The options that may be functions. All but CREDENTIALS, which is a path, hold secrets."""
SECRET_MEMBERS = {"FUNCTION"}
_PATHS = ("CA", "CERT", "KEY")
_LONGEST_PATH = 1024

_KEY = re.compile(
    r"-----BEGIN|LS0tLS1CRUdJTi"  # the same in base64, as in the secrets of Kubernetes
    r"|(?<![A-Z2-7])S[ACNOUX][A-Z2-7]{56}(?![A-Z2-7])",  # an nkey's seed
    re.IGNORECASE,
)
_JWT = re.compile(r"^\s*eyJ[-\w]+\.eyJ[-\w]+\.[-\w]+\s*$")
_REMEDY = (
    "A seed belongs in NKEY_SEED, the content of a .creds file in CREDENTIALS_CONTENT, and a PEM "
    "file's path in TLS"
)


def read_secret(reader: Reader, option: str) -> str | SecretFunction:
    """Return the text of a secret, or the function that returns it.

    The option is that text, a function, or ``{"FUNCTION": …}`` with a function or its dotted path:
    no text by itself shows whether it is a path or a password.
    """
    value = reader.options[option]
    if isinstance(value, Mapping):
        value = reader.mapping(option, SECRET_MEMBERS).get("FUNCTION")
        if not callable(value) and not (isinstance(value, str) and DOTTED_PATH.fullmatch(value)):
            reader.fail(option, "must have a FUNCTION that is a function or its dotted path")
        return SecretFunction(value)
    return SecretFunction(value) if callable(value) else reader.text(option)


def refuse_misplaced_secrets(reader: Reader, location: object) -> None:
    """Raise ImproperlyConfigured if a private key or a seed is where it does not belong.

    Such an option would be shown in errors and logs. So this comes before any other error.
    """
    for option, value in {"LOCATION": location, **reader.options}.items():
        if option == "TLS" and isinstance(value, Mapping):
            for member in _PATHS:
                if _is_no_path(value.get(member)):
                    reader.fail("TLS", f"has a {member} that is not the path of a PEM file")
        if option == "CREDENTIALS" and _is_no_path(value):
            reader.fail(option, f"is not the path of a .creds file. {_REMEDY}")
        if option == "CREDENTIALS_CONTENT":
            if isinstance(value, Path) or (isinstance(value, str) and not holds_content(value)):
                reader.fail(
                    option, "is not the content of a .creds file. Its path belongs in CREDENTIALS"
                )
        elif option == "NKEY_SEED":
            if isinstance(value, str) and (holds_content(value) or re.search(r"[/\\.]", value)):
                reader.fail(option, f"must be the seed itself, not a file or its path. {_REMEDY}")
        elif any(map(_KEY.search, _texts(value))):
            reader.fail(str(option), f"holds a private key, or what looks like one. {_REMEDY}")


def _is_no_path(value: object) -> bool:
    return isinstance(value, str) and (
        holds_content(value)
        or len(value) > _LONGEST_PATH
        or _KEY.search(value) is not None
        or _JWT.match(value) is not None
    )


def _texts(value: object) -> Iterator[str]:
    """Yield every text in an option, also in lists and dicts."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, each in value.items():
            yield from _texts(name)
            yield from _texts(each)
    elif isinstance(value, (list, tuple, set, frozenset)):
        for each in value:
            yield from _texts(each)
