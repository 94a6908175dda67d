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
import os
import re
import shlex
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from django.conf import settings
from django.core.cache import caches
from django.core.management import get_commands, load_command_class
from django.template import engines
from django.test import override_settings
from django.test.client import RequestFactory

from django_nats.devserver import NatsServer

from .conftest import MakeCache, api

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
PROJECT = 'CACHES = {"default": {"BACKEND": "django_nats.cache.NatsCache"}}'
"""Settings of a project whose tests a page shows, until the page shows some."""
READERS_SERVER = "nats://127.0.0.1:4222"
"""What the pages call the reader's server; the session's one stands in for it."""
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
        elif re.search(r"^(async )?def test_|^class \w*Tests?\b", block.source, re.MULTILINE):
            self.run_tests(block)
        else:
            self.execute(block.source, block.line, "exec")

    def execute(self, source: str, line: int, mode: str, names: dict[str, Any] | None = None) -> None:
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
        """Build the caches as written, and use them from here on if the session's server can."""
        names = {"INSTALLED_APPS": [], "MIDDLEWARE": [], "BASE_DIR": self.directory}
        before = dict(names)
        self.project = block.source
        self.execute(block.source, block.line, "exec", names)
        changed = {key: names[key] for key in names if key.isupper() and key not in before}
        with override_settings(**changed):
            assert [caches[alias] for alias in settings.CACHES]
        entries = changed.get("CACHES", {}).values()
        if all(entry.get("LOCATION") in ("embedded", self.location) for entry in entries):
            for entry in entries:
                entry["LOCATION"] = self.location
            self.settings.enter_context(override_settings(**changed))

    def run_tests(self, block: Block) -> None:
        """Run a project's tests as the project would, in a process of their own."""
        base = f"from tests.settings import *\nBASE_DIR = {str(self.directory)!r}\n"
        (self.directory / "project.py").write_text(base + self.project)
        (self.directory / "test_example.py").write_text(block.source)
        (self.directory / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
        command = [sys.executable, "-m", "pytest", "-q", "--ds", "project", "test_example.py"]
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
