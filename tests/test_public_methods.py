"""Every public method has a docstring, a signature and types for editors to show."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from django_nats import counters
from django_nats.cache import NatsCache
from django_nats.cache.watching import Change
from django_nats.counters import BoundCounter, Counter, CounterQuerySet, Counters
from django_nats.limits import Quota, Usage
from django_nats.nearcache import NearCache
from tests.blog.models import Article
from tests.support.public import own_methods, own_properties
from tests.typing import usage, usage_of_counters, usage_of_quotas

KINDS = [
    *(NatsCache, NearCache, Change),
    *(Counter, BoundCounter, Counters, CounterQuerySet, type(Article.objects)),
    *(Quota, Usage),
]

METHODS = {
    **{
        f"{kind.__name__}.{name}": each
        for kind in KINDS
        for name, each in own_methods(kind).items()
    },
    **{f"counters.{name}": getattr(counters, name) for name in counters.__all__ if name.islower()},
}
del METHODS["counters.counters"]  # a Counters object, not a function
PROPERTIES = {
    f"{kind.__name__}.{name}": each.fget
    for kind in KINDS
    for name, each in own_properties(kind).items()
}
MEMBERS: dict[str, Any] = {**METHODS, **PROPERTIES}
TWINS = {
    name: (METHODS[name], twin)
    for name in METHODS
    if (twin := METHODS.get(re.sub(r"(\w+)$", r"a\1", name))) is not None
}
del TWINS["CounterQuerySet.iterator"]  # Django's own two versions have different defaults, too


def lacks(function: Callable[..., Any]) -> list[str]:
    """Return what the docstring and the annotations of a function lack."""
    signature = inspect.signature(function)
    missing = [] if (function.__doc__ or "").strip() else ["docstring"]
    missing += [
        parameter.name
        for parameter in list(signature.parameters.values())
        if parameter.annotation is parameter.empty and parameter.name not in ("self", "cls")
    ]
    missing += ["return"] if signature.return_annotation is signature.empty else []
    return missing


def differences(method: Callable[..., Any], twin: Callable[..., Any]) -> list[str]:
    """Return how an async version differs, except that it is async."""
    ours, theirs = inspect.signature(method), inspect.signature(twin)
    found = [] if ours.parameters == theirs.parameters else [f"{ours} and {theirs}"]
    result = ours.return_annotation
    if result.partition("[")[0] == "Iterator":
        if inspect.iscoroutinefunction(twin) or theirs.return_annotation != f"Async{result}":
            found.append(f"no async iterator: {theirs}")
    elif theirs.return_annotation != result:
        found.append(f"{result} and {theirs.return_annotation}")
    elif not inspect.iscoroutinefunction(twin):
        found.append("no coroutine function")
    if inspect.iscoroutinefunction(method):
        found.append("a coroutine function without an a")
    return found


@pytest.mark.parametrize("name", MEMBERS)
def test_every_member_has_a_docstring_and_annotations(name: str) -> None:
    assert lacks(MEMBERS[name]) == []


@pytest.mark.parametrize("name", TWINS)
def test_the_async_version_has_the_same_signature(name: str) -> None:
    assert differences(*TWINS[name]) == []


@pytest.mark.parametrize("name", TWINS)
def test_inspect_finds_the_source_of_a_method(name: str) -> None:
    """So "go to definition" and inspect.getsource() lead to the method itself."""
    for method in TWINS[name]:
        assert re.search(rf"\bdef {method.__name__}\(", inspect.getsource(method))


def test_every_method_has_an_async_version_or_needs_none() -> None:
    methods = {name for name in METHODS if re.match(r"(NatsCache|Counters?|Quota)\.", name)}
    twins = {f"{name.partition('.')[0]}.{twin.__name__}" for name, (_, twin) in TWINS.items()}
    assert methods - TWINS.keys() - twins == {
        *("NatsCache.get_backend_timeout", "NatsCache.make_and_validate_key"),
        *("NatsCache.validate_key", "NatsCache.watch"),
        *("Counter.incr_later", "Counters.incr_later", "Counter.tolist"),
    }


def test_type_checkers_see_every_public_member_used() -> None:
    used = {
        node.attr if isinstance(node, ast.Attribute) else node.id
        for module in (usage, usage_of_counters, usage_of_quotas)
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, (ast.Attribute, ast.Name))
    }
    assert {name.partition(".")[2] for name in MEMBERS} - used == {
        *("belongs_to", "find"),  # of NearCache, for use by the cache only
        "stream",  # of Counters: its operations as steps, for the package and its tests
    }


class TestTheseChecks:
    def test_a_missing_docstring_or_annotation_is_detected(self) -> None:
        def bare(self, key, other: int = 1):  # type: ignore[no-untyped-def]
            pass

        assert lacks(bare) == ["docstring", "key", "return"]

    def test_a_different_signature_is_detected(self) -> None:
        def method(key: str, version: int | None = None) -> int:
            raise NotImplementedError

        async def alike(key: str, version: int | None = None) -> int:
            raise NotImplementedError

        def blocking(key: str, version: int | None = None) -> int:
            raise NotImplementedError

        async def shorter(key: str) -> int:
            raise NotImplementedError

        async def default(key: str, version: int | None = 1) -> int:
            raise NotImplementedError

        async def typed(key: str, version: int | None = None) -> int | None:
            raise NotImplementedError

        assert differences(method, alike) == []
        for twin in (blocking, shorter, default, typed):
            assert len(differences(method, twin)) == 1, twin

    def test_an_awaited_or_sync_iterator_is_detected(self) -> None:
        def method() -> Iterator[str]:
            raise NotImplementedError

        def alike() -> AsyncIterator[str]:
            raise NotImplementedError

        async def awaited() -> AsyncIterator[str]:
            raise NotImplementedError

        def plain() -> Iterator[str]:
            raise NotImplementedError

        assert differences(method, alike) == []
        assert len(differences(method, awaited)) == len(differences(method, plain)) == 1
