"""The lab: the running servers, and a worker process for each contestant and route."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from .contestants import Contestant
from .delay import Delay
from .measuring import SERVER_PID_VARIABLE
from .servers import Server

ROOT = Path(__file__).parents[2]
DIRECT, DELAYED = "direct", "delayed"
PATIENCE = 300.0
"""The seconds a job may take before it fails."""


class JobFailed(Exception):
    """A worker failed, or got a wrong result. The text is its traceback."""


class Worker:
    """A process with one contestant's cache."""

    def __init__(self, entry: dict[str, Any], environment: dict[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.benchmarks.worker", json.dumps(entry)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env={**os.environ, **environment},
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def call(self, function: str, arguments: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        try:
            print(
                json.dumps({"function": function, "arguments": arguments}), file=stdin, flush=True
            )
        except BrokenPipeError:
            raise JobFailed(f"The worker of {function} has ended") from None
        # The worker writes one line for each it reads, so nothing waits in Python's buffer.
        if not select.select([stdout], [], [], PATIENCE)[0]:
            self.end()
            raise JobFailed(f"{function} did not answer within {PATIENCE:g} s")
        line = stdout.readline()
        if not line:
            raise JobFailed(f"The worker ended during {function}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise JobFailed(answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    @property
    def ended(self) -> bool:
        return self._process.poll() is not None

    def end(self) -> None:
        """Kill the process. Unfinished work is not needed."""
        self._process.kill()
        self._process.communicate()


class Lab:
    """The running servers, and the workers, which are started when they are first needed.

    ``span`` is the number of seconds for which concurrent callers are measured.
    """

    def __init__(self, servers: dict[str, Server], *, span: float, quick: bool) -> None:
        self.servers = servers
        self.span = span
        self.quick = quick
        self._workers: dict[tuple[str, str], Worker] = {}
        self._delays: dict[str, Delay] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for worker in self._workers.values():
            worker.end()
        self._workers.clear()
        self._stack.close()

    def server(self, contestant: Contestant) -> Server | None:
        """Return the server of a contestant, or None for a cache within the process."""
        return self.servers[contestant.server] if contestant.server else None

    def entry(self, contestant: Contestant, route: str = DIRECT) -> dict[str, Any]:
        """Return the contestant's entry of CACHES."""
        server = self.server(contestant)
        if server is None:
            return contestant.entry("")
        return contestant.entry(f"127.0.0.1:{self._port(server, route)}")

    def environment(self, contestant: Contestant) -> dict[str, str]:
        """Return the environment variables of a process that uses the contestant."""
        server = self.server(contestant)
        pid = "" if server is None else str(server.pid)
        return {**contestant.environment, SERVER_PID_VARIABLE: pid}

    def call(
        self,
        contestant: Contestant,
        function: str,
        route: str = DIRECT,
        *,
        fresh: bool = False,
        **arguments: Any,
    ) -> dict[str, Any]:
        """Return the result of ``module:function`` for the contestant's cache and the arguments.

        It runs in the worker of the contestant and route. If ``fresh``, it runs in a new worker,
        which is ended afterwards. Raises JobFailed.
        """
        if fresh:
            worker = self.worker(contestant, route)
            try:
                return worker.call(function, arguments)
            finally:
                worker.end()
        known = self._workers.get((contestant.name, route))
        if known is None or known.ended:
            known = self._workers[contestant.name, route] = self.worker(contestant, route)
        return known.call(function, arguments)

    def worker(self, contestant: Contestant, route: str = DIRECT) -> Worker:
        """Start another worker, which runs beside the others. The caller must end it."""
        return Worker(self.entry(contestant, route), self.environment(contestant))

    def _port(self, server: Server, route: str) -> int:
        if route == DIRECT:
            return server.port
        if server.name not in self._delays:
            self._delays[server.name] = self._stack.enter_context(Delay(server.port))
        return self._delays[server.name].port
