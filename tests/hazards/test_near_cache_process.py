"""Near caches in processes that fork, exit, run many threads and loops, or bound their memory."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from django_nats.devserver import NatsServer
from tests.support.scripts import FORK, Ended, run_script

Script = Callable[..., Ended]
Trouble = Callable[[NatsServer], None]

_PRELUDE = """
import asyncio, sys, threading, time
from concurrent.futures import ThreadPoolExecutor
from django.conf import settings
settings.configure(SECRET_KEY="only-for-tests")
from django_nats.cache import NatsCache
from django_nats.devserver.files import eventually

def make(**options):
    common = {"BUCKET": sys.argv[2], "TOKEN": sys.argv[3],
              "CONNECT_TIMEOUT": 3000.0, "REQUEST_TIMEOUT": 3000.0}
    return NatsCache(sys.argv[1], {"OPTIONS": {**common, **options}})

def soon(condition):
    return eventually(condition, time.monotonic() + 60)

def copied(key):
    hits = cache.near.hits
    cache.get(key)
    return cache.near.hits > hits

other = make(NAME="another process")  # it has its own connection and feed
"""
# Longer than a busy machine stands still, so that copies are served.
_NEAR = 'cache = make(NEAR_CACHE={"MAX_AGE": 600, "MAX_STALE": 60})\n'
_GO = """
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture(params=["asyncio", "uvloop"])
def script(request: pytest.FixtureRequest, own_server: NatsServer) -> Script:
    """Return a function that runs a program with ``cache``, a near cache, and ``other``."""
    if request.param == "uvloop":
        pytest.importorskip("uvloop")

    def run(code: str, *, near: str = _NEAR, **kwargs: object) -> Ended:
        where = (own_server.url, "near", own_server.token)
        return run_script(code, *where, loop=request.param, prelude=_PRELUDE + near, **kwargs)  # type: ignore[arg-type]

    return run


def _assert_prints_only(ended: Ended, stdout: str) -> None:
    assert (ended.status, ended.stdout, ended.stderr) == (0, stdout, "")


# Forks ---------------------------------------------------------------------------------------


def test_a_forked_child_starts_with_no_copies(script: Script) -> None:
    ended = script(
        FORK
        + """
other.set("key", "old", None)
assert soon(lambda: copied("key"))
go()
to_parent, from_child, from_parent, to_child = *os.pipe()[::-1], *os.pipe()

def child():
    os.write(to_parent, b".")
    os.read(from_parent, 1)
    assert cache.near.entries == 0 and cache.near.state == "not started", cache.near
    assert cache.get("key") == "new"
    assert soon(lambda: copied("key")), cache.near
    os.write(to_parent, b".")
    assert soon(lambda: cache.get("key") == "newer")
    assert cache.near.state == "whole"

pid = fork(child)
os.read(from_child, 1)
other.set("key", "new", None)
assert soon(lambda: cache.get("key") == "new")
os.write(to_child, b".")
os.read(from_child, 1)
flushes = cache.near.flushes
other.set("key", "newer", None)
assert succeeded(pid)
assert soon(lambda: cache.get("key") == "newer")
assert cache.near.flushes == flushes and cache.near.state == "whole"  # no new feed
print("done")
"""
    )
    _assert_prints_only(ended, "done")


def test_forks_work_while_threads_read_and_write(script: Script) -> None:
    ended = script(
        FORK
        + """
keys = [f"key:{number}" for number in range(50)]
cache.set_many(dict.fromkeys(keys, 0), None)
stop = threading.Event()
failures = []

def work(number):
    try:
        while not stop.is_set():
            for key in keys:
                cache.get(key)
            cache.set(f"mine:{number}", number)
            assert cache.get(f"mine:{number}") == number
    except BaseException as error:
        failures.append(error)

threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
for thread in threads:
    thread.start()
go()

def child(turn):
    cache.set(f"child:{turn}", turn)
    assert cache.get(f"child:{turn}") == turn
    assert soon(lambda: copied("key:1")), cache.near
    other.set("key:1", turn)
    assert soon(lambda: cache.get("key:1") == turn)

for turn in range(6):
    assert succeeded(fork(lambda: child(turn)))
stop.set()
for thread in threads:
    thread.join()
assert not failures, failures
assert soon(lambda: cache.get("key:1") == 5)
print("done")
"""
    )
    _assert_prints_only(ended, "done")


# The end -------------------------------------------------------------------------------------

_READ = """
other.set("key", "value")
assert soon(lambda: copied("key"))
"""
_DAEMONS = """
def read():
    while True:
        try:
            cache.get("key")
            cache.set("key", "value")
        except Exception:
            pass

async def aread():
    while True:
        try:
            await cache.aget("key")
            await cache.aset("key", "value")
        except Exception:
            await asyncio.sleep(0)

for number in range(4):
    threading.Thread(target=read, daemon=True).start()
threading.Thread(target=asyncio.run, args=(aread(),), daemon=True).start()
"""


@pytest.mark.parametrize("daemons", ["", _DAEMONS], ids=["idle", "in use"])
@pytest.mark.parametrize(
    "trouble",
    [lambda server: None, NatsServer.kill, NatsServer.pause],
    ids=["well", "killed", "stopped"],
)
def test_a_process_with_a_near_cache_exits_without_waiting(
    script: Script, own_server: NatsServer, daemons: str, trouble: Trouble
) -> None:
    quiet = "import logging; logging.getLogger('django_nats').setLevel('CRITICAL')\n"
    # Otherwise a stopped server would soon count as lost, and nothing would wait for it.
    unpinged = (
        "from django_nats.client.transport import connection; connection.PING_INTERVAL_S = 60\n"
    )
    ended = script(
        quiet + unpinged + _READ + daemons + _GO + "print('done')",
        when_ready=lambda process: trouble(own_server),
    )
    own_server.resume() if own_server.running else own_server.start()
    _assert_prints_only(
        ended, "done"
    )  # without waiting for a timeout: PATIENCE is shorter than one


# Threads and loops ---------------------------------------------------------------------------


def test_64_readers_find_no_torn_value(script: Script) -> None:
    """With few entries, so that copies are evicted and replaced while threads read them."""
    ended = script(
        _GO
        + """
import zlib
sys.setswitchinterval(1e-5)
keys = [f"key:{number}" for number in range(60)]
ends = threading.Event()
torn, failures = [], []

def value(number):
    body = f"{number}:" + "x" * (number % 5000)
    return f"{zlib.crc32(body.encode())} {body}"

def read(number):
    try:
        while not ends.is_set():
            for key in keys[number % 7::7]:
                found = cache.get(key)
                checksum, _, body = found.partition(" ")
                if int(checksum) != zlib.crc32(body.encode()):
                    torn.append(found)
    except BaseException as error:
        failures.append(repr(error))

def write(client):
    try:
        for number in range(50):
            client.set_many({key: value(number * 101 + index) for index, key in enumerate(keys)})
    except BaseException as error:
        failures.append(repr(error))

write(other)
assert soon(lambda: copied("key:1"))
readers = [threading.Thread(target=read, args=(number,)) for number in range(64)]
writers = [threading.Thread(target=write, args=(client,)) for client in (cache, other)]
for thread in readers + writers:
    thread.start()
for thread in writers:
    thread.join()
served = soon(lambda: cache.near.hits > 1000 or failures)
ends.set()
for thread in readers:
    thread.join()
assert not torn and not failures, (torn[:3], failures[:3])
assert cache.near.entries <= 40 and served, cache.near
expected = other.get_many(keys)
assert soon(lambda: cache.get_many(keys) == expected)
print("done")
""",
        near='cache = make(NEAR_CACHE={"MAX_ENTRIES": 40})\n',
    )
    _assert_prints_only(ended, "done")


def test_an_async_hit_returns_without_suspending(script: Script) -> None:
    """A copy is returned before anything else on the loop can run, in several loops at once."""
    ended = script(
        _READ
        + _GO
        + """
async def hits():
    steps = cache.aget("key")
    try:
        steps.send(None)
    except StopIteration as end:
        assert end.value == "value"
        return 1
    steps.close()
    return 0  # it suspended

async def visit(number):
    assert await cache.aget("key") == "value"
    found = sum([await hits() for _ in range(1000)])
    many = await cache.aget_many(["key"])
    await cache.aset(f"mine:{number}", number)
    assert await cache.aget(f"mine:{number}") == number
    return found, many

with ThreadPoolExecutor(6) as pool:
    visits = list(pool.map(lambda number: asyncio.run(visit(number)), range(6)))
assert visits == [(1000, {"key": "value"})] * 6, visits
other.set("key", "new")
assert soon(lambda: asyncio.run(cache.aget("key")) == "new")
print("done")
"""
    )
    _assert_prints_only(ended, "done")


# Memory --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "count", "mib"), [(300_000, 100, 8), (20, 3_300, 2)], ids=["large", "many"]
)
def test_memory_stays_within_bounds(script: Script, size: int, count: int, mib: int) -> None:
    ended = script(
        _GO
        + f"size, count, most = {size}, {count}, {mib} * 2**20"
        + """
import gc, tracemalloc
keys = [f"key:{number}" for number in range(count)]
for start in range(0, count, 1000):
    other.set_many({key: "%d" % hash(key) + "x" * size for key in keys[start:start + 1000]}, None)
cache.get("warm-up")
assert soon(lambda: cache.near.state == "whole")
del other
tracemalloc.start()
for _ in range(2):
    for start in range(0, count, 10 if size > 1000 else 500):
        cache.get_many(keys[start:start + (10 if size > 1000 else 500)])
gc.collect()
# Only allocations by the client: the process holds other objects for each key.
made = tracemalloc.take_snapshot().filter_traces([tracemalloc.Filter(True, "*/client/*")])
taken = sum(each.size for each in made.statistics("filename"))
near = cache.near
assert near.bytes <= most, near
assert near.bytes > 0.75 * most and near.entries < count, near  # filled, and evicted from
print("done" if taken < most + 2**19 else f"{taken / near.bytes:.2f} {near!r}")
""",
        near=f'near = {{"MAX_ENTRIES": 100_000, "MAX_BYTES": "{mib}MiB", "MAX_STALE": 60}}\n'
        "cache = make(NEAR_CACHE=near)\n",
    )
    _assert_prints_only(ended, "done")
