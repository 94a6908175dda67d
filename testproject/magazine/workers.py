"""The worker processes of the flags page, and what they tell."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

from testproject.magazine.streams import TICK
from testproject.magazine.totals import Totals

PATIENCE = 5  # seconds


class Workers:
    """Processes that run from when somebody first follows them until the event loop ends."""

    def __init__(self, *names: str) -> None:
        self.names = names
        self._told: dict[str, Totals] = {name: {} for name in names}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._following: set[asyncio.Event] = set()

    async def follow(self) -> AsyncGenerator[Totals, None]:
        """What all of them see: now, and as soon as one sees something new; at least once a tick.

        The names of a worker's totals begin with its own.
        """
        for name in self._told.keys() - self._running.keys():
            self._running[name] = asyncio.create_task(self._run(name))
        news = asyncio.Event()
        self._following.add(news)
        try:
            while True:
                news.clear()
                problems = {told["problem"] for told in self._told.values() if "problem" in told}
                told = {"problem": " ".join(filter(None, problems))}
                for name, totals in self._told.items():
                    told |= {f"{name}-{each}": text for each, text in totals.items()}
                yield told
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(news.wait(), TICK)
        finally:
            self._following.discard(news)

    async def _run(self, name: str) -> None:
        """Have a worker run, a new one whenever it has ended."""
        while True:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "testproject.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the site, which then ends its workers
            )
            assert process.stdin
            assert process.stdout
            try:
                async for line in process.stdout:
                    self._told[name] = json.loads(line)
                    for each in self._following:
                        each.set()
            finally:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), PATIENCE)
                except asyncio.TimeoutError:
                    process.kill()
            await asyncio.sleep(TICK)


WORKERS = Workers("one", "two")
