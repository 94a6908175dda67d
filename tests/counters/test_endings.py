"""The hooks of process pools are connected whenever their modules are imported."""

from __future__ import annotations

import sys
from multiprocessing import util
from types import ModuleType
from typing import Any

import pytest
from django.dispatch import Signal

from django_nats.counters import endings, write_behind
from tests.counters.conftest import Configure
from tests.servers import eventually
from tests.support.ports import free_port

SIGNALS = "celery.signals"


@pytest.fixture(autouse=True)
def unwatched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start each test without Celery imported and without a connected hook."""
    monkeypatch.setattr(endings, "_watched", set())
    monkeypatch.delitem(sys.modules, SIGNALS, raising=False)


@pytest.fixture
def module() -> ModuleType:
    module = ModuleType(SIGNALS)
    module.worker_process_shutdown = Signal()  # type: ignore[attr-defined]
    return module


def test_a_process_registers_one_finalizer(configure: Configure) -> None:
    finalizers = util._finalizer_registry  # type: ignore[attr-defined]
    before = set(finalizers)
    for stream in ("a", "b", "c"):
        configure(STREAM=stream).incr_later("k")
        write_behind.discard()
    added = [finalizers[each] for each in set(finalizers) - before]
    assert [each._callback for each in added] == [endings._end]


def test_watching_imports_no_pool_library() -> None:
    endings.watch()
    assert SIGNALS not in sys.modules


def test_a_module_still_being_imported_is_connected_later(
    module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    signal = module.worker_process_shutdown
    del module.worker_process_shutdown
    monkeypatch.setitem(sys.modules, SIGNALS, module)
    endings.watch()
    module.worker_process_shutdown = signal
    for _ in range(2):
        endings.watch()
        assert len(signal.receivers) == 1


def test_the_next_increment_connects_a_module_imported_after_the_first(
    configure: Configure, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    counters = configure(FLUSH_INTERVAL=0.01)
    counters.incr_later("k")
    assert eventually(lambda: not write_behind.backlog("default")._flusher.running)
    monkeypatch.setitem(sys.modules, SIGNALS, module)
    counters.incr_later("k")
    assert module.worker_process_shutdown.has_listeners()
    counters.flush()


def test_the_publishing_thread_connects_a_module_imported_later(
    configure: Configure, module: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"  # so that the thread never runs out of work
    configure(LOCATION=nowhere, TOKEN="", FLUSH_INTERVAL=0.01).incr_later("k")
    monkeypatch.setitem(sys.modules, SIGNALS, module)
    assert eventually(module.worker_process_shutdown.has_listeners)
    write_behind.discard()
