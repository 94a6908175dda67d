"""uWSGI's own hook calls the functions that os.register_at_fork would call."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from django_nats.client import process
from django_nats.client.transport import forks
from django_nats.client.transport.loop import thread as loop_thread


@pytest.fixture
def uwsgi(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Provide the module ``uwsgi``, which exists only in processes of uWSGI."""
    module = ModuleType("uwsgi")
    monkeypatch.setitem(sys.modules, "uwsgi", module)
    monkeypatch.setattr(forks, "_hook", None)
    return module


@pytest.fixture
def called(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    called: list[str] = []
    monkeypatch.setattr(forks, "_functions", [lambda: called.append("ours")])
    return called


def note(called: list[str], word: str) -> Callable[[], None]:
    return lambda: called.append(word)


def test_nothing_happens_without_uwsgi() -> None:
    assert "uwsgi" not in sys.modules
    forks.watch_uwsgi()
    assert "uwsgi" not in sys.modules


def test_our_functions_are_called_before_others(uwsgi: Any, called: list[str]) -> None:
    uwsgi.post_fork_hook = note(called, "theirs")
    for _ in range(3):
        forks.watch_uwsgi()
    uwsgi.post_fork_hook()
    assert called == ["ours", "theirs"]


def test_a_hook_that_another_library_has_replaced_is_extended_again(
    uwsgi: Any, called: list[str]
) -> None:
    forks.watch_uwsgi()
    uwsgi.post_fork_hook = note(called, "theirs")
    forks.watch_uwsgi()
    uwsgi.post_fork_hook()
    assert called == ["ours", "theirs"]


def test_the_first_operation_extends_the_hook(uwsgi: Any, called: list[str]) -> None:
    process.close()
    loop_thread.call(lambda: None)
    uwsgi.post_fork_hook()
    assert called == ["ours"]


def test_every_object_that_must_forget_its_parent_is_registered() -> None:
    modules = {getattr(each, "__module__", "") for each in forks._functions}
    assert {"django_nats.client.process", "django_nats.counters.write_behind"} <= modules
