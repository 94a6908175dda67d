"""The worker processes of the flags page, and their reports."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

from testproject.magazine.streams import TICK_S
from testproject.magazine.totals import Totals

STOP_TIMEOUT_S = 5
"""How long a worker may take to end before it is killed."""


class Workers:
    """Processes that run from the first call of follow() until the event loop ends."""

    def __init__(self, *names: str) -> None:
        """Name the workers, without starting them."""
        self.names = names
        self._reports: dict[str, Totals] = {name: {} for name in names}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._followers: set[asyncio.Event] = set()

    async def follow(self) -> AsyncGenerator[Totals, None]:
        """Yield the reports of all workers at once, whenever they change, and at least once a tick.

        The names of a worker's totals begin with the name of the worker.
        """
        for name in self._reports.keys() - self._tasks.keys():
            self._tasks[name] = asyncio.create_task(self._run(name))
        changed = asyncio.Event()
        self._followers.add(changed)
        try:
            while True:
                changed.clear()
                problems = {each.get("problem") for each in self._reports.values()}
                totals = {"problem": " ".join(filter(None, problems))}
                for name, report in self._reports.items():
                    totals |= {f"{name}-{each}": text for each, text in report.items()}
                yield totals
                with suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(changed.wait(), TICK_S)
        finally:
            self._followers.discard(changed)

    async def _run(self, name: str) -> None:
        """Run a worker, and start it again whenever it has ended."""
        while True:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "testproject.worker"),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                start_new_session=True,  # Ctrl-C must reach only the site, which ends its workers
            )
            assert process.stdin
            assert process.stdout
            try:
                async for line in process.stdout:
                    self._reports[name] = json.loads(line)
                    for each in self._followers:
                        each.set()
            finally:
                process.stdin.close()
                try:
                    await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)
                except asyncio.TimeoutError:
                    process.kill()
            await asyncio.sleep(TICK_S)


WORKERS = Workers("one", "two")
