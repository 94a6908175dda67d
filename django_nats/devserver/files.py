"""Directories and files that only this user can enter, and locks that end with their holder."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from django_nats.exceptions import DevServerError

if sys.platform != "win32":
    import fcntl


def require_posix() -> None:
    """Raise DevServerError where there are no process groups and file locks as used here."""
    if sys.platform == "win32":
        raise DevServerError(
            "the development server needs Linux or macOS: on Windows start nats-server yourself "
            "and name its address"
        )


def make_private(directory: Path) -> None:
    """Make the directory if need be; close it to others, or refuse it with DevServerError."""
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = directory.stat()
        if status.st_uid != os.geteuid():
            raise DevServerError(f"{directory} belongs to another user: name another directory")
        if status.st_mode & 0o077:
            directory.chmod(0o700)
    except OSError as error:
        raise DevServerError(f"{directory} cannot hold a server: {error.strerror}") from error


def open_private(file: Path) -> int:
    """Return a descriptor of the file, made if need be; executed programs do not inherit it."""
    return os.open(file, os.O_RDWR | os.O_CREAT, 0o600)


def write_private(file: Path, text: str) -> None:
    """Replace the file in one step: readers see the old text or the new one."""
    descriptor, temporary = tempfile.mkstemp(dir=file.parent)
    with open(descriptor, "w", encoding="utf-8") as out:
        out.write(text)
    os.replace(temporary, file)


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Lock the open file without waiting; return whether that worked.

    The kernel releases the lock when the last process that has the descriptor, by fork or as an
    inherited one, has closed it or ended: nothing stale is left, whatever happens.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(descriptor: int) -> None:
    """Release the lock, also for the processes that have the descriptor by fork."""
    fcntl.flock(descriptor, fcntl.LOCK_UN)


def eventually(happened: Callable[[], bool], deadline: float) -> bool:
    """Ask until it happened or time.monotonic() passes the deadline; return whether it did."""
    while not happened():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
