"""Secrets of settings: as texts, or from functions of the project that return the current one."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from importlib import import_module, util
from pathlib import Path
from traceback import walk_tb
from typing import NamedTuple

from ...exceptions import NotSent
from ...printable import printable

_LIBRARY = f"{Path(inspect.__file__).parent}{os.sep}"
_JWT, _SEED = "BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"
_INVISIBLE = "\ufeff \t\r\n"
"""What editors and other systems add at the ends of lines and files: byte order marks, blanks."""


class SecretFunction:
    """A function of the project that returns a secret, given as such or by its dotted path.

    Two are equal if they are the same function, or have the same path. The function is looked up
    when it is first asked, since settings are read before the project's modules can be imported.
    """

    def __init__(self, target: Callable[[], object] | str) -> None:
        self._target = target

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFunction) and self._target == other._target

    def __hash__(self) -> int:
        # An object with a method that is the function may have no hash.
        return hash(self._target) if isinstance(self._target, str) else hash(SecretFunction)

    def __repr__(self) -> str:
        return f"<SecretFunction {self}>"

    def __str__(self) -> str:
        """Return the function's name. Its repr may hold a secret, as that of a partial does."""
        if isinstance(self._target, str):
            return self._target
        name = getattr(self._target, "__qualname__", type(self._target).__qualname__)
        return f"{self._target.__module__}.{name}"

    def find(self) -> Callable[[], object]:
        """Return the function. Raise what the import of its module raises."""
        if not isinstance(self._target, str):
            return self._target
        module, _, name = self._target.rpartition(".")
        function: Callable[[], object] = getattr(import_module(module), name)
        return function


class Credentials(NamedTuple):
    """What a .creds file holds. The seed signs what the server sends, and is not sent itself."""

    jwt: str
    seed: str

    def __repr__(self) -> str:
        return "<Credentials>"

    @property
    def text(self) -> str:
        """The content of such a file, in the one form that nats-py reads correctly."""
        parts = ((_JWT, self.jwt), (_SEED, self.seed))
        return "".join(f"-----{title}-----\n{part}\n------END------\n" for title, part in parts)


def current(option: str, secret: str | SecretFunction) -> str:
    """Return the text of a secret. Raise NotSent, with the option's name, if its function fails.

    The error has neither the exception of the function nor its text, which may hold the secret.
    """
    if isinstance(secret, str):
        return secret
    failure = "cannot be imported"
    answer: object = None
    try:
        function = secret.find()
        failure = "failed"
        answer = function()
        failure = ""
    except BaseException as error:  # a SystemExit, too, would end only this thread
        failure += f": {type(error).__name__}{_place(error)}"
    if not failure:
        if isinstance(answer, Path):
            answer = str(answer)
        if isinstance(answer, str) and answer.strip():
            return answer.rstrip("\r\n")  # of a file that the function has read
        failure = f"returned {_describe(answer)}, not a text with the secret"
    # Raised outside of the except block, since that would attach the function's exception.
    raise NotSent(f"{option}: the function {secret} {failure}")


def _place(error: BaseException) -> str:
    """Return the last line outside of Python's library where an exception passed, and not its text.

    Return an empty string if there is none, as where a module is not found.
    """
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith("<frozen") and not _is_library(file):
            place = f" in {file}, line {line}"
    return printable(place)


def _is_library(file: str) -> bool:
    return file.startswith(_LIBRARY) and "site-packages" not in file


def _describe(answer: object) -> str:
    if inspect.iscoroutine(answer):
        answer.close()  # or Python warns that nothing has awaited it
        return "a coroutine"
    return (
        "an empty text" if isinstance(answer, str) else f"a value of type {type(answer).__name__}"
    )


def read_credentials(option: str, path: str, title: str) -> Credentials:
    """Return what a .creds file holds. Raise NotSent, with the option's name, if it cannot be used.

    ``title`` is what errors call the file.
    """
    if holds_content(path):
        raise NotSent(
            f"{option}: {title} is the content of a file, which belongs in CREDENTIALS_CONTENT, "
            "and not a path"
        )
    try:
        content = Path(path).read_text("utf-8", errors="replace")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not the path of a file"
    else:
        return parse_credentials(f"{option}: {title}", content)
    raise NotSent(f"{option}: {title} cannot be read: {reason}")


def parse_credentials(what: str, content: str) -> Credentials:
    """Return what the content of a .creds file says. ``what`` names it in errors.

    Line breaks of any system, byte order marks, and blanks around a line make no difference.
    """
    found: dict[str, str] = {}
    lines = [line.strip(_INVISIBLE) for line in content.splitlines()]
    for position, line in enumerate(lines[:-1]):
        for part in (_JWT, _SEED):
            if part in line and lines[position + 1]:
                found[part] = lines[position + 1]
    if len(found) != 2:
        raise NotSent(f"{what} does not hold a JWT and a seed, as a .creds file does")
    return Credentials(found[_JWT], checked_seed(what, found[_SEED]))


def checked_seed(what: str, text: str) -> str:
    """Return an nkey's seed without what may surround it. ``what`` names it in errors."""
    if util.find_spec("nkeys") is None:
        raise NotSent(f"{what} needs another package: pip install django-nats[nkeys]")
    import nkeys

    seed = text.strip(_INVISIBLE)
    is_valid = False
    try:
        nkeys.from_seed(bytearray(seed.encode())).wipe()
        is_valid = True
    except Exception:  # noqa: S110
        pass  # it is raised below, without the cause: its traceback shows the seed
    if not is_valid:
        raise NotSent(f"{what} holds no valid nkey seed")
    return seed


def holds_content(text: str) -> bool:
    """Return True for what is the content of a file rather than its path."""
    return "-----BEGIN" in text or "\n" in text.strip(_INVISIBLE)
