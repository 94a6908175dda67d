"""``python -m testproject.worker``: a process that asks for flags, as one that serves pages would.

It tells what it sees as lines of JSON, and ends when its input does: with whoever started it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TICK = 0.5  # seconds
VISITS = 100
"""Visits to a page that are pretended at each tick, and ask for every flag."""


class Worker:
    def __init__(self) -> None:
        from django.core.cache import cache

        from django_nats.signals import key_changed
        from testproject.magazine import flags

        self.flags = flags
        self.near = cache.near  # type: ignore[attr-defined]
        self.seen: dict[str, flags.Setting] = {}
        self.took: dict[str, str] = {}
        self.since = 0, 0
        """Hits and misses before the latest change."""
        self.a_read = self.told = ""
        self.news = threading.Event()
        self.ended = False
        key_changed.connect(self.changed)

    def changed(self, **kwargs: Any) -> None:
        self.news.set()

    def watch_input(self) -> None:
        while os.read(0, 1024):
            pass
        self.ended = True
        self.news.set()

    def run(self) -> None:
        threading.Thread(target=self.watch_input, daemon=True).start()
        self.attempt(self.find)
        while not self.ended:
            if self.news.wait(TICK):
                self.news.clear()
                self.attempt(self.look)  # first: what has changed need not wait for the database
                self.attempt(self.find)
            else:
                self.attempt(self.visit)

    def attempt(self, step: Callable[[], None]) -> None:
        from django_nats.exceptions import NatsError

        try:
            step()
        except NatsError as error:
            self.tell({"problem": str(error)})
        else:
            self.tell(self.state())

    def find(self) -> None:
        """Learn which flags there are."""
        from testproject.magazine.models import Flag

        names = set(Flag.objects.values_list("name", flat=True))
        for name in self.seen.keys() - names:
            del self.seen[name]
        for name in names - self.seen.keys():
            self.seen[name] = self.flags.read(name)

    def look(self) -> None:
        """Read every flag once, and note how long what is new has taken to get here."""
        before = self.near.hits, self.near.misses
        for name, known in list(self.seen.items()):
            found = self.flags.read(name)
            if found.on == known.on and found.written in (None, known.written):
                continue
            self.seen[name] = found
            self.since = before
            seconds = None if found.written is None else time.time() - found.written
            self.took[name] = "" if seconds is None else f"{seconds * 1000:.1f} ms"

    def visit(self) -> None:
        """Look, and read every flag as often as pages would."""
        self.look()
        began = time.perf_counter()
        for _ in range(VISITS):
            for name in self.seen:
                self.flags.enabled(name)
        seconds = time.perf_counter() - began
        if self.seen:
            self.a_read = f"{seconds / VISITS / len(self.seen) * 1e6:.1f} µs"

    def state(self) -> dict[str, str]:
        hits, misses = self.near.hits - self.since[0], self.near.misses - self.since[1]
        state = {
            "problem": "",
            "pid": str(os.getpid()),
            "feed": self.near.state,
            "hits": f"{hits:,}",
            "misses": f"{misses:,}",
            "rate": f"{hits / (hits + misses):.2%}" if hits + misses else "",
            "read": self.a_read,
        }
        for name, setting in self.seen.items():
            state[f"on-{name}"] = "on" if setting.on else "off"
            state[f"took-{name}"] = self.took.get(name, "")
        return state

    def tell(self, state: dict[str, str]) -> None:
        line = json.dumps(state)
        if line != self.told:
            self.told = line
            with suppress(BrokenPipeError):  # the input has ended, too
                os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    django.setup()
    Worker().run()
