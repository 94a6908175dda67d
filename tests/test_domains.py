"""Buckets and counters in another JetStream domain, and through the API prefix of an account."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from io import StringIO
from typing import Any

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.test import override_settings

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter, Counters, write_behind
from django_nats.devserver import NatsServer
from django_nats.exceptions import DomainMismatch, NotServed
from tests.counters.conftest import OPERATIONS, api_level, host_of
from tests.nearcache.conftest import follow
from tests.servers import ROOT, eventually, request
from tests.support.operations import CACHE, COUNTED, HELD, LIVES_S, Call
from tests.support.regions import LeafNodes

PATIENT = {"CONNECT_TIMEOUT": 60, "REQUEST_TIMEOUT": 30}
HUB, LEAF = {"JS_DOMAIN": "hub"}, {"JS_DOMAIN": "leaf"}


@pytest.fixture(scope="module")
def domains() -> Iterator[LeafNodes]:
    """Run a hub with the domain "hub", and a leaf node with the domain "leaf"."""
    with LeafNodes("leaf") as nodes:
        leaf = nodes.leaves["leaf"]
        assert eventually(lambda: "domain" in request(leaf, "$JS.hub.API.INFO"))
        yield nodes
        process.close()


@pytest.fixture
def leaf(domains: LeafNodes) -> NatsServer:
    return domains.leaves["leaf"]


@pytest.fixture
def hub(domains: LeafNodes) -> NatsServer:
    return domains.hub


def cache_on(server: NatsServer, bucket: str = "web", **options: object) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {"BUCKET": bucket, **PATIENT, **options}})


def streams(server: NatsServer) -> dict[str, int]:
    """Return how many messages each stream of a server has."""
    answer: Any = request(server, "$JS.API.STREAM.LIST")
    return {each["config"]["name"]: each["state"]["messages"] for each in answer["streams"] or ()}


# Buckets -------------------------------------------------------------------------------------


def test_a_host_on_a_leaf_node_uses_its_own_bucket_and_that_of_the_hub(
    leaf: NatsServer, hub: NatsServer
) -> None:
    own, of_hub, at_hub = cache_on(leaf), cache_on(leaf, **HUB), cache_on(hub)
    for cache in (own, of_hub):
        cache.clear()
    own.set_many({"where": "leaf", "own": 1})
    of_hub.set_many({"where": "hub", "shared": 1})
    assert own.get_many(["where", "own", "shared"]) == {"where": "leaf", "own": 1}
    assert of_hub.get_many(["where", "own", "shared"]) == {"where": "hub", "shared": 1}
    assert at_hub.get("where") == "hub"
    assert sorted(of_hub.keys()) == ["shared", "where"]
    assert cache_on(leaf, **LEAF).get("where") == "leaf"
    assert own.session is of_hub.session
    of_hub.clear()
    assert own.get("where") == "leaf"
    assert at_hub.get("where") is None


@pytest.mark.parametrize("row", CACHE)
def test_every_operation_of_a_cache_works_in_the_domain_of_the_hub(
    leaf: NatsServer, hub: NatsServer, row: str
) -> None:
    cache: Any = cache_on(leaf, "table", **HUB)
    cache.clear()
    cache.set_many(HELD, LIVES_S)
    call = CACHE[row].at(cache.get_with_revision("key")[1])
    assert call.result == call.sync(cache)
    assert cache.get(call.key) == call.after
    assert "KV_table" in streams(hub)
    assert "KV_table" not in streams(leaf)


def test_a_near_cache_on_a_leaf_node_follows_the_bucket_of_the_hub(
    leaf: NatsServer, hub: NatsServer
) -> None:
    near = cache_on(leaf, "near", **HUB, NEAR_CACHE={"MAX_STALE": 30})
    at_hub = cache_on(hub, "near")
    at_hub.set("key", 1)
    copies = follow(near)
    assert near.get("key") == near.get("key") == 1
    assert copies.hits
    at_hub.set("key", 2)
    assert eventually(lambda: near.get("key") == 2)
    near.set("key", 3)
    assert near.get("key") == at_hub.get("key") == 3
    near.delete("key")
    assert near.get("key") is at_hub.get("key") is None


def test_large_batches_pass_between_domains(leaf: NatsServer) -> None:
    cache = cache_on(leaf, "large", **HUB)
    values = {f"key-{number}": number for number in range(3000)}
    assert cache.set_many(values) == []
    assert cache.get_many(values) == values
    assert len(list(cache.iter_keys("*"))) == 3000
    cache.delete_many(values)
    assert cache.keys() == []


def test_own_writes_are_known_by_the_subjects_under_which_the_hub_stores_them(
    leaf: NatsServer,
) -> None:
    cache = cache_on(leaf, "written", **HUB)
    recent = cache.bucket.stream.recent
    for write, keys in (
        (lambda: cache.set("set", 1), ["set"]),
        (lambda: cache.add("added", 1), ["added"]),
        (lambda: cache.set_many({"one": 1, "two": 2}), ["one", "two"]),
        (lambda: cache.incr("one"), ["one"]),
        (lambda: cache.delete("set"), ["set"]),
        (lambda: cache.delete_many(["one", "two"]), ["one", "two"]),
    ):
        cache.clear()
        cache.set_many(dict.fromkeys(("set", "one", "two"), 1))
        recent.forget()
        write()
        # Otherwise a replica that is behind would be believed.
        assert recent.written() == [f"$KV.written.=.1.{key}".encode() for key in keys]


@pytest.mark.filterwarnings("ignore::django.core.cache.CacheKeyWarning")
def test_a_long_key_is_stored_in_another_domain(leaf: NatsServer, hub: NatsServer) -> None:
    cache = cache_on(leaf, "long", **HUB)
    key = "k" * 3000
    assert cache.add(key, 1)
    assert not cache.add(key, 2)
    assert cache.keys() == [key]
    assert cache_on(hub, "long").get(key) == 1
    assert cache.delete(key)


# Counters ------------------------------------------------------------------------------------


@pytest.fixture
def counters(leaf: NatsServer) -> Iterator[Any]:
    """Return a function that sets NATS_COUNTERS, with the leaf node as LOCATION."""
    if api_level(leaf) < 2:
        pytest.skip("the server is too old for counters")
    common = {"LOCATION": leaf.url, "STORAGE": "memory", "DEADLINE": 60, **PATIENT}
    overrides: list[Any] = []

    def configure(**aliases: Mapping[str, object]) -> None:
        made = {alias: {**common, **entry} for alias, entry in aliases.items()}
        overrides.append(override_settings(NATS_COUNTERS=made))
        overrides[-1].enable()

    yield configure
    for each in reversed(overrides):
        each.disable()


def test_a_host_on_a_leaf_node_counts_at_home_and_in_the_hub(
    counters: Any, leaf: NatsServer, hub: NatsServer
) -> None:
    counters(
        own={"STREAM": "VISITS", "PREFIX": "leaf.visits"},
        hub={"STREAM": "VISITS", "PREFIX": "visits", **HUB},
    )
    own, of_hub = Counter("home", alias="own"), Counter("home", alias="hub")
    assert [own.incr(), own.incr(), of_hub.incr(40)] == [1, 2, 40]
    assert Counters("hub").matching(">") == {"home": 40}
    assert (streams(leaf)["VISITS"], streams(hub)["VISITS"]) == (1, 1)
    of_hub.incr_later(2)
    Counters("hub").flush()
    assert of_hub.value() == 42
    of_hub.reset()
    assert (of_hub.value(), own.value()) == (0, 2)


@pytest.mark.parametrize(("kind", "call"), OPERATIONS)
def test_every_operation_of_counters_works_in_the_domain_of_the_hub(
    counters: Any, kind: Any, call: Call
) -> None:
    counters(default={"STREAM": "TABLE", **HUB})
    for name in Counters().matching(">"):
        Counter(*(name if isinstance(name, tuple) else (name,))).reset()
    Counters().incr("k", COUNTED)
    assert call.sync(host_of(kind)) == call.result
    Counters().flush()


def test_an_increment_that_another_domain_counts_is_an_error(
    counters: Any, leaf: NatsServer
) -> None:
    counters(own={"STREAM": "SHARED"}, hub={"STREAM": "SHARED", **HUB})
    assert Counter("home", alias="own").value() == 0
    errors: list[str] = []

    def incr() -> bool:
        try:
            Counter("home", alias="hub").incr()
        except DomainMismatch as error:
            errors.append(str(error))
        return bool(errors)

    assert eventually(incr)  # the acknowledgement of the leaf node mostly comes first
    stored = "which is in the JetStream domain hub, was stored in the JetStream domain leaf"
    assert stored in errors[0]
    assert "Give each stream a PREFIX of its own" in errors[0]


def test_what_another_domain_counts_is_not_sent_again_with_another_id(
    counters: Any, leaf: NatsServer
) -> None:
    counters(own={"STREAM": "LATER"}, hub={"STREAM": "LATER", **HUB})
    assert Counter("home", alias="own").value() == 0
    assert Counter("home", alias="hub").value() == 0

    def flush() -> bool:
        try:
            Counters("hub").flush()
        except DomainMismatch:
            return True
        return False

    number = 0
    while not number or not flush():
        number += 1
        counter = Counter("late", str(number), alias="hub")
        counter.incr_later()
    for _ in range(3):
        flush()
    # What came by the same link after it has arrived, so it has, too.
    with suppress(DomainMismatch):
        Counter("end", alias="hub").incr()
    assert eventually(lambda: Counter("end", alias="hub").value() == 1)
    assert counter.value() == 1
    write_behind.discard()


# Another account's JetStream -----------------------------------------------------------------

OWNER = {"USER": "owner", "PASSWORD": "s3cret"}
GUEST = {
    "USER": "guest",
    "PASSWORD": "s3cret",
    "JS_API_PREFIX": "owner.API",
    "INBOX_PREFIX": "guest",
}


@pytest.fixture(scope="module")
def accounts() -> Iterator[NatsServer]:
    """Run a server configured as in the docs: GUEST imports the JetStream of OWNER."""
    page = (ROOT / "docs/how-to/connect.md").read_text()
    (config,) = re.findall(
        r"^```text\n(jetstream: \{\}\naccounts \{\n.*?)^```", page, re.MULTILINE | re.DOTALL
    )
    with NatsServer(token="", config=f"{config}\nauthorization {{ timeout: 60 }}") as running:
        yield running
        process.close()


@pytest.mark.parametrize("row", CACHE)
def test_every_operation_of_a_cache_works_with_the_jetstream_of_another_account(
    accounts: NatsServer, row: str
) -> None:
    cache: Any = cache_on(accounts, "table", **GUEST)
    cache.clear()
    cache.set_many(HELD, LIVES_S)
    call = CACHE[row].at(cache.get_with_revision("key")[1])
    assert call.result == call.sync(cache)
    assert cache.get(call.key) == call.after
    assert cache_on(accounts, "table", **OWNER).get(call.key) == call.after


def test_a_near_cache_follows_the_bucket_of_another_account(accounts: NatsServer) -> None:
    near = cache_on(accounts, "near", **GUEST, NEAR_CACHE={"MAX_STALE": 30})
    owner = cache_on(accounts, "near", **OWNER)
    owner.set("key", 1)
    copies = follow(near)
    assert near.get("key") == near.get("key") == 1
    assert copies.hits
    owner.set("key", 2)
    assert eventually(lambda: near.get("key") == 2)


def test_counters_are_kept_by_another_account(accounts: NatsServer, counters: Any) -> None:
    place = {"LOCATION": accounts.url}
    counters(guest={**place, **GUEST}, owner={**place, **OWNER})
    assert Counter("home", alias="guest").incr(2) == 2
    assert Counter("home", alias="owner").incr(2) == 4
    assert Counters("guest").matching(">") == {"home": 4}
    Counter("home", alias="guest").reset()
    assert Counter("home", alias="owner").value() == 0


# Settings and servers that do not fit together -----------------------------------------------


def test_a_domain_that_no_server_has_is_named(leaf: NatsServer) -> None:
    cache = cache_on(leaf, JS_DOMAIN="nowhere")
    with pytest.raises(NotServed) as caught:
        cache.get("key")
    assert "no JetStream of the domain nowhere answers" in str(caught.value)
    assert "correct JS_DOMAIN" in str(caught.value)


def test_a_prefix_that_nobody_imports_is_named(leaf: NatsServer) -> None:
    with pytest.raises(NotServed, match=r"no JetStream answers under other\.API\."):
        cache_on(leaf, JS_API_PREFIX="other.API").get("key")


def test_without_jetstream_the_error_thinks_of_domains() -> None:
    with NatsServer(token="", jetstream=False) as server:
        with pytest.raises(NotServed, match=r"set JS_DOMAIN to the hub's domain"):
            cache_on(server).get("key")
        process.close()


def test_a_prefix_that_leads_to_another_domain_than_js_domain_is_refused() -> None:
    mapping = '"$JS.east.API.>": "$JS.API.>"'
    config = f"jetstream {{ domain: west }}\nmappings {{ {mapping} }}"
    with NatsServer(token="", config=config) as server:
        with pytest.raises(DomainMismatch, match=r"in the JetStream domain east, as JS_DOMAIN"):
            cache_on(server, JS_DOMAIN="east").get("key")
        process.close()


# Checks and commands -------------------------------------------------------------------------


def test_checks_and_commands_ask_the_domain_of_each_alias(
    leaf: NatsServer, hub: NatsServer, settings: Any
) -> None:
    def entry(**options: object) -> dict[str, Any]:
        options = {"BUCKET": "managed", "MAX_BYTES": "1MiB", **PATIENT, **options}
        return {
            "BACKEND": "django_nats.cache.NatsCache",
            "LOCATION": leaf.url,
            "OPTIONS": options,
        }

    settings.CACHES = {
        "default": entry(NEAR_CACHE={}),
        "hub": entry(**HUB, DESCRIPTION="of the hub", NEAR_CACHE={}),
    }
    settings.NATS_COUNTERS = {}
    out = StringIO()
    call_command("nats", "setup", stdout=out)
    answer: Any = request(hub, "$JS.API.STREAM.INFO.KV_managed")
    assert answer["config"]["description"] == "of the hub"
    answer = request(leaf, "$JS.API.STREAM.INFO.KV_managed")
    assert answer["config"]["description"] == "Django cache"
    # The buckets have the same name, and are not shared: no E002 and no W002.
    call_command("check", "--tag", "caches", "--deploy", "--fail-level", "WARNING", stdout=out)
    settings.CACHES = {**settings.CACHES, "hub": entry(**HUB, DESCRIPTION="changed")}
    call_command("nats", "setup", stdout=out)
    answer = request(hub, "$JS.API.STREAM.INFO.KV_managed")
    assert answer["config"]["description"] == "changed"
    caches["hub"].set("key", 1)
    out = StringIO()
    call_command("nats", "status", "--json", stdout=out)
    assert '"entries": 1' in out.getvalue()
