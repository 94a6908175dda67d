"""The quick start, followed word for word in a new project, in both test runners."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from tests.servers import ROOT
from tests.test_docs import DOCS, WALKED, Block, blocks

pytestmark = pytest.mark.once

PAGE = DOCS / "quickstart.md"
PATIENCE = 850
"""Seconds after which a command counts as hung."""
PATIENT = """
for _options in (CACHES["default"]["OPTIONS"], *globals().get("NATS_COUNTERS", {}).values()):
    _options |= {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 60}
for _options in globals().get("NATS_COUNTERS", {}).values():
    _options["DEADLINE"] = 60
"""
"""Appended to the page's settings, since a call may take long on a busy machine."""
SESSION = """
import doctest, sys
text = open("session.txt").read()
session = doctest.DocTestParser().get_doctest(text, dict(globals()), "session", None, 0)
sys.exit(doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(session).failed)
"""


class Reader:
    """Does what the page says, up to the part about production."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.imports: list[str] = []
        self.commands: dict[str, str] = {}
        """What each command that the page shows has printed."""

    def read(self, block: Block) -> None:
        if block.language == "console":
            for line in re.findall(r"^\$ (.*)$", block.source, re.MULTILINE):
                self.command(line)
        elif block.file == "settings.py":
            settings = self.directory / "mysite" / "settings.py"
            settings.write_text(f"{settings.read_text()}\n{block.source}\n{PATIENT}")
        elif block.file == "urls.py":
            (self.directory / "mysite" / "urls.py").write_text(block.source)
        elif block.file in WALKED | {"models.py"}:
            (self.directory / "blog" / block.file).write_text(block.source)
        elif block.source.startswith("[pytest]"):
            (self.directory / "pytest.ini").write_text(block.source)
        elif block.language == "pycon":
            self.session(block.source)

    def command(self, line: str) -> None:
        program, *arguments = line.split()
        self.commands[line] = ""
        if program == "django-admin":
            self.run("-m", "django", *arguments)
        elif program == "cd" and (self.directory / arguments[0]).exists():
            self.directory /= arguments[0]
        elif program == "python":
            self.commands[line] = self.run(*arguments)
        else:
            assert program in ("git", "pip"), line

    def session(self, source: str) -> None:
        (self.directory / "session.txt").write_text("".join(self.imports) + source)
        self.run("manage.py", "shell", "-v0", "-c", SESSION)
        self.imports += re.findall(r"^>>> (?:from|import) .*\n", source, re.MULTILINE)

    def run(self, *command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-W", "ignore:This process:DeprecationWarning", *command],
            cwd=self.directory,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout}"
        return done.stdout


def test_the_quick_start_works_in_a_new_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    if "django_nats.pytest_plugin" not in {each.value for each in entry_points(group="pytest11")}:
        monkeypatch.setenv("PYTEST_PLUGINS", "django_nats.pytest_plugin")
    reader = Reader(tmp_path)
    end = PAGE.read_text().partition("\n## Go live")[0].count("\n")

    for block in blocks(PAGE):
        if block.line <= end:
            reader.read(block)

    assert "\nOK\n" in reader.commands["python manage.py test"]
    assert "\nOK\n" in reader.run("manage.py", "test", "--parallel", "2")
    assert "2 passed" in reader.commands["python -m pytest"]
    assert "2 passed" in reader.commands["python -m pytest -n 2"]


AWAY = """
import asyncio, json, re
import django
django.setup()
from blog import views
from blog.models import Article
from django.core.cache import cache
from django.template import Context, Template
from django.test import RequestFactory

article = Article.objects.create(title="On engines")
request = RequestFactory().get("/")
for call in range(2):
    assert cache.get("greeting", "a miss") == "a miss"
    assert cache.set("greeting", "hello") is None
    article.views.incr_later()
    assert Template("{{ article.views }}").render(Context({"article": article})) == ""
    print(answers())
"""
README_ANSWERS = """
def answers():
    like = asyncio.run(views.like(request, article.pk)).content
    return [view(request, *arguments).content.decode() for view, *arguments in (
        (views.front_page,), (views.read, article.pk)
    )] + [json.loads(like)]
"""
PAGE_ANSWERS = """
def answers():
    return views.article(request, article.pk).content.decode()
"""


@pytest.mark.parametrize(
    ("page", "code", "expected"),
    [
        (
            ROOT / "README.md",
            README_ANSWERS,
            "['<li>On engines ()', 'On engines', {'likes': None}]",
        ),
        (PAGE, PAGE_ANSWERS, "On engines, read None times"),
    ],
    ids=["README", "quick start"],
)
def test_the_pages_that_are_shown_work_while_nats_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page: Path, code: str, expected: str
) -> None:
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)
    reader = Reader(tmp_path)
    reader.run("-m", "django", "startproject", "mysite", ".")
    reader.run("manage.py", "startapp", "blog")
    settings = tmp_path / "mysite" / "settings.py"
    shown = [block for block in blocks(page) if block.file and "nats.internal" not in block.source]
    for block in shown:
        if block.file == "settings.py":
            away = block.source.replace('"embedded"', '"nats://127.0.0.1:1"')
            settings.write_text(settings.read_text() + away)
        elif block.file in ("models.py", "views.py"):
            module = tmp_path / "blog" / block.file
            module.write_text(module.read_text() + block.source)
    if '"blog"' not in settings.read_text():
        settings.write_text(settings.read_text() + '\nINSTALLED_APPS += ["blog"]\n')
    reader.run("manage.py", "makemigrations", "blog")
    reader.run("manage.py", "migrate")
    monkeypatch.setenv("DJANGO_SETTINGS_MODULE", "mysite.settings")
    (tmp_path / "away.py").write_text(f"{code}\n{AWAY}")

    assert reader.run("away.py").splitlines().count(expected) == 2
