"""What requests are counted by: the words of ``key=``, which are those of django-ratelimit."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import empty

from ..client.protocol.steps import Call, Steps
from ..conf.dotted import DOTTED_PATH, function_at
from .addresses import client_address
from .keys import key_text

if TYPE_CHECKING:
    from django.http import HttpRequest

KeySpec: TypeAlias = "str | Callable[[str, HttpRequest], Any]"

_HEADER = re.compile(r"[-!#$%&'*+.^_`|~0-9A-Za-z]+")
_RIGHT = (
    'It must be "ip", "user", "user_or_ip", "header:…", "get:…" or "post:…" with a name, a '
    "function of the group and the request, or the dotted path of one"
)


class RequestKey(NamedTuple):
    """A checked ``key=``."""

    kind: str
    """The beginning of every text, which keeps one kind of keys apart from another."""
    function: Callable[[str, HttpRequest], Any]
    where: str

    def steps(self, group: str, request: HttpRequest) -> Steps[str]:
        """Return the text by which a request is counted."""
        return self.text((yield Call(self.function, (group, request))))

    def text(self, value: object) -> str:
        """Return the text by which a request is counted for which the function returned a value."""
        return self.kind + key_text(value, self.where)


def request_key(key: KeySpec, group: str, request: HttpRequest) -> str:
    """Return the text by which ``key=`` counts a request, for a hit of a Limit.

    ``key`` is a word such as "ip" or "header:x-api-key", a function of the group and the request,
    or the dotted path of one. Raises ValueError or TypeError for another key.
    """
    found = parse_key(key, f"The key of {group!r}")
    return found.text(found.function(group, request))


async def arequest_key(key: KeySpec, group: str, request: HttpRequest) -> str:
    """Async version of request_key(). The function may be a coroutine function."""
    found = parse_key(key, f"The key of {group!r}")
    value = found.function(group, request)
    return found.text(await value if inspect.isawaitable(value) else value)


def parse_key(key: object, where: str) -> RequestKey:
    """Return a checked key. ``where`` is the place that an error message names.

    Raises ValueError for an unknown word, and TypeError unless the key is a string or a function.
    """
    if callable(key):
        return RequestKey("key:", key, where)
    if not isinstance(key, str):
        raise TypeError(f"{where}: the key cannot be {type(key).__name__}: {key!r}. {_RIGHT}.")
    if key in _WORDS:
        return RequestKey("", _WORDS[key], where)
    word, _, name = key.partition(":")
    if word in _FIELDS and name and (word != "header" or _HEADER.fullmatch(name)):
        # Headers have one name in any case, with - or _ in it.
        normal = name.lower().replace("_", "-") if word == "header" else name
        return RequestKey(f"{word}:{quote(normal, safe='')}:", partial(_FIELDS[word], name), where)
    if DOTTED_PATH.fullmatch(key):
        # Imported when it is first called, since it may be in a module that imports this view's.
        return RequestKey("key:", partial(_call_at, key, where), where)
    raise ValueError(f"{where}: the key {key!r} is unknown. {_RIGHT}.")


def _ip(group: str, request: HttpRequest) -> str:
    return f"ip:{client_address(request)}"


def _user(group: str, request: HttpRequest) -> str | Awaitable[str]:
    return _with_user(request, _user_text)


def _user_or_ip(group: str, request: HttpRequest) -> str | Awaitable[str]:
    def text(user: Any) -> str:
        return _user_text(user) if user.is_authenticated else _ip(group, request)

    return _with_user(request, text)


def _user_text(user: Any) -> str:
    """Return what counts a user. Anonymous users are counted together."""
    return f"user:{user.pk}" if user.is_authenticated else "user:"


def _with_user(request: HttpRequest, text: Callable[[Any], str]) -> str | Awaitable[str]:
    """Return the text for the request's user, or an awaitable of it if the user is not loaded."""
    user = getattr(request, "user", None)
    if user is None:
        raise ImproperlyConfigured(
            'A limit with key="user" or key="user_or_ip" needs request.user. Add '
            "'django.contrib.auth.middleware.AuthenticationMiddleware' to MIDDLEWARE."
        )
    is_loaded = getattr(user, "_wrapped", None) is not empty
    if is_loaded or not hasattr(request, "auser") or not _in_event_loop():
        return text(user)

    async def loaded() -> str:
        return text(await request.auser())

    return loaded()


def _in_event_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _get(name: str, group: str, request: HttpRequest) -> str:
    return request.GET.get(name, "")


def _post(name: str, group: str, request: HttpRequest) -> Any:
    return request.POST.get(name, "")


def _header(name: str, group: str, request: HttpRequest) -> str:
    return request.headers.get(name, "")


_WORDS: dict[str, Callable[[str, HttpRequest], Any]] = {
    "ip": _ip,
    "user": _user,
    "user_or_ip": _user_or_ip,
}
_FIELDS: dict[str, Callable[[str, str, HttpRequest], Any]] = {
    "get": _get,
    "post": _post,
    "header": _header,
}


def _call_at(path: str, where: str, group: str, request: HttpRequest) -> Any:
    return function_at(path, where)(group, request)
