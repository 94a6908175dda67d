"""``manage.py nats setup`` and ``status`` for NATS_COUNTERS."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

from django_nats.client import drivers
from django_nats.client.protocol.steps import Steps
from django_nats.counters import Counter, Counters
from django_nats.devserver import NatsServer
from tests.counters.conftest import Configure, api_level, fill
from tests.management.conftest import Nats
from tests.servers import eventually

FailingNats = Callable[..., tuple[str, str]]
DEAD = "nats://127.0.0.1:1"


@pytest.fixture(autouse=True)
def _requires_counters(server: NatsServer, settings: Any) -> None:
    if api_level(server) < 2:
        pytest.skip("the server is too old for counters")
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}


def api(counters: Counters, subject: str, document: dict[str, Any] | None = None) -> dict[str, Any]:
    """Send a request to the JetStream API and return the answer, which may be an error."""

    def steps() -> Steps[dict[str, Any]]:
        payload = b"" if document is None else json.dumps(document).encode()
        reply = yield counters.stream.stream.api_request(f"$JS.API.{subject}", payload)
        return dict(json.loads(reply.payload))

    return drivers.run(counters.session, steps())


def stream(counters: Counters) -> dict[str, Any]:
    """Return the STREAM.INFO of an alias's stream, an error if there is no stream."""
    return api(counters, f"STREAM.INFO.{counters.settings.stream.stream}")


def make_stream(counters: Counters, **changes: Any) -> None:
    """Create an alias's stream with changes, as another program might."""
    document = {**counters.settings.stream.stream_config(), **changes}
    answer = api(counters, f"STREAM.CREATE.{document['name']}", document)
    assert "error" not in answer, answer


# setup ---------------------------------------------------------------------------------------


def test_setup_creates_the_stream_as_settings_say(configure: Configure, nats: Nats) -> None:
    counters = configure(HISTORY=4)

    output = nats("setup")

    name = counters.settings.stream.stream
    assert f"default: counter stream {name} on nats://127.0.0.1" in output
    assert "  created\n" in output
    assert "max_msgs_per_subject: 4" in output
    assert stream(counters)["config"]["allow_msg_counter"] is True
    assert "nothing to do" in nats("setup")


def test_plan_creates_nothing(configure: Configure, nats: Nats) -> None:
    counters = configure()

    assert "  would create\n" in nats("setup", "--plan")
    assert stream(counters)["error"]["err_code"] == 10059


def test_setup_updates_the_stream_and_keeps_totals(configure: Configure, nats: Nats) -> None:
    counters = configure(HISTORY=8)
    for _ in range(8):
        Counter("hits").incr()
    configure(HISTORY=2, DEADLINE=5)

    output = nats("setup")

    assert "  updated\n" in output
    assert "max_msgs_per_subject: 8 → 2" in output
    assert "duplicate_window: 30 s → 15 s" in output
    assert "subjects" not in output
    assert stream(counters)["state"]["messages"] == 2
    assert Counter("hits").incr() == 9
    assert "nothing to do" in nats("setup")


def test_setup_repairs_a_stream_that_counters_refuse(configure: Configure, nats: Nats) -> None:
    counters = configure()
    make_stream(counters, allow_direct=False, duplicate_window=10**9, max_msgs=9, deny_delete=False)

    output = nats("setup")

    assert output.count("→") == 4
    assert Counter("hits").incr() == 1
    assert stream(counters)["config"]["max_msgs"] == -1


def test_setup_keeps_values_that_settings_do_not_cover(configure: Configure, nats: Nats) -> None:
    counters = configure()
    make_stream(counters, placement={"tags": ["ssd"]}, metadata={"team": "web"}, description="old")

    nats("setup")

    config = stream(counters)["config"]
    assert (config["description"], config["metadata"]["team"]) == ("Django counters", "web")


def test_setup_changes_what_the_options_of_the_stream_say(configure: Configure, nats: Nats) -> None:
    counters = configure(MAX_BYTES="1MiB", COMPRESSION="s2", METADATA={"team": "web"})
    make_stream(
        counters, placement={"tags": ["ssd"]}, max_bytes=-1, compression="none", metadata={}
    )
    Counter("hits").incr(3)

    output = nats("setup")

    for line in (
        "max_bytes: -1 → 1048576",
        "compression: 'none' → 's2'",
        "placement: {'tags': ['ssd']} → None",
        "metadata: None → {'team': 'web'}",
    ):
        assert f"    {line}\n" in output
    assert "nothing to do" in nats("setup")
    assert Counter("hits").incr() == 4


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"storage": "file"}, "storage: 'file' → 'memory'"),
        ({"allow_msg_counter": False}, "allow_msg_counter: False → True"),
        ({"subjects": ["NAME.>"]}, ".>'] → ['"),
        ({"max_age": 0}, "max_age: none → 1 min"),
        ({"max_age": 90 * 10**9}, "max_age: 1 min 30 s → 1 min"),
        ({"max_bytes": 10**9}, "max_bytes: 1000000000 → 65536"),
    ],
    ids=str,
)
def test_setup_refuses_changes_that_would_lose_totals(
    configure: Configure, failing_nats: FailingNats, changes: dict[str, Any], reason: str
) -> None:
    counters = configure(MAX_AGE=60, MAX_BYTES="64KiB", HISTORY=1000)
    config = counters.settings.stream
    if "subjects" in changes:
        changes = {"subjects": [f"{config.stream}.other.>"]}
    make_stream(counters, **{"max_age": 60 * 10**9, "description": "old", **changes})
    if {"max_age", "max_bytes"} & changes.keys():
        for _ in range(1000 if "max_bytes" in changes else 1):
            drivers.run(counters.session, counters.stream.incr("hits", 1))
    before = stream(counters)

    output, error = failing_nats("setup")

    (refused,) = [line for line in output.splitlines() if "cannot be changed" in line]
    assert reason in refused
    assert "choose another STREAM" in output
    assert error == 'Not set up: NATS_COUNTERS["default"].'
    assert stream(counters)["config"] == before["config"]


@pytest.mark.parametrize(("before", "text"), [(0, "none"), (30 * 10**9, "30 s")])
def test_setup_sets_a_max_age_that_loses_no_totals(
    configure: Configure, nats: Nats, before: int, text: str
) -> None:
    """Nothing is counted yet, or MAX_AGE is longer than before."""
    counters = configure(MAX_AGE=(before or 60 * 10**9) / 10**9)
    make_stream(counters, max_age=before)
    if before:
        Counter("hits").incr()

    configure(MAX_AGE=60)
    assert f"max_age: {text} → 1 min" in nats("setup")


def test_setup_adds_a_region_and_refuses_to_drop_one(
    configure: Configure, nats: Nats, failing_nats: FailingNats
) -> None:
    names = []
    for alias in ("eu", "us"):
        names.append(configure(alias).settings.stream.stream)
        Counter("hits", alias=alias).incr(5)
    world = configure("world", SOURCES=names[:1])
    assert eventually(lambda: world.total("hits") == 5)

    configure("world", SOURCES=names)
    assert "  updated\n    sources: " in nats("setup", "--alias", "world")
    assert eventually(lambda: world.total("hits") == 10)
    assert "nothing to do" in nats("setup", "--alias", "world")

    configure("world", SOURCES=names[1:])
    assert "cannot be changed without losing data" in failing_nats("setup", "--alias", "world")[0]


def test_caches_and_counters_are_set_up_together(
    configure: Configure, nats: Nats, failing_nats: FailingNats, settings: Any
) -> None:
    configure("default")
    cache = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": DEAD}
    settings.CACHES = {"default": cache, "pages": {**cache, "OPTIONS": {"BUCKET": "pages"}}}
    settings.NATS_COUNTERS = {**settings.NATS_COUNTERS, "eu": {"LOCATION": DEAD}}

    output, error = failing_nats("setup", "--plan", "--alias", "default")
    assert "default: bucket django_cache" in output
    assert "default: counter stream test_" in output
    assert "pages" not in output
    assert "eu" not in output
    assert error == 'Not set up: CACHES["default"].'

    error = failing_nats("setup", "--alias", "us")[1]
    assert error == "No such alias on NATS: us. Its aliases are default, pages, eu."


def test_setup_refuses_aliases_that_disagree_on_a_stream(
    configure: Configure, failing_nats: FailingNats
) -> None:
    counters = configure("default", STREAM="SHARED", DEADLINE=5)
    configure("slow", STREAM="SHARED")

    error = failing_nats("setup")[1]

    assert 'NATS_COUNTERS["default"] and NATS_COUNTERS["slow"] share the counter stream' in error
    assert "duplicate_window 15 s or 30 s" in error
    assert stream(counters)["error"]["err_code"] == 10059


# status --------------------------------------------------------------------------------------


def test_status_shows_server_and_stream(configure: Configure, nats: Nats) -> None:
    counters = configure(HISTORY=3, MAX_AGE=90)
    for name in ("a", "a", "b"):
        counters.incr(name)

    output = nats("status")

    assert f"default: counter stream {counters.settings.stream.stream} on nats://" in output
    assert "server   nats-server 2." in output
    assert "storage  memory, replicas: 1" in output
    assert "counters 2, each kept for 1 min 30 s after its last change" in output
    assert "messages 3, up to 3 for each counter" in output
    assert f"bytes    {stream(counters)['state']['bytes']}, no limit\n" in output
    assert "differs" not in output


def test_status_shows_how_long_counters_are_kept(configure: Configure, nats: Nats) -> None:
    configure(MAX_AGE=30 * 86400).incr("a")
    configure("lasting", STREAM="LASTING").incr("a")

    output = nats("status")

    assert "counters 1, each kept for 30 days after its last change\n" in output
    assert "counters 1, each kept until reset\n" in output


def test_status_does_not_create_an_absent_stream(configure: Configure, nats: Nats) -> None:
    counters = configure()

    assert "absent" in nats("status")
    assert stream(counters)["error"]["err_code"] == 10059


def test_status_shows_how_a_stream_differs_from_settings(configure: Configure, nats: Nats) -> None:
    configure(HISTORY=8).get_many(["a"])
    configure(HISTORY=2)

    output = nats("status")

    assert "differs  max_msgs_per_subject: 8 on the server, 2 in settings" in output
    assert "manage.py nats setup" in output


def test_status_shows_the_lag_of_sources(configure: Configure, nats: Nats) -> None:
    name = configure("eu").settings.stream.stream
    Counter("hits", alias="eu").incr()
    world = configure("world", SOURCES=[name, "NOT_YET"])
    assert eventually(lambda: world.total("hits") == 1)

    output = nats("status")

    assert f"  source   {name}: up to date, last contact " in output
    assert re.search("  source   NOT_YET: (stream not found|it has not been reached yet)", output)


def test_status_warns_of_a_stream_that_is_nearly_full(configure: Configure, nats: Nats) -> None:
    counters = configure(MAX_BYTES="64KiB", HISTORY=1)
    Counter("hits").incr()
    assert " of at most 65,536\n" in nats("status")
    assert "  full " not in nats("status")
    (default,) = json.loads(nats("status", "--json"))["counters"]
    assert (default["max_bytes"], default["nearly_full"]) == (65_536, None)

    fill(counters, 0.9)

    output = nats("status")
    assert re.search("  full     (89|90)% of MAX_BYTES are used. When all are, the count", output)
    assert "restart at 0" in output
    (default,) = json.loads(nats("status", "--json"))["counters"]
    assert default["nearly_full"].endswith("restart at 0")


def test_status_prints_json_for_programs(configure: Configure, nats: Nats) -> None:
    configure("default", HISTORY=3, MAX_AGE=90).incr("a")
    name = configure("eu").settings.stream.stream
    configure("world", SOURCES=[name]).get_many(["a"])

    default, eu, world = json.loads(nats("status", "--json"))["counters"]

    assert (default["alias"], default["exists"], default["error"]) == ("default", True, None)
    assert (default["counters"], default["messages"]) == (1, 1)
    assert (default["history"], default["max_age"], default["storage"]) == (3, 90.0, "memory")
    assert (eu["stream"], eu["exists"], eu["sources"]) == (name, False, [])
    (source,) = world["sources"]
    assert source.keys() == {"name", "lag", "silence", "error"}
    assert source["name"] == name


def test_status_fails_for_an_unreachable_server(
    configure: Configure, failing_nats: FailingNats
) -> None:
    configure("default")
    configure("away", LOCATION=DEAD)

    output, error = failing_nats("status")

    assert f"No connection to NATS at {DEAD}" in output
    assert error == 'The state could not be read of NATS_COUNTERS["away"].'


def test_a_mistake_in_settings_is_a_command_error(settings: Any, failing_nats: FailingNats) -> None:
    settings.NATS_COUNTERS = {"default": {"STREM": "X"}}

    for subcommand in ("status", "setup"):
        assert "unknown option 'STREM'" in failing_nats(subcommand)[1]
