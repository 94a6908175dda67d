"""Run every example in README and docs against the session's server. None can be skipped.

The blocks of a page share one namespace, in order. A block in a language that no branch of
Reader.read() handles must have a caption that says "not run".
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import doctest
import importlib.util
import inspect
import io
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
from django.db.models.base import ModelBase
from django.template import engines
from django.test import override_settings
from django.test.client import RequestFactory
from django.test.utils import isolate_apps

from django_nats.cache import NatsCache
from django_nats.conf.counters import counter_aliases, counter_settings
from django_nats.counters import write_behind
from django_nats.devserver import NatsServer
from django_nats.nearcache import near

from .conftest import MakeCache, api

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROJECT = 'CACHES = {"default": {"BACKEND": "django_nats.cache.NatsCache"}}'
"""The settings for the tests that a page shows, until the page shows settings of its own."""
READERS_SERVER = "nats://127.0.0.1:4222"
"""The URL of the reader's server in the pages; replaced by that of the session's server."""
NO_SERVER = "nats://127.0.0.1:1"
"""The URL of an unreachable server in the pages."""
ENVIRONMENT = {"NATS_PASSWORD": "open sesame", "NATS_TOKEN": "open sesame"}
TEXT = {"text", "{toctree}", "{eval-rst}", "{raw}", "{note}", "{warning}", "{tip}"}
WALKED = {"views.py", "urls.py", "tests.py"}
"""Files of the quick start, which test_quickstart.py puts in a new project and runs there."""
OTHER_PROGRAMS = {
    "nats",
    "nats-server",
    "git",
    "cd",
    "django-admin",
    "ruff",
    "mypy",
    "lint-imports",
}


class Block(NamedTuple):
    language: str
    source: str
    line: int

    @property
    def file(self) -> str:
        """Return the file that a block belongs to, named in its first comment."""
        match = re.match(r"# (\S+\.py)\b", self.source)
        return match[1] if match else ""


def blocks(page: Path) -> Iterator[Block]:
    """Yield the fenced blocks of a page, including indented ones."""
    text = page.read_text()
    fence = re.compile(r"^( *)(```+|:::+)(\S*)[^\n`]*\n(.*?)^\1\2$", re.MULTILINE | re.DOTALL)
    for match in fence.finditer(text):
        indent, _, language, body = match.groups()
        source = "".join(line.removeprefix(indent) for line in body.splitlines(keepends=True))
        yield Block(language, source, text.count("\n", 0, match.start()) + 1)


def name(page: Path) -> str:
    return str(page.relative_to(ROOT))


class Reader:
    """Runs the examples of a page as a reader would."""

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
        write_behind.discard()
        for each in near._near_caches.values():
            if each._watcher.started:
                each.stop()  # otherwise it would recreate its bucket to follow it
        self.settings.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def read(self, block: Block) -> None:
        if block.language == "console":
            self.check_commands(block)
        elif block.language == "pycon":
            self.run_session(block)
        elif block.language == "html+django":
            request = RequestFactory().get("/")
            engines["django"].from_string(block.source).render(self.names, request)
        elif block.language == "{code-block}":
            assert "not run" in block.source.partition("\n\n")[0], f"line {block.line}"
        elif block.language != "python":
            assert block.language in TEXT, f"line {block.line}: {block.language!r} is not run"
        elif block.file == "settings.py":
            self.change_settings(block)
        elif block.file == "models.py":
            self.make_models(block)
        elif block.file in WALKED and self.page == "docs/quickstart.md":
            pass
        elif re.search(r"^(async )?def test_|^class \w*Tests?\b", block.source, re.MULTILINE):
            self.run_tests(block)
        else:
            known = dict(self.names)
            self.execute(self.with_known_models(block.source), block.line, "exec")
            for each in [*self.names]:
                if self.names[each] is not known.get(each):
                    self.visit(self.names[each])

    def with_known_models(self, source: str) -> str:
        """Return a block without its imports of models, which the page must have shown."""

        def known(found: re.Match[str]) -> str:
            assert found[1] in self.names, f"the page has no model {found[1]}"
            return ""

        return re.sub(r"^from \.models import (\w+)$", known, source, flags=re.MULTILINE)

    def visit(self, view: Any) -> None:
        """Call a view as Django would, if the object is one."""
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

    def run_session(self, block: Block) -> None:
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
        """Load settings as written, and keep them for the page if the session's server fits."""
        names = {"INSTALLED_APPS": [], "MIDDLEWARE": [], "BASE_DIR": self.directory}
        before = dict(names)
        self.project = block.source
        self.execute(block.source, block.line, "exec", names)
        changed = {key: names[key] for key in names if key.isupper() and key not in before}
        with override_settings(**{"DEBUG": True, **changed}):  # as in a new project
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
        """Create the models of an app and their tables, until the page ends."""
        self.settings.enter_context(isolate_apps("tests.magazine"))
        names = {"__name__": "tests.magazine.models"}
        self.execute(block.source, block.line, "exec", names)
        self.names |= {name: names[name] for name in names if not name.startswith("__")}
        for model in names.values():
            if isinstance(model, ModelBase) and model.__module__ == "tests.magazine.models":
                with connection.schema_editor() as editor:
                    editor.create_model(model)
                self.settings.callback(self.drop_model, model)

    def drop_model(self, model: Any) -> None:
        with connection.schema_editor() as editor:
            editor.delete_model(model)
        if admin.site.is_registered(model):
            admin.site.unregister(model)

    def run_tests(self, block: Block) -> None:
        """Run a project's tests in a separate process, as the project would."""
        base = f"from tests.settings import *\nBASE_DIR = {str(self.directory)!r}\n"
        (self.directory / "project.py").write_text(base + self.project)
        (self.directory / "test_example.py").write_text(block.source)
        (self.directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        command = [sys.executable, "-m", "pytest", "-q", "--ds", "project", "test_example.py"]
        if "django_nats.pytest_plugin" not in {
            each.value for each in entry_points(group="pytest11")
        }:
            command += [
                "-p",
                "django_nats.pytest_plugin",
            ]  # it is not installed
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT), "."))}
        done = subprocess.run(command, env=environment, cwd=self.directory, capture_output=True)
        assert done.returncode == 0, done.stdout.decode()

    def check_commands(self, block: Block) -> None:
        for line in block.source.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                for command in line[2:].split(" && "):
                    check_command(shlex.split(command, comments=True))


@contextlib.contextmanager
def read(page: Path, server: NatsServer, cache: NatsCache, directory: Path) -> Iterator[Reader]:
    """Run all examples of a page. Yield its reader, and delete what the page has stored."""
    before = api(cache, "STREAM.NAMES")["streams"] or []
    reader = Reader(page, server, directory)
    try:
        for block in blocks(page):
            reader.read(block)
        yield reader
    finally:
        reader.close()
        for stream in api(cache, "STREAM.NAMES")["streams"] or []:
            if stream not in before:
                api(cache, f"STREAM.DELETE.{stream}")


def check_command(words: list[str]) -> None:
    """Fail if a command line names a command, option, extra or file that does not exist."""
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


# Since 3.12, Python warns of every fork of a process with threads.
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.django_db(transaction=True)  # SQLite makes no tables in a transaction
@pytest.mark.parametrize("page", PAGES, ids=name)
def test_all_examples_of_a_page_run(
    page: Path,
    server: NatsServer,
    make_cache: MakeCache,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for variable, value in ENVIRONMENT.items():
        monkeypatch.setenv(variable, value)
    with read(page, server, make_cache(), tmp_path):
        pass


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
def test_a_wrong_example_is_detected(
    language: str, source: str, server: NatsServer, tmp_path: Path
) -> None:
    reader = Reader(DOCS / "index.md", server, tmp_path)
    try:
        with pytest.raises((Exception, SystemExit)):
            reader.read(Block(language, source + "\n", 1))
    finally:
        reader.close()


def test_every_link_has_a_text() -> None:
    for page in PAGES:
        assert "[](" not in page.read_text(), name(page)


def test_every_fenced_block_of_a_page_is_found() -> None:
    for page in PAGES:
        fences = re.findall(r"^ *(?:```|:::)", page.read_text(), re.MULTILINE)
        assert len(fences) == 2 * len(list(blocks(page))), name(page)
