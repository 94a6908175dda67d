"""The functions of the page on feature flags lose no switch and no line of the audit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.cache import caches
from django.db import transaction
from django.test import RequestFactory, override_settings

from django_nats.cache import NatsCache, nats_cache
from django_nats.devserver import NatsServer
from tests.conftest import MakeCache
from tests.support.process import run_in_processes
from tests.test_docs import DOCS, NO_SERVER, blocks, read

PAGE = DOCS / "how-to/feature-flags.md"
PROCESSES, SWITCHES = 4, 25

pytestmark = pytest.mark.django_db(transaction=True)  # SQLite makes no tables in a transaction


@pytest.fixture
def page(server: NatsServer, make_cache: MakeCache, tmp_path: Path) -> Iterator[dict[str, Any]]:
    """Yield the names that the page defines."""
    with read(PAGE, server, make_cache(), tmp_path) as reader:
        yield reader.names


def meanwhile(page: dict[str, Any], name: str, action: Callable[[], object]) -> None:
    """Run an action at the beginning of the next call of one of the page's functions."""
    function, actions = page[name], [action]

    def called(*args: Any, **kwargs: Any) -> Any:
        if actions:
            actions.pop()()
        return function(*args, **kwargs)

    page[name] = called


def audit(name: str) -> list[tuple[str, bool]]:
    """Return who has switched a flag, and to which state, from the first change to the latest."""
    return [(each["by"], each["on"]) for each in caches["flags"].get(name)["changes"]]


class User:
    """A user who may change flags."""

    def __init__(self, name: str) -> None:
        self.name = name

    def get_username(self) -> str:
        return self.name

    def has_perms(self, permissions: tuple[str, ...]) -> bool:
        return permissions == ("shop.change_flagchange",)


def submit(page: dict[str, Any], by: str, **fields: str) -> Any:
    request: Any = RequestFactory().post("/flags/menu/", fields)
    request.user = User(by)
    return page["flag_page"](request, "menu")


class TestSwitch:
    def test_two_concurrent_switches_are_both_in_the_audit(self, page: dict[str, Any]) -> None:
        meanwhile(page, "changed", lambda: page["switch"]("menu", False, "bob"))
        flag = page["switch"]("menu", True, "ada")

        assert audit("menu") == [("bob", False), ("ada", True)]
        assert flag == caches["flags"].get("menu")
        assert page["enabled"]("menu")

    def test_concurrent_processes_lose_no_switch(
        self, server: NatsServer, cache: NatsCache
    ) -> None:
        [flags] = [each.source for each in blocks(PAGE) if each.file == "flags.py"]
        code = f"""
import os
from django.core.cache import caches
caches["flags"] = cache
{flags}
for number in range({SWITCHES}):
    switch("menu", number % 2 == 0, f"{{os.getpid()}}-{{number}}")
print(os.getpid())
"""
        pids = run_in_processes(server, cache, code, count=PROCESSES)

        flag = cache.get("menu")
        by = [each["by"] for each in flag["changes"]]
        for pid in pids:
            own = [each for each in by if each.startswith(f"{pid}-")]
            assert own == [f"{pid}-{number}" for number in range(SWITCHES)]
        assert len(by) == PROCESSES * SWITCHES
        assert flag["on"] == flag["changes"][-1]["on"]
        assert flag["version"] == flag["changes"][-1]["id"]

    def test_every_flag_is_off_while_the_server_is_away(self, page: dict[str, Any]) -> None:
        page["switch"]("menu", True, "ada")
        away = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": NO_SERVER}
        with override_settings(CACHES={"default": away, "flags": away}):
            assert not page["enabled"]("menu")
        assert page["enabled"]("menu")


class TestSwitchIfUnchanged:
    def test_of_two_who_have_seen_the_same_version_the_second_is_told(
        self, page: dict[str, Any]
    ) -> None:
        seen = page["switch"]("menu", False, "eve")["version"]
        responses = [submit(page, by, on="yes", version=seen) for by in ("ada", "bob")]

        assert [response.status_code for response in responses] == [302, 409]
        assert responses[1].context_data["flag"] == caches["flags"].get("menu")
        assert audit("menu") == [("eve", False), ("ada", True)]

    def test_a_switch_between_reading_and_writing_is_not_overwritten(
        self, page: dict[str, Any]
    ) -> None:
        seen = page["switch"]("menu", False, "eve")["version"]
        meanwhile(page, "changed", lambda: page["switch"]("menu", True, "bob"))
        assert submit(page, "ada", on="yes", version=seen).status_code == 409

        assert audit("menu") == [("eve", False), ("bob", True)]

    def test_a_flag_that_was_never_switched_has_a_version(self, page: dict[str, Any]) -> None:
        assert page["switch_if_unchanged"]("menu", True, "ada", page["UNKNOWN"]["version"])
        assert audit("menu") == [("ada", True)]


class TestArchive:
    def test_a_change_during_archiving_stays_in_the_cache(self, page: dict[str, Any]) -> None:
        page["switch"]("menu", True, "ada")
        meanwhile(page, "without", lambda: page["switch"]("menu", False, "bob"))
        page["archive"]("menu")
        rows = page["FlagChange"].objects.filter(flag="menu")

        assert [row.by for row in rows] == ["ada"]
        assert audit("menu") == [("bob", False)]
        page["archive"]("menu")
        assert {row.by: row.on for row in rows.all()} == {"ada": True, "bob": False}
        assert audit("menu") == []

    def test_a_rolled_back_archive_leaves_the_changes_in_the_cache(
        self, page: dict[str, Any]
    ) -> None:
        page["switch"]("menu", True, "ada")
        with transaction.atomic():
            page["archive"]("menu")
            transaction.set_rollback(True)

        assert not page["FlagChange"].objects.filter(flag="menu").exists()
        assert audit("menu") == [("ada", True)]

    def test_a_change_that_is_in_both_places_is_stored_once(self, page: dict[str, Any]) -> None:
        page["switch"]("menu", True, "ada")
        flag = caches["flags"].get("menu")
        page["archive"]("menu")
        caches["flags"].set("menu", flag)
        page["archive"]("menu")

        assert page["FlagChange"].objects.filter(flag="menu").count() == 1
        assert audit("menu") == []

    def test_a_flag_with_changes_that_are_not_archived_is_not_removed(
        self, page: dict[str, Any]
    ) -> None:
        page["switch"]("menu", True, "ada")
        assert not page["remove"]("menu")
        assert audit("menu") == [("ada", True)]
        page["archive"]("menu")
        assert page["remove"]("menu")
        assert caches["flags"].get("menu") is None

    def test_a_flag_that_is_switched_while_it_is_removed_stays(
        self, page: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        page["switch"]("menu", True, "ada")
        page["archive"]("menu")
        flags = nats_cache("flags")
        read_flag = flags.get_with_revision

        def read_before_a_switch(*args: Any) -> Any:
            found = read_flag(*args)
            page["switch"]("menu", False, "bob")
            return found

        monkeypatch.setattr(flags, "get_with_revision", read_before_a_switch)
        assert not page["remove"]("menu")
        assert audit("menu") == [("bob", False)]
