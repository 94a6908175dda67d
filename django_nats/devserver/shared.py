"""The embedded server, shared by all processes of a project, which ends with the last of them."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from django_nats.devserver.files import (
    eventually,
    lock,
    make_private,
    open_private,
    require_posix,
    unlock,
    write_private,
)
from django_nats.devserver.server import WITHOUT_LIMITS, NatsServer, find_binary
from django_nats.exceptions import DevServerError
from django_nats.realtime import monotonic

# The keeper is the process that runs the shared server. The shell detaches it, so that it has no
# terminal and no parent that must reap it. It runs isolated, with the standard library first on its
# path, and then the directory of the package that starts it.
_DETACH = '"$@" &'
_KEEPER = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from django_nats.devserver.shared import _keep; _keep(*sys.argv[2:])"
)
_TEMPORARY = "temporary"
"""The argument that tells the keeper to remove the directory at the end."""
_GRACE_S = 1.0
"""How long the keeper waits for another user before it stops the server."""
_POLL_S = 0.2
"""How often the keeper looks for users."""


@dataclass(frozen=True)
class Endpoint:
    """The address of the shared server, and its token."""

    url: str
    token: str = field(repr=False)


def embedded(
    directory: str | os.PathLike[str], timeout: float = 20.0, *, temporary: bool = False
) -> Endpoint:
    """Return the server of a directory. Start it if no other process has done so.

    From then on this process is one of its users. The server ends about a second after its last
    user, even if that crashed. Its store and its token stay in the directory. It gets the same
    port again if that is free. The call is cheap while the server runs: make it before each
    connect.

    A ``temporary`` server removes its directory when it ends, and accepts streams that reserve
    more than the machine has: it is for tests.

    Raises ServerNotFound if there is no nats-server, and DevServerError if no server answers
    within ``timeout`` seconds.
    """
    require_posix()
    home = Path(directory).resolve()
    deadline = monotonic() + timeout
    made = not home.exists()
    if made:
        find_binary()  # before there is a directory that no server would remove
    make_private(home)
    if made:
        (home / ".gitignore").write_text("*\n")  # keep the token and the store out of Git
    _become_user(home, deadline)
    endpoint = _answering(home)
    if endpoint is None:
        starting = open_private(home / "starting")
        try:
            if not eventually(lambda: lock(starting), deadline):
                raise DevServerError(f"Another process takes too long to start a server in {home}.")
            endpoint = _answering(home) or _start_keeper(home, deadline, temporary)
        finally:
            unlock(starting)  # closing is not enough: a child forked meanwhile has it open, too
            os.close(starting)
    # While runserver reloads, only its reloader process is left, which never calls this function.
    # So the serving process registers the reloader as a user.
    reloader = os.getppid()
    if os.environ.get("RUN_MAIN") == "true" and (birth := _birth(reloader)):
        write_private(home / f"reloader-{reloader}", birth)
    return endpoint


# Descriptors that hold a shared lock on <directory>/users. The kernel releases the lock when the
# process and all its forked children have ended. Programs they execute do not inherit it.
_lifelines: dict[Path, int] = {}


def _become_user(home: Path, deadline: float) -> None:
    users = home / "users"
    try:
        # Daemons close all descriptors, and users remove directories.
        if os.path.samestat(os.fstat(_lifelines[home]), users.stat()):
            return
    except (KeyError, OSError):
        pass
    lifeline = open_private(users)
    # The keeper holds the lock while it stops a server without users.
    if not eventually(lambda: lock(lifeline, shared=True), deadline):
        os.close(lifeline)
        raise DevServerError(f"The server in {home} takes too long to end.")
    _lifelines[home] = lifeline


@dataclass(frozen=True)
class _State:
    """What the server of a directory keeps from one start to the next."""

    name: str
    port: int
    token: str = field(repr=False)


def _load(home: Path) -> _State | None:
    try:
        return _State(**json.loads((home / "embedded.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # a damaged file counts as missing: the next start writes a new one


def _answering(home: Path) -> Endpoint | None:
    """Return the directory's endpoint, or None if its server does not answer there.

    The name tells the server from another program on the same port.
    """
    state = _load(home)
    if state is None:
        return None
    try:
        with socket.create_connection(("127.0.0.1", state.port), timeout=1) as connection:
            greeting = connection.makefile("rb").readline(65536)
        if json.loads(greeting.removeprefix(b"INFO "))["server_name"] != state.name:
            return None
    except (OSError, ValueError, KeyError):
        return None
    return Endpoint(f"nats://127.0.0.1:{state.port}", state.token)


def _start_keeper(home: Path, deadline: float, temporary: bool) -> Endpoint:
    package = str(Path(__file__).resolve().parents[2])
    keeper = [sys.executable, "-IS", "-c", _KEEPER, package, find_binary(), str(home)]
    if temporary:
        keeper.append(_TEMPORARY)
    try:
        problem = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", _DETACH, "sh", *keeper],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # the keeper closes it when the server is ready
            cwd="/",
            start_new_session=True,
            timeout=max(0.1, deadline - monotonic()),
            check=False,
        ).stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        problem = "it is not ready in time."
    if endpoint := _answering(home):
        return endpoint
    raise DevServerError(f"The embedded server in {home} cannot be started: {problem.strip()}")


def _keep(binary: str, directory: str, kind: str = "") -> None:
    """Run the server of a directory while it has users. This is the keeper's main function."""
    home = Path(directory)
    last = _load(home)
    server = NatsServer(
        binary=binary,
        directory=home,
        port=last.port if last and _is_free(last.port) else None,
        token=last.token if last else None,
        name=last.name if last else f"embedded-{secrets.token_hex(8)}",
        config=WITHOUT_LIMITS if kind == _TEMPORARY else "",
    )
    try:
        server.start()
    except DevServerError as error:
        sys.exit(str(error))
    for mark in home.glob("reloader-*"):
        mark.unlink()
    state = _State(server.name, server.port, server.token)
    users = open_private(home / "users")
    write_private(home / "embedded.json", json.dumps(asdict(state)))
    os.dup2(1, 2)  # closes stderr, for the end of which the starting process waits
    used = monotonic()
    # If the directory is removed, its state is gone, and no process can find this server any more.
    while server.running and _load(home) == state:
        if not lock(users):
            used = monotonic()
        else:
            if _has_reloader(home):
                used = monotonic()
            elif monotonic() > used + _GRACE_S:
                # Still holding the lock, so that a new user waits until the server has ended.
                server.stop()
                if kind == _TEMPORARY:
                    shutil.rmtree(home, ignore_errors=True)
                return
            unlock(users)
        time.sleep(_POLL_S)
    server.stop()


def _has_reloader(home: Path) -> bool:
    for mark in home.glob("reloader-*"):
        birth = _birth(int(mark.name.partition("-")[2]))
        if birth is not None and birth == mark.read_text():
            return True
        mark.unlink()
    return False


def _birth(pid: int) -> str | None:
    """Return when a running process of this user was started, or None if there is none.

    A process id alone may be reused.
    """
    try:
        # Raises for another user's process, such as the init process that adopts an orphan.
        os.kill(pid, 0)
        if sys.platform == "linux":
            # The process's name, in parentheses, may contain spaces and parentheses.
            stat = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].decode().split()
            state, born = stat[0], stat[19]
        else:
            command = ["ps", "-o", "stat=", "-o", "lstart=", "-p", str(pid)]
            environ = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
            line = subprocess.run(command, env=environ, capture_output=True, check=False).stdout  # noqa: S603
            state, _, born = line.decode().strip().partition(" ")
    except OSError:
        return None
    return None if state.startswith("Z") else born.strip()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
