"""The demonstration site starts, reports problems and ends."""

from __future__ import annotations

import re
import signal
import socket
from pathlib import Path

import pytest

from tests.support.demonstration import (
    Visitor,
    run,
    serving,
    start_regions,
    started,
    total,
    wait_until,
)
from tests.support.ports import free_port


def test_a_port_in_use_is_reported_in_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        result = run(tmp_path, "-m", "testproject", "--port", str(port))
    assert result.returncode == 2
    assert result.stdout == ""
    [line] = result.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


@pytest.mark.once
def test_the_site_reports_an_unreachable_server_and_ends(tmp_path: Path) -> None:
    nowhere = f"nats://127.0.0.1:{free_port()}"
    result = run(tmp_path, "-m", "testproject", "--port", str(free_port()), NATS_URL=nowhere)
    assert result.returncode == 1
    assert "The cache or the counters cannot be used" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_error_without_uvicorn_says_what_to_install(tmp_path: Path) -> None:
    start = """if True:
        import sys
        sys.modules["uvicorn"] = None
        from testproject.__main__ import main
        sys.exit(main(["--port", sys.argv[1]]))
    """
    result = run(tmp_path, "-c", start, str(free_port()))
    assert result.returncode == 2
    [line] = result.stderr.splitlines()
    assert 'pip install -e ".[demo]"' in line


@pytest.mark.once
def test_the_statistics_page_is_shown_while_the_server_is_away(tmp_path: Path) -> None:
    visit = """if True:
        import django
        django.setup()
        from django.test import Client
        visitor = Client(SERVER_NAME="localhost")
        page, figures = visitor.get("/cache/"), visitor.get("/cache/stats.json")
        assert page.status_code == 200, page
        assert b"The cache is not available" in page.content
        assert figures.status_code == 503, figures
        assert figures.json()["problem"]
    """
    result = run(tmp_path, "-c", visit, NATS_URL=f"nats://127.0.0.1:{free_port()}")
    assert result.returncode == 0, result.stderr


@pytest.mark.once
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_recent_views_are_not_lost_when_the_site_ends(tmp_path: Path, signum: int) -> None:
    with serving(tmp_path) as site:
        for _ in range(3):
            Visitor(site).get("/articles/slack-water/")
        assert site.interrupt(signum) == 0
    with serving(tmp_path) as site:
        assert total(Visitor(site).get("/live/"), "views") == 3


@pytest.mark.once
def test_the_site_ends_while_pages_are_followed_and_regions_run(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        visitor = Visitor(site)
        start_regions(visitor)
        with visitor.following("/live/totals/") as live, visitor.following("/regions/totals/") as r:
            assert next(live)
            assert next(r)
            assert list(tmp_path.glob("nats-*"))
            assert site.interrupt() == 0
        assert not list(tmp_path.glob("nats-*"))
        assert len(site.log.read_text().splitlines()) == 2, site.log.read_text()


@pytest.mark.once
def test_the_site_ends_on_ctrl_c_and_starts_again_with_its_data(tmp_path: Path) -> None:
    for _ in range(2):
        with serving(tmp_path) as site:
            articles = re.findall(r'class="entry ', Visitor(site).get("/articles/"))
            status = site.interrupt()
        assert len(articles) == 10
        assert status == 0
        assert "Traceback" not in site.log.read_text()


@pytest.mark.once
def test_ctrl_c_during_the_start_prints_no_traceback(tmp_path: Path) -> None:
    with started(tmp_path) as site:
        wait_until((tmp_path / "db.sqlite3").exists, site)
        status = site.interrupt()
    assert status == 0
    assert "Traceback" not in site.log.read_text()


@pytest.mark.once
def test_ctrl_c_while_waiting_for_a_server_prints_no_traceback(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(60)
        nats_url = f"nats://127.0.0.1:{silent.getsockname()[1]}"
        with started(tmp_path, NATS_URL=nats_url) as site, silent.accept()[0]:
            status = site.interrupt()
    assert status == 0
    assert "cannot be used" not in site.log.read_text()
    assert "Traceback" not in site.log.read_text()


@pytest.mark.once
@pytest.mark.parametrize(
    "step",
    [
        pytest.param("weakref.finalize(set(), press)", id="in a finalizer, which ignores errors"),
        pytest.param("sqlite(press)", id="in a function of SQLite, whose errors are another's"),
    ],
)
@pytest.mark.parametrize(
    ("command", "signum"),
    [
        ("migrate", signal.SIGINT),
        ("load_sample_data", signal.SIGTERM),
        ("check", signal.SIGINT),
    ],
)
def test_ctrl_c_during_a_step_of_the_start_ends_the_site(
    tmp_path: Path, step: str, signum: int, command: str
) -> None:
    start = f"""if True:
        import signal, sqlite3, sys, weakref
        from django.core import management
        from testproject.__main__ import main

        def press():
            signal.raise_signal({signum:d})

        def sqlite(function):
            connection = sqlite3.connect(":memory:")
            connection.create_function("press", 0, function)
            connection.execute("SELECT press()")

        def call_command(*arguments, **options):
            if arguments[0] == sys.argv[2]:
                {step}
            return once(*arguments, **options)

        once, management.call_command = management.call_command, call_command
        sys.exit(main(["--port", sys.argv[1]]))
    """
    result = run(tmp_path, "-c", start, str(free_port()), command)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
