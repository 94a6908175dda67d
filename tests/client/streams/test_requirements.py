"""Streams that others made or changed: what is refused, what W005 and setup say, what works."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from typing import Any

import pytest

from django_nats.cache import nats_caches
from django_nats.checks.streams import StreamOf, check_differences, of_caches, of_counters
from django_nats.client import drivers
from django_nats.client.counters.config import CounterConfig
from django_nats.client.kv.config import BucketConfig
from django_nats.client.streams.requirements import overlap
from django_nats.conf.counters import counter_settings
from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from django_nats.exceptions import BucketMismatch, CounterMismatch, LimitReached
from tests.conftest import PATIENT, lasting_consumer
from tests.counters.conftest import api_level
from tests.management.conftest import Nats, failing_nats, nats
from tests.servers import ROOT, request
from tests.support.foreign_streams import BUCKETS, COUNTERS, HARMLESS, Case, make_foreign

__all__ = ["failing_nats", "nats"]

pytestmark = pytest.mark.once


class Foreign:
    """A bucket or a stream of counters that settings name, and that others have made."""

    def __init__(self, settings: Any, server: NatsServer, kind: str, **options: object) -> None:
        self.kind, self.server = kind, server
        self._name = f"foreign_{secrets.token_hex(6)}"
        options = {"TOKEN": server.token, **PATIENT, **options}
        settings.CACHES, settings.NATS_COUNTERS = {}, {}
        if kind == "bucket":
            options["BUCKET"] = self._name
            backend = "django_nats.cache.NatsCache"
            entry = {"BACKEND": backend, "LOCATION": server.url, "OPTIONS": options}
            settings.CACHES = {"default": entry}
        else:
            options |= {
                "STREAM": self._name,
                "PREFIX": self._name,
                "STORAGE": "memory",
                "DEADLINE": 60,
            }
            settings.NATS_COUNTERS = {"default": {"LOCATION": server.url, **options}}

    @property
    def stream(self) -> StreamOf:
        if self.kind == "bucket":
            return of_caches(nats_caches())[0]
        return of_counters({"default": counter_settings("default")})[0]

    @property
    def config(self) -> Any:
        return self.stream.stream.config

    def api(self, subject: str, document: object = "") -> Any:
        return request(self.server, f"$JS.API.{subject}", document)

    def make(self, change: dict[str, Any]) -> None:
        make_foreign(self.api, self.config, change)

    def use(self) -> None:
        """Do what every promise is about: write, read, list, delete, and clear or reset."""
        if self.kind == "bucket":
            cache = nats_caches()["default"]
            for value in (1, 2):
                cache.set("key", value, 60)
                assert cache.get("key") == value
            assert not cache.add("key", 3)
            assert list(cache.iter_keys("*")) == ["key"]
            assert cache.delete("key")
            assert cache.get("key") is None
            cache.set("other", 1)
            cache.clear()
            assert cache.get("other") is None
        else:
            counter = Counter("a.b")
            assert (counter.incr(5), counter.incr(6), counter.value()) == (5, 11, 11)
            assert counter.set(10) == 10
            counter.reset()
            assert counter.value() == 0

    def open(self) -> None:
        drivers.run(self.stream.session, self.stream.stream.opening.open())

    def drop(self) -> None:
        for name in (self.config.stream, f"{self.config.stream}_other"):
            self.api(f"STREAM.DELETE.{name}")

    def check(self) -> str:
        """Return the text of W005, or an empty string."""
        return "".join(f"{each.msg} {each.hint}" for each in check_differences([self.stream]))


@pytest.fixture
def foreign(request: Any, settings: Any, server: NatsServer) -> Iterator[Foreign]:
    kind = request.param
    if kind == "counters" and api_level(server) < 2:
        pytest.skip("counters need nats-server 2.12")
    made = Foreign(settings, server, kind)
    yield made
    made.drop()


CASES = [
    *(("bucket", case) for case in BUCKETS),
    *(("counters", case) for case in COUNTERS),
]


def _id(value: object) -> str:
    if isinstance(value, Case):
        return " ".join(f"{name}={each}" for name, each in value.change.items())
    return str(value)


@pytest.mark.parametrize(("foreign", "case"), CASES, ids=_id, indirect=["foreign"])
def test_what_breaks_a_promise_is_named_at_opening_and_in_w005(
    foreign: Foreign, case: Case
) -> None:
    foreign.make(case.change)
    option = "BUCKET" if foreign.kind == "bucket" else "STREAM"
    if case.is_used:
        foreign.open()
    else:
        error = BucketMismatch if foreign.kind == "bucket" else CounterMismatch
        for _ in range(2):
            with pytest.raises(error) as caught:
                foreign.open()
        words = {"subjects": "holds", "sources": "takes over", "mirror": "is a mirror of"}
        assert words.get(case.field, case.field) in str(caught.value)
        assert foreign.config.stream in str(caught.value) or foreign.config.title in str(
            caught.value
        )
        assert f"hoose another {option}" in str(caught.value)
        assert ("nats setup` changes it" in str(caught.value)) is case.is_mended
    text = foreign.check()
    assert f"{case.field}: " in text
    assert "nats setup" in text
    if not case.is_mended:
        assert f"hoose another {option}" in text


@pytest.mark.parametrize(("foreign", "case"), CASES, ids=_id, indirect=["foreign"])
def test_setup_mends_what_the_server_can_change_and_refuses_the_rest(
    foreign: Foreign, case: Case, nats: Nats, failing_nats: Any
) -> None:
    foreign.make(case.change)
    before = foreign.api(f"STREAM.INFO.{foreign.config.stream}")["config"]
    if case.is_mended:
        assert f"    {case.field}: " in nats("setup")
        assert "nothing to do" in nats("setup")
        assert foreign.check() == ""
        foreign.use()
    else:
        output, _ = failing_nats("setup")
        (line,) = [each for each in output.splitlines() if each.startswith(f"    {case.field}: ")]
        assert "cannot be changed: " in line or "without losing data" in line
        assert foreign.api(f"STREAM.INFO.{foreign.config.stream}")["config"] == before


@pytest.mark.parametrize(("foreign", "change"), HARMLESS, ids=str, indirect=["foreign"])
def test_a_stream_that_is_only_unusual_is_used_and_left_alone(
    foreign: Foreign, change: dict[str, Any], nats: Nats
) -> None:
    foreign.make(change)
    assert foreign.check() == ""
    foreign.use()
    assert "nothing to do" in nats("setup")


@pytest.mark.parametrize("foreign", ["bucket", "counters"], indirect=True)
def test_direct_gets_that_are_switched_off_are_none_of_our_business_with_reads_leader(
    foreign: Foreign, settings: Any, server: NatsServer, nats: Nats
) -> None:
    made = Foreign(settings, server, foreign.kind, READS="leader")
    made.make({"allow_direct": False})
    made.use()
    assert made.check() == ""
    assert "nothing to do" in nats("setup")
    info = made.api(f"STREAM.INFO.{made.config.stream}")
    assert not info["config"]["allow_direct"]
    made.drop()


@pytest.mark.parametrize("foreign", ["bucket"], indirect=True)
def test_a_listing_beyond_max_consumers_is_refused_and_nothing_else(foreign: Foreign) -> None:
    foreign.make({"max_consumers": 1})
    name = foreign.config.stream
    assert "error" not in foreign.api(f"CONSUMER.CREATE.{name}.taken", lasting_consumer(name))
    cache = nats_caches()["default"]
    cache.set("key", 1)
    with pytest.raises(LimitReached):
        list(cache.iter_keys("*"))
    assert cache.get("key") == 1


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.>", "a.b", True),
        ("a.*", "a.b", True),
        ("a.*", "a.b.c", False),
        ("a", "a.b", False),
        ("a.b", "a.b", True),
        ("b.>", "a.>", False),
        (">", "a", True),
        ("*.b", "a.*", True),
    ],
)
def test_filters_overlap_if_a_subject_matches_both(one: str, other: str, expected: bool) -> None:
    assert overlap(one, other) is overlap(other, one) is expected


def test_every_field_is_in_the_docs() -> None:
    page = (ROOT / "docs/reference/errors.md").read_text()
    table = page.split("| Field | Must be |")[1].split("\n\n")[0]
    for config in (BucketConfig, CounterConfig):
        for each in config.requirements:
            assert f"`{each.field}`" in table
