"""Increments of incr_later survive the end of WSGI and ASGI servers' workers."""

from __future__ import annotations

import shutil
import signal
import sysconfig
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from tests.servers import eventually
from tests.support.workers import Site

pytestmark = pytest.mark.once

_UWSGI = shutil.which("uwsgi", path=sysconfig.get_path("scripts"))


@pytest.mark.parametrize(("worker", "preload"), [("sync", True), ("gthread", False)])
def test_gunicorn_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], worker: str, preload: bool
) -> None:
    """Workers are also replaced by --max-requests."""
    arguments = ["-b", "127.0.0.1:PORT", "-w", "2", "-k", worker, "--threads", "4"]
    arguments += ["--max-requests", "30", *(["--preload"] if preload else [])]
    with Site(tmp_path, own_server, "-m", "gunicorn", *arguments, "application:wsgi") as site:
        counted = site.visits(100)
        log = site.end()
    assert counted > 70
    # A worker may end after counting a request and before answering it.
    assert counted <= total() <= 100, log
    boots = log.count("Booting worker")
    assert boots > 3
    assert Counter("loaded") == (1 if preload else boots)


@pytest.mark.parametrize("interface", ["wsgi", "asgi"])
def test_granian_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], interface: str
) -> None:
    arguments = ["--interface", interface, "--port", "PORT", "--workers", "2"]
    target = f"application:{interface}"
    with Site(tmp_path, own_server, "-m", "granian", *arguments, target) as site:
        # Before its workers have started, granian ignores signals.
        assert eventually(lambda: site.log().count("Started worker") == 2), site.log()
        counted = site.visits(50)
        log = site.end()
    assert counted == 50, log
    assert total() == 50, log
    assert Counter("loaded") == 2


@pytest.mark.parametrize("workers", [1, 2])
def test_uvicorn_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], workers: int
) -> None:
    """uvicorn ends itself by the signal, so increments are published at the end of the lifespan."""
    arguments = ["--port", "PORT", "--workers", str(workers), "application:with_lifespan"]
    with Site(tmp_path, own_server, "-m", "uvicorn", *arguments) as site:
        counted = site.visits(50)
        log = site.end()
    assert counted == 50, log
    assert total() == 50, log


@pytest.mark.faults
@pytest.mark.timeout(1200)
@pytest.mark.skipif(_UWSGI is None, reason="uWSGI is not installed")
@pytest.mark.parametrize("option", ["--lazy-apps", "--py-call-uwsgi-fork-hooks", ""])
def test_uwsgi_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int], option: str
) -> None:
    """Workers are recycled, reloaded and stopped, also those of a master that has used NATS."""
    words = [str(_UWSGI), "--http-socket", "127.0.0.1:PORT", "--module", "application:wsgi"]
    words += ["--master", "--processes", "2", "--enable-threads", *filter(None, [option])]
    words += ["--max-requests", "20", "--min-worker-lifetime", "0"]
    # A worker that is still starting may miss its signal; wait for it no longer than this.
    words += ["--reload-mercy", "30", "--worker-reload-mercy", "30"]
    words += ["--hook-master-start", "unix_signal:15 gracefully_kill_them_all"]
    parent = """
from django.core.cache import cache
cache.set("key", "value")
counters.flush()


def view(request):
    assert cache.get("key") == "value"
    counters.incr_later("k")
    return HttpResponse("counted")


urlpatterns[:] = [path("", view)]
"""
    with Site(tmp_path, own_server, *words, code=parent) as site:
        counted = 0
        for turn in (1, 2):
            if turn == 2:
                site.send(signal.SIGHUP)
                assert eventually(partial(_has_reloaded, site), 90), site.log()
            counted += site.visits(50)
            assert eventually(partial(_is_idle, site, counted, option == "--lazy-apps")), site.log()
        log = site.end()
    assert counted == 100, log
    assert total() == 100, log
    if option != "--lazy-apps":
        assert Counter("loaded") == 2


def _has_reloaded(site: Site) -> bool:
    return site.log().count("spawned uWSGI worker 2 (pid") == 2


def _is_idle(site: Site, requests: int, lazy: bool) -> bool:
    """Return True if uWSGI has logged these requests and has replaced its ended workers."""
    log = site.log()
    over, new = log.count("|req: 20/"), log.count("Respawned uWSGI worker")
    ready, wanted = log.count("WSGI app 0 "), log.count("spawned uWSGI worker")
    return log.count("|req: ") == requests and over == new and (ready == wanted or not lazy)


def test_hypercorn_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int]
) -> None:
    """Workers are also replaced by --max-requests."""
    words = ["-m", "hypercorn", "-b", "127.0.0.1:PORT", "-w", "2", "--max-requests", "30"]
    with Site(tmp_path, own_server, *words, "application:asgi") as site:
        counted = site.visits(70)
        log = site.end()
    assert counted > 50, log
    # A worker may end after counting a request and before answering it.
    assert counted <= total() <= 70, log
    assert Counter("loaded") > 2


@pytest.mark.faults
def test_replaced_granian_workers_publish_their_increments(
    tmp_path: Path, own_server: NatsServer, total: Callable[[], int]
) -> None:
    words = ["-m", "granian", "--interface", "wsgi", "--port", "PORT", "--workers", "2"]
    with Site(tmp_path, own_server, *words, "application:wsgi") as site:
        assert eventually(lambda: site.log().count("Started worker") == 2), site.log()
        counted = site.visits(50)
        site.send(signal.SIGHUP)
        assert eventually(lambda: site.log().count("Started worker") == 4), site.log()
        counted += site.visits(50)
        log = site.end()
    assert counted > 70, log
    assert counted <= total() <= 100, log
