"""One server for all the processes of a project, for as long as there are any."""

from __future__ import annotations

import json
import os
import secrets
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
from django_nats.devserver.process import NatsServer, find_binary
from django_nats.exceptions import DevServerError

# The keeper of a shared server belongs to no terminal and to no parent who would have to reap it.
# It needs the standard library and, behind it, the directory of the very package that starts it.
_DETACH = '"$@" &'
_KEEPER = (
    "import sys; sys.path.append(sys.argv[1]); "
    "from django_nats.devserver.shared import _keep; _keep(*sys.argv[2:])"
)
_GRACE = 1.0  # seconds without users before the keeper ends the server
_POLL = 0.2  # seconds between two looks of the keeper


@dataclass(frozen=True)
class Endpoint:
    """Where the shared server listens, and the token it asks for."""

    url: str
    token: str = field(repr=False)


def embedded(directory: str | os.PathLike[str], timeout: float = 20.0) -> Endpoint:
    """Return the server shared by all processes that name this directory; start it if need be.

    From here on this process is one of its users. About a second after the last user ended,
    however it ended, the server ends too; its store stays in the directory, and so do its token
    and, while that is free, its port. Cheap when the server runs: ask before each connect.
    Raises ServerNotFound, or DevServerError when no server answers within `timeout` seconds.
    """
    require_posix()
    home = Path(directory).resolve()
    deadline = time.monotonic() + timeout
    made = not home.exists()
    make_private(home)
    if made:
        (home / ".gitignore").write_text("*\n")  # the token and the store are nobody else's
    _become_user(home, deadline)
    endpoint = _answering(home)
    if endpoint is None:
        starting = open_private(home / "starting")
        try:
            if not eventually(lambda: lock(starting), deadline):
                raise DevServerError(f"another process takes too long to start a server in {home}")
            endpoint = _answering(home) or _start_keeper(home, deadline)
        finally:
            unlock(starting)  # a child forked meanwhile has it open too
            os.close(starting)
    # While runserver reloads, only its reloader is left, and that never asks for a server: the
    # process that serves speaks for it.
    reloader = os.getppid()
    if os.environ.get("RUN_MAIN") == "true" and (birth := _birth(reloader)):
        write_private(home / f"reloader-{reloader}", birth)
    return endpoint


# Descriptors that hold a shared lock on <directory>/users. The kernel releases it when a process
# and all that it forked are gone; programs they execute do not inherit it.
_lifelines: dict[Path, int] = {}


def _become_user(home: Path, deadline: float) -> None:
    users = home / "users"
    try:
        # Daemons close every descriptor they find, and people remove directories.
        if os.path.samestat(os.fstat(_lifelines[home]), users.stat()):
            return
    except (KeyError, OSError):
        pass
    lifeline = open_private(users)
    # Refused while the keeper, without users, is ending the server.
    if not eventually(lambda: lock(lifeline, shared=True), deadline):
        os.close(lifeline)
        raise DevServerError(f"the server in {home} takes too long to end")
    _lifelines[home] = lifeline


@dataclass(frozen=True)
class _State:
    """What the server of a directory keeps from one run to the next."""

    name: str
    port: int
    token: str = field(repr=False)


def _load(home: Path) -> _State | None:
    try:
        return _State(**json.loads((home / "embedded.json").read_bytes()))
    except (FileNotFoundError, ValueError, TypeError):
        return None  # damaged is as good as missing: the next start writes a new one


def _answering(home: Path) -> Endpoint | None:
    """The directory's endpoint, if it is this server that answers there, and not a stranger."""
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


def _start_keeper(home: Path, deadline: float) -> Endpoint:
    package = str(Path(__file__).resolve().parents[2])
    keeper = [sys.executable, "-IS", "-c", _KEEPER, package, find_binary(), str(home)]
    try:
        complaint = subprocess.run(  # noqa: S603
            ["/bin/sh", "-c", _DETACH, "sh", *keeper],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,  # read to its end, which says that the server is ready
            cwd="/",
            start_new_session=True,
            timeout=max(0.1, deadline - time.monotonic()),
            check=False,
        ).stderr.decode(errors="replace")
    except subprocess.TimeoutExpired:
        complaint = "it is not ready in time"
    if endpoint := _answering(home):
        return endpoint
    raise DevServerError(f"no embedded server in {home}: {complaint.strip()}")


def _keep(binary: str, directory: str) -> None:
    """Run the server of a directory for as long as it has users. The keeper's main function."""
    home = Path(directory)
    last = _load(home)
    server = NatsServer(
        binary=binary,
        directory=home,
        port=last.port if last and _is_free(last.port) else None,
        token=last.token if last else None,
        name=last.name if last else f"embedded-{secrets.token_hex(8)}",
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
    os.dup2(1, 2)  # the starter waits for the end of stderr
    used = time.monotonic()
    # A removed directory leaves no state behind: then nobody can find this server any more.
    while server.running and _load(home) == state:
        if not lock(users):
            used = time.monotonic()
        else:
            if _has_reloader(home):
                used = time.monotonic()
            elif time.monotonic() > used + _GRACE:
                break  # with the lock held: who comes now waits until the server has gone
            unlock(users)
        time.sleep(_POLL)
    server.stop()


def _has_reloader(home: Path) -> bool:
    for mark in home.glob("reloader-*"):
        birth = _birth(int(mark.name.partition("-")[2]))
        if birth is not None and birth == mark.read_text():
            return True
        mark.unlink()
    return False


def _birth(pid: int) -> str | None:
    """When a running process of this user started; process ids alone are given out again."""
    try:
        # Refused for another user's process, such as the init that adopts an orphan.
        os.kill(pid, 0)
        if sys.platform == "linux":
            # The process's name, in parentheses, may hold anything.
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
