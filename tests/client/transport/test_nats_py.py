"""A nats-py that lacks a name that the connection needs is refused, with one line in the log."""

from __future__ import annotations

import shutil
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nats
import pytest

from django_nats.client.transport import nats_py
from django_nats.client.transport.nats_py import REQUIREMENT
from django_nats.devserver import NatsServer
from django_nats.exceptions import DriverMismatch
from tests.support.scripts import run_script

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.once

_PRELUDE = """
import sys
sys.path.insert(0, sys.argv[4])
import asyncio, logging
from django.conf import settings
settings.configure(
    SECRET_KEY="only-for-tests",
    NATS_COUNTERS={"default": {"LOCATION": sys.argv[1], "TOKEN": sys.argv[3]}},
)
from django_nats.cache import NatsCache
from django_nats.counters import counters
from django_nats.exceptions import NatsError
logging.basicConfig(format="%(message)s")
options = {"BUCKET": sys.argv[2], "TOKEN": sys.argv[3], "CONNECT_TIMEOUT": 3000.0}
cache = NatsCache(sys.argv[1], {"OPTIONS": options})
open_cache = NatsCache(sys.argv[1], {"OPTIONS": {**options, "FAIL_OPEN": True}})
print("ready", flush=True)
sys.stdin.readline()
"""
_CALLS = """
for call in (
    lambda: cache.get("k"),
    lambda: cache.get("k"),
    lambda: asyncio.run(cache.aset("k", 1)),
    lambda: open_cache.get("k"),
    lambda: counters.incr("k"),
):
    try:
        print(call())
    except NatsError as error:
        print(type(error).__name__, error)
"""
_LINE = (
    "No connection to NATS at {url}: nats-py 2.99.0 lacks {name}, which django-nats needs. Install "
    "a version that it supports: pip install 'nats-py{requirement}'"
)


def doctored(folder: Path, old: str, new: str) -> Path:
    """Return a folder with another version of nats-py, in which a text is replaced."""
    (theirs,) = nats.__path__
    shutil.copytree(theirs, folder / "nats")
    changed = 0
    for module in (folder / "nats" / "aio").glob("*.py"):
        text = module.read_text()
        changed += text.count(old)
        module.write_text(text.replace(old, new))
    assert changed
    metadata = folder / "nats_py-2.99.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: nats-py\nVersion: 2.99.0\n")
    return folder


@pytest.mark.parametrize(
    ("old", "new", "name"),
    [
        ("def _send_ping", "def _ping", "Client._send_ping"),
        ("self._pings_outstanding", "self._unanswered", "Client._pings_outstanding"),
        ("self._io_writer", "self._writer", "TcpTransport._io_writer"),
        ("class TcpTransport(", "class Tcp(", "nats.aio.transport.TcpTransport"),
    ],
)
def test_the_error_names_the_version_what_is_missing_and_what_to_install(
    server: NatsServer, tmp_path: Path, old: str, new: str, name: str
) -> None:
    folder = doctored(tmp_path, old, new)
    if name == "nats.aio.transport.TcpTransport":
        client = folder / "nats" / "aio" / "client.py"
        client.write_text(client.read_text().replace("TcpTransport", "Tcp"))
    ended = run_script(_CALLS, server.url, "refused", server.token, str(folder), prelude=_PRELUDE)
    line = _LINE.format(url=server.url, name=name, requirement=REQUIREMENT)
    assert ended.stdout.splitlines() == [f"DriverMismatch {line}"] * 5, ended
    # One line for each session: cache and counters have different timeouts.
    assert ended.stderr.splitlines() == [line, line]


def test_the_error_says_that_nats_py_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    monkeypatch.setattr("importlib.metadata.version", version)
    with pytest.raises(DriverMismatch, match=r"^nats-py is not installed: .*pip install 'nats-py>"):
        nats_py.require_names()


def test_a_nats_py_with_all_names_is_accepted_whatever_its_version(
    server: NatsServer, tmp_path: Path
) -> None:
    folder = doctored(tmp_path, "# ", "#  ")
    ended = run_script(
        'cache.set("k", 1); print(cache.get("k"), sys.modules["nats"].__path__[0])',
        *(server.url, "accepted", server.token, str(folder)),
        prelude=_PRELUDE,
    )
    assert ended.stdout == f"1 {folder / 'nats'}", ended


def test_the_error_names_the_versions_that_the_package_requires() -> None:
    project = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
    assert f"nats-py{REQUIREMENT}" in project["dependencies"]
