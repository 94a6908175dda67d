"""``python -m testproject.worker``: a process that reads flags, as one that serves pages does.

It writes its state as lines of JSON, and exits when its stdin is closed, that is, when the process
that started it ends.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

TICK_S = 0.5
VISITS = 100
"""The number of visits to a page that are simulated at each tick. Each reads every flag."""


class Worker:
    """A reader of flags, which reports their settings, and the hits and times of the near cache."""

    def __init__(self) -> None:
        """Listen for changes of keys."""
        from django.core.cache import cache

        from django_nats.signals import key_changed
        from testproject.magazine import flags

        self.flags = flags
        self.near = cache.near  # type: ignore[attr-defined]
        self.seen: dict[str, flags.Setting] = {}
        self.delays: dict[str, str] = {}
        """How long the latest change of each flag took to arrive."""
        self.counted_before = 0, 0
        """Hits and misses before the latest change."""
        self.following_since: float | None = None
        """When the near cache was first known to follow changes. A flag set before that is not
        timed: it waited for this process to start."""
        self.read_time = self.last_line = ""
        self.changed = threading.Event()
        self.ended = False
        key_changed.connect(self.on_change)

    def on_change(self, **kwargs: Any) -> None:
        """Wake the main loop. Called for each change that the server reports."""
        self.changed.set()

    def watch_input(self) -> None:
        """Wait until stdin is closed, and end the main loop."""
        while os.read(0, 1024):
            pass
        self.ended = True
        self.changed.set()

    def run(self) -> None:
        """Read the flags whenever one has changed, and otherwise once a tick."""
        threading.Thread(target=self.watch_input, daemon=True).start()
        self.attempt(self.find)
        while not self.ended:
            if self.changed.wait(TICK_S):
                self.changed.clear()
                self.attempt(self.look)  # first, since it does not wait for the database
                self.attempt(self.find)
            else:
                self.attempt(self.visit)

    def attempt(self, step: Callable[[], None]) -> None:
        """Run a step, and report the state, or the error if the server is unavailable."""
        from django_nats.exceptions import NatsError

        try:
            step()
        except NatsError as error:
            self.report({"problem": str(error)})
        else:
            self.report(self.state())

    def find(self) -> None:
        """Read from the database which flags exist."""
        from testproject.magazine.models import Flag

        names = set(Flag.objects.values_list("name", flat=True))
        for name in self.seen.keys() - names:
            del self.seen[name]
        for name in names - self.seen.keys():
            self.seen[name] = self.flags.read(name)

    def look(self) -> None:
        """Read every flag once. Record how long changes have taken to arrive."""
        before = self.near.hits, self.near.misses
        for name, known in list(self.seen.items()):
            found = self.flags.read(name)
            if found.on == known.on and found.written in (None, known.written):
                continue
            self.seen[name] = found
            self.counted_before = before
            self.delays[name] = self.delay_of(found)
        if self.following_since is None and self.near.state == "whole":
            self.following_since = time.time()

    def delay_of(self, setting: Any) -> str:
        """Return how long a setting took to arrive, if this process was following changes."""
        written, since = setting.written, self.following_since
        if written is None or since is None or written < since:
            return ""
        return f"{(time.time() - written) * 1000:.1f} ms"

    def visit(self) -> None:
        """Read the flags, then read each as often as pages would, and measure the time."""
        self.look()
        began = time.perf_counter()
        for _ in range(VISITS):
            for name in self.seen:
                self.flags.enabled(name)
        seconds = time.perf_counter() - began
        if self.seen:
            self.read_time = f"{seconds / VISITS / len(self.seen) * 1e6:.1f} µs"

    def state(self) -> dict[str, str]:
        """Return the state to report, keyed by the names that the page uses."""
        hits = self.near.hits - self.counted_before[0]
        misses = self.near.misses - self.counted_before[1]
        state = {
            "problem": "",
            "pid": str(os.getpid()),
            "feed": self.near.state,
            "hits": f"{hits:,}",
            "misses": f"{misses:,}",
            "rate": f"{hits / (hits + misses):.2%}" if hits + misses else "",
            "read": self.read_time,
        }
        for name, setting in self.seen.items():
            state[f"on-{name}"] = "on" if setting.on else "off"
            state[f"took-{name}"] = self.delays.get(name, "")
        return state

    def report(self, state: dict[str, str]) -> None:
        """Write a line of JSON, unless it is the same as the last one."""
        line = json.dumps(state)
        if line != self.last_line:
            self.last_line = line
            with suppress(BrokenPipeError):  # the site has ended
                os.write(1, line.encode() + b"\n")


if __name__ == "__main__":
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    django.setup()
    Worker().run()
