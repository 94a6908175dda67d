"""Private directories and files, and locks that the kernel releases when their holder ends."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from django_nats.exceptions import DevServerError
from django_nats.realtime import monotonic

if sys.platform != "win32":
    import fcntl


def require_posix() -> None:
    """Raise DevServerError on Windows, which lacks the process groups and file locks used here."""
    if sys.platform == "win32":
        raise DevServerError(
            "The development server needs Linux or macOS. On Windows, start nats-server yourself "
            "and name its address."
        )


def make_private(directory: Path) -> None:
    """Create the directory if it does not exist, and take all rights from other users.

    Raises DevServerError if that is not possible, or the directory belongs to another user.
    """
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise DevServerError(f"{directory} belongs to another user. Name another directory.")
        if status.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise DevServerError(f"{directory} cannot hold a server: {error.strerror}") from error


def open_private(file: Path) -> int:
    """Open a file for reading and writing, create it if need be, and return its descriptor.

    Programs that this process executes do not inherit the descriptor.
    """
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def write_private(file: Path, text: str) -> None:
    """Replace the file in one step: readers see either the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)
    with open(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(temporary, file)


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock an open file without waiting. Return False if another process holds the lock.

    The kernel releases the lock when the last process with the descriptor, by a fork or as an
    inherited one, has closed it or ended. So no stale lock is left, even after a crash.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release the lock, also for the forked processes that share the descriptor."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def eventually(condition: Callable[[], bool], deadline: float) -> bool:
    """Wait until a condition is true. Return False if monotonic() passes the deadline first."""
    while not condition():
        if monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
