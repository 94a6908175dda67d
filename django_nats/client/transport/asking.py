"""Reading the secrets of a connection without holding up the loop, and within a limit of time."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import Any

from ...exceptions import NotSent
from .config import ConnectionConfig


class Asking:
    """Reads the options with which one session connects, on the loop's thread.

    Functions of the project are asked on a thread of their own, which is not waited for at exit. A
    function that hangs takes one thread, and not one more for each attempt to connect.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._question: _Question | None = None
        """The question whose answer has not been used yet."""

    async def options(self) -> dict[str, Any]:
        """Return the arguments for nats-py's connect(), as they are now.

        Raise NotSent if a secret cannot be had within CONNECT_TIMEOUT, or cannot be used.
        """
        config = self._config
        if not config.reads:
            return config.client_options()
        # An answer that was too late for its attempt is used now. Otherwise a function that always
        # takes a little longer than CONNECT_TIMEOUT would never be heard.
        question = self._question = self._question or _Question(config)
        waiting = {question.answered}
        done, _ = await asyncio.wait(waiting, timeout=config.connect_timeout)
        if not done:
            what = " and ".join(config.asked_for) or "a file of the settings"
            where = f"{config.entry}: " if config.entry else ""
            raise NotSent(f"{where}{what} could not be read within CONNECT_TIMEOUT")
        self._question = None
        return question.result()


class _Question:
    """One reading of the options, on a thread of its own.

    The answer is not the future's result, since asyncio may log that.
    """

    def __init__(self, config: ConnectionConfig) -> None:
        self._config = config
        self._options: dict[str, Any] | None = None
        self._failure: Exception | None = None
        self._loop = asyncio.get_running_loop()
        self.answered: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._ask, name="django-nats-secrets", daemon=True).start()

    def _ask(self) -> None:
        try:
            self._options = self._config.client_options()
        except Exception as error:
            self._failure = error
        with suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._note)

    def _note(self) -> None:
        if not self.answered.done():
            self.answered.set_result(None)

    def result(self) -> dict[str, Any]:
        if self._options is None:
            raise self._failure or NotSent()
        return self._options
