"""What a view is called, and whether it is asynchronous, through its decorators."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import method_decorator


def view_name(view: Callable[..., Any]) -> str:
    """Return the dotted name of a view.

    It is that of the class for ``View.as_view()``, and that of the method of the view's own class,
    which may have inherited it, within method_decorator().
    """
    # Viewsets of Django REST framework say ``cls``.
    owner = getattr(view, "view_class", None) or getattr(view, "cls", None)
    if isinstance(owner, type):
        return _dotted(owner)
    origin = _origin(view)
    if inspect.ismethod(origin):
        return f"{_dotted(_class_of(origin.__self__))}.{origin.__name__}"
    return _dotted(origin if hasattr(origin, "__qualname__") else type(origin))


def is_stand_in(view: Callable[..., Any]) -> bool:
    """Return whether method_decorator() tries a decorator on a function that is no view."""
    return getattr(view, "__module__", None) == method_decorator.__module__


def is_method(view: object) -> bool:
    """Return whether this is a class, or a function in a class, which is not called as a view is.

    Such a function calls its first argument ``self``.
    """
    names = view.__code__.co_varnames if inspect.isfunction(view) else ()
    return isinstance(view, type) or names[:1] == ("self",)


def is_async_view(view: Callable[..., Any]) -> bool:
    """Return whether calling a view returns an awaitable.

    That is so for ``dispatch`` of a class with asynchronous handlers, too, although it is no
    coroutine function.
    """
    if iscoroutinefunction(view):
        return True
    origin = _origin(view)
    return (
        inspect.ismethod(origin)
        and origin.__name__ == "dispatch"
        and bool(getattr(origin.__self__, "view_is_async", False))
    )


def _origin(view: Any) -> Any:
    """Return the function, method or object that a view calls in the end."""
    while not inspect.ismethod(view):
        if isinstance(view, partial):
            view = view.func
        elif hasattr(view, "__wrapped__"):
            view = view.__wrapped__
        else:
            break
    return view


def _class_of(owner: Any) -> type:
    return owner if isinstance(owner, type) else type(owner)


def _dotted(named: Any) -> str:
    name = named.__qualname__
    if name.rpartition(".")[2] != named.__name__:  # renamed, as the class that @api_view makes
        name = named.__name__
    return f"{named.__module__}.{name}"
