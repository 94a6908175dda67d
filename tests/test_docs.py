"""Every example in README and docs runs, against the session's server; none can be skipped.

The blocks of a page share one namespace, in order. What is in another language than those below
must have a caption that says "not run".
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib.util
import inspect
import io
import json
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.contrib import admin
from django.core.cache import caches
from django.core.management import get_commands, load_command_class
from django.db import connection
from django.template import engines
from django.test import override_settings
from django.test.client import RequestFactory
from django.test.utils import isolate_apps

from django_nats import checks, exceptions
from django_nats.cache import NatsCache
from django_nats.checks import feeds
from django_nats.client import bridge, kv, wire
from django_nats.conf import caches as conf
from django_nats.conf import nearcache
from django_nats.conf.counters import COUNTER_OPTIONS, counter_aliases, counter_settings
from django_nats.counters import Counter, Counters, later
from django_nats.devserver import NatsServer
from django_nats.exceptions import PermissionDenied
from django_nats.nearcache import near

from .conftest import MakeCache, api

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROJECT = 'CACHES = {"default": {"BACKEND": "django_nats.cache.NatsCache"}}'
"""Settings of a project whose tests a page shows, until the page shows some."""
READERS_SERVER = "nats://127.0.0.1:4222"
"""What the pages call the reader's server; the session's one stands in for it."""
NO_SERVER = "nats://127.0.0.1:1"
"""What they call one that is away."""
ENVIRONMENT = {"NATS_PASSWORD": "open sesame", "NATS_TOKEN": "open sesame"}
TEXT = {"text", "{toctree}", "{eval-rst}", "{raw}", "{note}", "{warning}", "{tip}"}
OTHER_PROGRAMS = {"nats", "nats-server", "git", "cd", "ruff", "mypy", "lint-imports"}


class Block(NamedTuple):
    language: str
    source: str
    line: int

    @property
    def file(self) -> str:
        """The file a block belongs to, by the comment it begins with."""
        match = re.match(r"# (\S+\.py)\b", self.source)
        return match[1] if match else ""


def blocks(page: Path) -> Iterator[Block]:
    """The fenced blocks of a page, indented ones too."""
    text = page.read_text()
    fence = re.compile(r"^( *)(```+|:::+)(\S*)[^\n`]*\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
    for match in fence.finditer(text):
        indent, _, language, body = match.groups()
        source = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        yield Block(language, source, text.count("\n", 0, match.start()) + 1)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Does what a reader of a page would do with its examples."""

    def __init__(self, page: Path, server: NatsServer, directory: Path) -> None:
        self.page = name(page)
        self.location = f"nats://{server.token}@127.0.0.1:{server.port}"
        self.directory = directory
        self.names: dict[str, Any] = {"__name__": "__main__"}
        self.project = PROJECT
        self.loop = asyncio.new_event_loop()
        self.settings = contextlib.ExitStack()
        backend = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": self.location}
        self.settings.enter_context(override_settings(CACHES={"default": backend}))

    def close(self) -> None:
        later.discard()
        for each in near._known.values():
            if each._watcher.started:
                each.stop()  # or it would make its bucket again, to follow it
        self.settings.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def read(self, block: Block) -> None:
        if block.language == "console":
            self.check_commands(block)
        elif block.language == "pycon":
            self.have_a_session(block)
        elif block.language == "html+django":
            request = RequestFactory().get("/")
            engines["django"].from_string(block.source).render(self.names, request)
        elif block.language == "{code-block}":
            assert "not run" in block.source.partition("\n\n")[0], f"line {block.line}"
        elif block.language != "python":
            assert block.language in TEXT, f"line {block.line}: nobody runs {block.language!r}"
        elif block.file == "settings.py":
            self.change_settings(block)
        elif block.file == "models.py":
            self.make_models(block)
        elif re.search(r"^(async )?def test_|^class \w*Tests?\b", block.source, re.MULTILINE):
            self.run_tests(block)
        else:
            known = dict(self.names)
            self.execute(block.source, block.line, "exec")
            for each in [*self.names]:
                if self.names[each] is not known.get(each):
                    self.visit(self.names[each])

    def visit(self, view: Any) -> None:
        """Call a view that the page defines as Django would; other objects are let be."""
        if inspect.isfunction(view) and list(inspect.signature(view).parameters) == ["request"]:
            response = view(RequestFactory().get("/"))
            if inspect.isawaitable(response):
                response = self.loop.run_until_complete(response)
            assert response.status_code == 200, view.__name__

    def execute(
        self, source: str, line: int, mode: str, names: dict[str, Any] | None = None
    ) -> None:
        code = compile(
            "\n" * line + source.replace(READERS_SERVER, self.location),
            self.page,
            mode,
            flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT,
            dont_inherit=True,
        )
        result = eval(code, self.names if names is None else names)
        if code.co_flags & inspect.CO_COROUTINE:
            self.loop.run_until_complete(result)

    def have_a_session(self, block: Block) -> None:
        checker, options = doctest.OutputChecker(), doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        for example in doctest.DocTestParser().get_examples(block.source):
            output = io.StringIO()
            line = block.line + example.lineno
            try:
                with contextlib.redirect_stdout(output):
                    self.execute(example.source, line, "single")
            except Exception as error:
                if example.exc_msg is None:
                    raise
                got, want = "".join(traceback.format_exception_only(error)), example.exc_msg
            else:
                got, want = output.getvalue(), example.exc_msg or example.want
            assert checker.check_output(want, got, options), f"line {line}: {got!r}, not {want!r}"

    def change_settings(self, block: Block) -> None:
        """Read settings as written, and use them from here on if the session's server can."""
        names = {"INSTALLED_APPS": [], "MIDDLEWARE": [], "BASE_DIR": self.directory}
        before = dict(names)
        self.project = block.source
        self.execute(block.source, block.line, "exec", names)
        changed = {key: names[key] for key in names if key.isupper() and key not in before}
        with override_settings(**changed):
            assert [caches[alias] for alias in settings.CACHES]
            assert all(counter_settings(alias) for alias in counter_aliases())
        entries = [*changed.get("CACHES", {}).values(), *changed.get("NATS_COUNTERS", {}).values()]
        known = ("embedded", self.location, NO_SERVER)
        if all(entry.get("LOCATION") in known for entry in entries):
            for entry in entries:
                if entry["LOCATION"] == "embedded":
                    entry["LOCATION"] = self.location
                    for options in (entry, entry.get("OPTIONS", {})):
                        options.pop("ALLOW_EMBEDDED", None)
            self.settings.enter_context(override_settings(**changed))

    def make_models(self, block: Block) -> None:
        """Make the models of an app, and their tables, until the page ends."""
        self.settings.enter_context(isolate_apps("tests.magazine"))
        names = {"__name__": "tests.magazine.models"}
        self.execute(block.source, block.line, "exec", names)
        self.names |= {name: names[name] for name in names if not name.startswith("__")}
        for model in names.values():
            if inspect.isclass(model) and model.__module__ == "tests.magazine.models":
                with connection.schema_editor() as editor:
                    editor.create_model(model)
                self.settings.callback(self.drop_model, model)

    def drop_model(self, model: Any) -> None:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        if admin.site.is_registered(model):
            admin.site.unregister(model)

    def run_tests(self, block: Block) -> None:
        """Run a project's tests as the project would, in a process of their own."""
        base = f"from tests.settings import *\nBASE_DIR = {str(self.directory)!r}\n"
        (self.directory / "project.py").write_text(base + self.project)
        (self.directory / "test_example.py").write_text(block.source)
        (self.directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        command = [sys.executable, "-m", "pytest", "-q", "--ds", "project", "test_example.py"]
        if "django_nats.pytest_plugin" not in {
            each.value for each in entry_points(group="pytest11")
        }:
            command += ["-p", "django_nats.pytest_plugin"]  # run from a checkout, not installed
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), "."))}
        done = subprocess.run(command, env=environment, cwd=self.directory, capture_output=True)
        assert done.returncode == 0, done.stdout.decode()

    def check_commands(self, block: Block) -> None:
        for line in block.source.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                for command in line[2:].split(" && "):
                    check_command(shlex.split(command, comments=True))


def check_command(words: list[str]) -> None:
    """Fail for a command line that cannot work: no such command, option, extra or file."""
    program, *arguments = words
    if arguments[:1] == ["manage.py"]:
        command, *options = arguments[1:]
        app = get_commands()[command]
        parser = load_command_class(app, command).create_parser("manage.py", command)
        parser.parse_args(options)
    elif program == "pip":
        extras = re.findall(r"\[([\w,]+)\]", " ".join(arguments))
        for extra in ",".join(extras).split(",") if extras else []:
            assert re.search(rf"^{extra} = \[", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    elif program == "python" and arguments[0] == "-m":
        assert importlib.util.find_spec(arguments[1]), f"no module {arguments[1]}"
    elif program == "tox":
        assert (ROOT / "tox.ini").exists()
        for environment in [] if "-e" not in arguments else arguments[1].split(","):
            assert environment in (ROOT / "tox.ini").read_text(), environment
    else:
        assert program in OTHER_PROGRAMS or (ROOT / program).exists(), program


# What Python says of every fork of a process with threads, from 3.12 on.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.django_db(transaction=True)  # sqlite makes tables outside of transactions only
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_the_examples_of_a_page_run(
    page: Path,
    server: NatsServer,
    make_cache: MakeCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    cache = make_cache()
    before = api(cache, "STREAM.NAMES")["streams"] or []
    reader = Reader(page, server, tmp_path)
    try:
        for block in blocks(page):
            reader.read(block)
    finally:
        reader.close()
        for stream in api(cache, "STREAM.NAMES")["streams"] or []:
            if stream not in before:
                api(cache, f"STREAM.DELETE.{stream}")


@pytest.mark.parametrize(
    ("language", "source"),
    [
        ("python", "assert 1 == 2"),
        ("python", "async def page(request):\n    return no_such_name"),
        ("python", "# settings.py\nCACHES = {'default': {'BACKEND': 'no.such.Backend'}}"),
        ("python", "# settings.py\nNATS_COUNTERS = {'default': {'STREM': 'MISSPELT'}}"),
        ("python", "def test_it(nats_cache):\n    assert nats_cache.get('key') == 1"),
        ("pycon", ">>> 1 + 1\n3"),
        ("pycon", ">>> print('nothing is expected')"),
        ("pycon", ">>> 1\nTraceback (most recent call last):\nValueError: not raised"),
        ("html+django", "{% no_such_tag %}"),
        ("console", "$ python manage.py nats no-such-subcommand"),
        ("console", "$ python manage.py check --no-such-option"),
        ("console", '$ pip install "django-nats[no_such_extra]"'),
        ("console", "$ python -m no_such_module"),
        ("console", "$ tox -e no-such-environment"),
        ("console", "$ pip install tox && no-such-program"),
        ("py", "nobody = 'runs this'"),
        ("{code-block}", ":caption: In another language\n\nprint()"),
    ],
)
def test_a_wrong_example_is_found(
    language: str, source: str, server: NatsServer, tmp_path: Path
) -> None:
    reader = Reader(DOCS / "index.md", server, tmp_path)
    try:
        with pytest.raises((Exception, SystemExit)):
            reader.read(Block(language, source + "\n", 1))
    finally:
        reader.close()


def test_every_link_has_a_text_of_its_own() -> None:
    for page in PAGES:
        assert "[](" not in page.read_text(), name(page)


def test_no_block_of_a_page_is_overlooked() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|:::)", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks(page))), name(page)


# What a page promises to be complete ---------------------------------------------------------


def text_of(page: str) -> str:
    return (DOCS / page).read_text()


def column(page: str, number: int = 0) -> list[str]:
    """The cells of one column of all tables of a page."""
    rows = re.findall(r"^\| .*\|$", text_of(page), re.MULTILINE)
    split = [row.strip("| ").split(" | ") for row in rows]
    return [cells[number] for cells in split if len(cells) > number]


def test_every_option_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", text_of("reference/settings.md"), re.M)
    documented = {option: ast.literal_eval(default) for option, default in rows}

    config = conf.cache_config(READERS_SERVER, {})
    actual = {
        **{
            option: getattr(config.connection, name)
            for option, name in conf.CONNECTION_OPTIONS.items()
        },
        **{
            option: getattr(config.bucket, name)
            for option, name in conf.BUCKET_OPTIONS.items()
            if option != "PLACEMENT"
        },
        "PLACEMENT": {},
        "SERIALIZER": "django_nats.serializers." + type(config.codec.serializer).__name__,
        "ACCEPT": list(config.codec.accept),
        "PICKLE_VERSION": None,
        "COMPRESSOR": config.codec.compressor,
        "COMPRESS_MIN_LENGTH": config.codec.compress_min_length,
        "FAIL_OPEN": config.fail_open,
        "NEAR_CACHE": config.near_cache,
        "EMBEDDED_DIR": None,
        "ALLOW_EMBEDDED": False,
    }
    assert documented == actual
    assert documented.keys() == conf.CACHE_OPTIONS


def test_every_member_of_near_cache_is_documented_with_its_default() -> None:
    rows = re.findall(r'^\| `"([A-Z_]+)"` \| `([^`]+)` \|', text_of("reference/settings.md"), re.M)
    documented = {member: ast.literal_eval(default) for member, default in rows}

    assert documented.keys() == nearcache.MEMBERS
    spelt_out = conf.cache_config(READERS_SERVER, {"OPTIONS": {"NEAR_CACHE": documented}})
    assert spelt_out.near_cache == nearcache.NearCacheConfig()


def test_every_option_of_counters_is_documented_with_its_default() -> None:
    rows = re.findall(r"^\| `([A-Z_]+)` \| `([^`]+)` \|", text_of("reference/counters.md"), re.M)
    documented = {option: ast.literal_eval(default) for option, default in rows}

    with override_settings(NATS_COUNTERS={"default": {}}):
        entry = counter_settings("default")
    stream = {"STREAM", "PREFIX", "STORAGE", "REPLICAS", "HISTORY", "MAX_AGE", "SOURCES"}
    actual = {
        "LOCATION": ",".join(entry.connection.servers),
        **{option: getattr(entry.stream, option.lower()) for option in stream},
        "SOURCES": [*entry.stream.sources],
        **{
            option: getattr(entry.stream, option.lower())
            for option in ("DEADLINE", "REQUEST_TIMEOUT")
        },
        **{
            option: getattr(entry, option.lower())
            for option in ("FAIL_OPEN", "FLUSH_INTERVAL", "FLUSH_AT", "MAX_PENDING")
        },
    }
    assert documented == actual
    page = text_of("reference/counters.md")
    assert documented.keys() | {each for each in COUNTER_OPTIONS if f"`{each}`" in page} == (
        COUNTER_OPTIONS
    )


def operations(of: type = NatsCache) -> set[str]:
    return {
        name[1:]
        for name in dir(of)
        if name[1:]
        and hasattr(of, "a" + name[1:])
        and inspect.isgeneratorfunction(getattr(of, name))
    }


def test_every_operation_on_counters_is_on_their_page() -> None:
    documented = re.findall(r"automethod:: (Counters?)\.(\w+)", text_of("reference/counters.md"))

    assert {name for owner, name in documented if owner == "Counter"} == {
        *operations(Counter),
        "incr_later",
    }
    assert {name for owner, name in documented if owner == "Counters"} == {
        *operations(Counters),
        *("incr_later", "flush", "aflush"),
    }


def test_what_counters_return_under_fail_open_is_told_of_every_method() -> None:
    table = text_of("reference/counters.md").partition("## What FAIL_OPEN returns")[2]
    documented = {
        method
        for row in re.findall(r"^\| (.*?) \|", table.partition("\nA counter as")[0], re.MULTILINE)
        for method in re.findall(r"`(\w+)`", row)
    }

    assert documented == {*operations(Counter), *operations(Counters), "incr_later", "flush"}


def test_every_operation_is_on_the_api_page() -> None:
    pages = text_of("reference/api.md") + text_of("reference/near_cache.md")
    documented = re.findall(r"automethod:: NatsCache\.(\w+)", pages)

    assert sorted(documented) == sorted({*operations(), "watch"})


def test_the_fail_open_table_has_every_method() -> None:
    page = text_of("how-to/when-the-server-is-away.md")
    table = page.partition("(what-fail-open-returns)=")[2].partition("\n\nWhat asks")[0]
    documented = {
        method
        for row in re.findall(r"^\| (.*?) \|", table, re.MULTILINE)
        for method in re.findall(r"`(\w+)`", row)
    }

    assert documented == {*operations(), "close", "in"}


def test_every_error_is_explained() -> None:
    page = text_of("reference/errors.md")
    tree, terms = page.split("```text")[1].split("```")[0], re.findall(r"^`(\w+)`", page, re.M)
    errors = {
        name
        for name, error in vars(exceptions).items()
        if isinstance(error, type) and issubclass(error, exceptions.NatsError)
    }

    assert set(re.findall(r"[A-Z]\w+", tree)) >= errors
    assert set(terms) | {"NatsError", "Unreadable", "ServerNotFound"} >= errors


def test_every_system_check_is_explained() -> None:
    ids = set(re.findall(r"django_nats\.[EW]\d{3}", inspect.getsource(checks)))

    assert {
        cell.strip("`") for cell in column("reference/checks.md") if "django_nats." in cell
    } == ids


def test_every_stored_header_is_in_the_wire_format() -> None:
    stored = set(re.findall(r'"((?:KV|Nats)-[\w-]+)"', inspect.getsource(kv)))
    documented = {cell.strip("`") for cell in column("reference/wire_format.md") if "-" in cell}

    assert documented >= {*stored, wire.FORMAT_HEADER, wire.KEY_HEADER}
    assert f"| `{kv.TOMBSTONE_TTL}` |" in text_of("reference/wire_format.md")


def test_the_permissions_the_docs_name_are_enough() -> None:
    cells = [cell for cell in column("how-to/configure.md", 1) if "$KV.web_cache" in cell]
    publish = re.findall(r"`([^`]+)`", cells[0])
    config = json.dumps({"permissions": {"publish": publish, "subscribe": ["_INBOX.>"]}})
    users = f"authorization {{ users: [{{ user: web, password: secret, {config[1:-1]} }}] }}"
    options = {"USER": "web", "PASSWORD": "secret", "BUCKET": "web_cache"}
    with NatsServer(token="", config=users) as server:
        for reads in ("any", "leader"):
            cache = NatsCache(server.url, {"OPTIONS": {**options, "READS": reads}})
            cache.set_many({"a": 1, "b": 2})
            assert cache.get("a") == 1
            assert cache.get_many(["a", "b"]) == {"a": 1, "b": 2}
            assert cache.incr("a") == 2
            assert sorted(cache.keys()) == ["a", "b"]
            assert cache.delete("a")
            cache.clear()
            assert cache.stats().connected
        near_options = {**options, "NEAR_CACHE": {}}
        followed = {"web": NatsCache(server.url, {"OPTIONS": near_options})}
        assert [*feeds.refused(followed)] == []
        elsewhere = NatsCache(server.url, {"OPTIONS": {**options, "BUCKET": "other"}})
        with pytest.raises(PermissionDenied):
            elsewhere.get("a")
        bridge.close()


def test_the_permissions_the_docs_name_are_enough_for_counters() -> None:
    cells = [cell for cell in column("reference/counters.md", 1) if "`counters.>`" in cell]
    publish = re.findall(r"`([^`]+)`", cells[0])
    config = json.dumps({"permissions": {"publish": publish, "subscribe": ["_INBOX.>"]}})
    users = f"authorization {{ users: [{{ user: web, password: secret, {config[1:-1]} }}] }}"
    with NatsServer(token="", config=users) as server:
        entry = {"LOCATION": server.url, "USER": "web", "PASSWORD": "secret"}
        aliases = {"default": entry, "other": {**entry, "STREAM": "OTHER"}}
        with override_settings(NATS_COUNTERS=aliases):
            counters = Counters()
            for number in range(1100):
                counters.incr_later(f"a.{number}")
            counters.flush()
            assert Counter("a.1").set(3) == 3
            assert Counter("a.1").value() == 3
            assert Counter("a.1").take()
            assert counters.get_many(["a.1", "a.2"]) == {"a.1": 2, "a.2": 1}
            assert counters.total("a.>") == 1101
            Counter("a.1").reset()
            with pytest.raises(PermissionDenied):
                Counters("other").incr("a")
        bridge.close()
