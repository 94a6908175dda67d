"""The recipes for operators work, with servers as the page describes them."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from django.core.cache import caches

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    BucketFull,
    NatsError,
    NotSent,
    NotServed,
    ServerError,
    ServerTooOld,
    Unavailable,
)
from tests.servers import ROOT, eventually
from tests.support.accounts import Operator
from tests.support.black_hole import Names
from tests.support.certificates import Authority
from tests.support.cluster import Cluster, connections
from tests.support.logins import authorization
from tests.support.ports import free_port
from tests.support.proxy import Proxy
from tests.support.reloading import Reloading
from tests.support.terminator import terminator

PAGE = (ROOT / "docs/how-to/connect.md").read_text()
PATIENT = {"CONNECT_TIMEOUT": 60.0, "REQUEST_TIMEOUT": 30.0}
ELECTING = {"CONNECT_TIMEOUT": 60.0, "REQUEST_TIMEOUT": 4.0, "MAX_RECONNECT_WAIT": 0.5}
"""For clusters, which do not answer every request during an election."""
INTRODUCTION = "# Connect"
ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="127.0.0.2 is on Linux only")


class Recipe:
    """What the page says under a heading, for servers on this machine.

    ``written`` and ``here`` are parts of it, and what takes their place.
    """

    def __init__(self, heading: str, here: dict[str, object] | None = None) -> None:
        _, found, rest = PAGE.partition(f"{heading}")
        assert found, f"the page has no section {heading}"
        self._text = rest.partition("\n## ")[0]
        for written, replacement in (here or {}).items():
            assert written in self._text, written
            self._text = self._text.replace(written, str(replacement))

    def block(self, language: str, start: str = "") -> str:
        """Return the only block in a language that begins so."""
        found = re.findall(rf"^```{language}\n({start}.*?)^```", self._text, re.M | re.S)
        assert len(found) == 1, found
        return str(found[0])

    def server_config(self, name: str) -> str:
        """Return the configuration of a server, which follows a comment with its file name."""
        (part,) = re.findall(rf"^# {name}\n(.*?\n)(?:\n|\Z)", self.block("text"), re.M | re.S)
        return str(part)

    def settings(self, patient: Mapping[str, float] = PATIENT, **names: object) -> dict[str, Any]:
        """Return the settings that a project with these ``names`` would have, and timeouts."""
        exec(self.block("python", "# settings.py\n"), names)
        if "CACHES" not in names:
            # Leave the names that the recipe has, as a reader does.
            general = Recipe(INTRODUCTION).block("python", "# settings.py\n")
            exec(re.sub(r"^(LOCATION|OPTIONS) = .*\n", "", general, flags=re.M), names)
        made: dict[str, Any] = {name: names[name] for name in ("CACHES", "NATS_COUNTERS")}
        for entry in made["CACHES"].values():
            entry["OPTIONS"] = {**patient, **entry["OPTIONS"]}
        for alias, entry in made["NATS_COUNTERS"].items():
            made["NATS_COUNTERS"][alias] = {**patient, "DEADLINE": 60.0, **entry}
        return made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack
        process.close()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Names:
    return Names(monkeypatch)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def use(settings: Any, made: dict[str, Any]) -> None:
    for name, value in made.items():
        setattr(settings, name, value)


def cache_works(alias: str = "default") -> bool:
    try:
        caches[alias].set("key", "value")
        return bool(caches[alias].get("key") == "value")
    except NatsError:
        return False


def counts(alias: str = "default", *, expected: int = 1) -> bool:
    """Return True if a counter works, or the server is too old and the error says so."""
    try:
        return Counter("home", alias=alias).incr() == expected
    except ServerTooOld as error:
        return "JetStream API level 2" in str(error)


# Kubernetes ----------------------------------------------------------------------------------

SERVICE = "nats-headless.nats.svc.cluster.local"


@ON_LINUX
def test_a_headless_service_is_one_name_with_several_addresses(
    stack: ExitStack, names: Names, authority: Authority, settings: Any
) -> None:
    """The certificate has that name only. The servers announce each other by their addresses."""
    hosts = ["127.0.0.1", "127.0.0.2", "127.0.0.3"]
    tls = authority.block(SERVICE)
    servers = stack.enter_context(Cluster(3, "", hosts=hosts, announce=True, config=tls)).servers
    # A pod that is not ready is listed as well.
    names.addresses[SERVICE] = ["127.0.0.4", *hosts]
    here = {":4222": f":{servers[0].port}", "/etc/nats/ca.crt": authority.ca}
    use(settings, Recipe("## Kubernetes", here).settings(ELECTING))
    assert eventually(cache_works, 240)
    used = connected_to(servers)
    names.addresses[SERVICE] = ["127.0.0.4"]  # what is left are the announced addresses
    used.kill()
    assert eventually(cache_works, 240)
    assert connected_to(servers) is not used
    assert counts()


def connected_to(servers: list[NatsServer]) -> NatsServer:
    (used,) = (each for each in servers if each.running and connections(each))
    return used


# Accounts with limits ------------------------------------------------------------------------

CLOUD = "connect.ngs.global"
MIB = 1024**2


@pytest.fixture(params=[False, True], ids=["flat", "tiers"])
def tiers(request: pytest.FixtureRequest) -> bool:
    """Return True if the account has limits of its own for each number of replicas."""
    return bool(request.param)


@pytest.fixture
def cloud(
    tiers: bool,
    stack: ExitStack,
    names: Names,
    authority: Authority,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> dict[str, Any]:
    """Return the page's settings, for a server whose account has limits as in Synadia Cloud."""
    limits = {"mem_storage": 0, "disk_storage": 600 * MIB, "max_bytes_required": True}
    operator = Operator({"R1": limits}) if tiers else Operator(**limits)
    server = stack.enter_context(
        NatsServer(token="", config=operator.server_config + authority.block(CLOUD))
    )
    names.addresses[CLOUD] = ["127.0.0.1"]
    monkeypatch.setenv("SSL_CERT_FILE", authority.ca)
    operator.write_credentials(tmp_path / "web.creds")
    recipe = Recipe("## Synadia Cloud", {CLOUD: f"{CLOUD}:{server.port}"})
    return recipe.settings(BASE_DIR=tmp_path)


def test_an_account_in_jwts_with_limits_serves_a_cache_and_counters(
    cloud: dict[str, Any], settings: Any
) -> None:
    use(settings, cloud)
    assert cache_works()
    assert counts()
    options = cloud["CACHES"]["default"]["OPTIONS"]
    options["CREDENTIALS_CONTENT"] = Path(options.pop("CREDENTIALS")).read_text()
    use(settings, cloud)
    assert caches["default"].get("key") == "value"


def test_the_limits_of_an_account_are_named(cloud: dict[str, Any], tiers: bool) -> None:
    location, options = (cloud["CACHES"]["default"][each] for each in ("LOCATION", "OPTIONS"))

    def refusal(**changes: object) -> ServerError:
        with pytest.raises(ServerError) as caught:
            NatsCache(location, {"OPTIONS": {**options, **changes}}).set("key", 1)
        return caught.value

    assert "Set MAX_BYTES" in str(refusal(MAX_BYTES=None))
    assert 'set STORAGE to "file", or raise the limit (max_mem' in str(refusal(STORAGE="memory"))
    assert type(refusal(MAX_BYTES="700MiB")) is BucketFull
    # Three times 256 MiB are more than the account has, and it has no tier for three replicas.
    expected = NotServed if tiers else BucketFull
    assert type(refusal(REPLICAS=3)) is expected


# A vault -------------------------------------------------------------------------------------


@pytest.fixture
def vault(stack: ExitStack, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Run a vault that answers as HashiCorp's does. Return what it holds, which may be changed."""
    held: dict[str, str] = {}

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            allowed = self.headers["X-Vault-Token"] == "for the vault"
            found = allowed and self.path == "/v1/secret/data/nats"
            self.send_response(200 if found else 403)
            self.end_headers()
            if found:
                self.wfile.write(json.dumps({"data": {"data": held, "metadata": {}}}).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    stack.callback(server.server_close)
    serving = Thread(target=server.serve_forever)
    serving.start()
    stack.callback(serving.join)
    stack.callback(server.shutdown)
    monkeypatch.setenv("VAULT_ADDR", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("VAULT_TOKEN", "for the vault")
    return held


def test_a_token_of_a_vault_is_rotated_without_a_restart(
    stack: ExitStack,
    names: Names,
    vault: dict[str, str],
    settings: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vault["token"] = "0ld"
    server = stack.enter_context(Reloading(token="", config=authorization("token: 0ld")))
    names.addresses["nats.internal"] = ["127.0.0.1"]
    recipe = Recipe(
        "## Secrets from a vault", {":4222": f":{server.port}", "timeout=1": "timeout=30"}
    )
    module = tmp_path / "myproject" / "vault.py"
    module.parent.mkdir()
    module.write_text(recipe.block("python", "# myproject/vault.py\n"))
    monkeypatch.syspath_prepend(tmp_path)
    use(settings, recipe.settings())
    assert cache_works()
    assert counts()
    vault["token"] = "n3w"
    server.reload(authorization("token: n3w"))  # ends the connection with the old one
    assert eventually(cache_works)
    assert counts(expected=2)


# TLS first -----------------------------------------------------------------------------------


@pytest.fixture
def certificate(authority: Authority, names: Names) -> dict[str, object]:
    """Return the files of the certificate of nats.internal, by their names in the page."""
    names.addresses["nats.internal"] = ["127.0.0.1"]
    files = authority.issue("first", "nats.internal")
    written = ("/etc/nats/tls.crt", "/etc/nats/tls.key", "/etc/nats/ca.crt")
    return dict(zip(written, (*files, authority.ca), strict=True))


def tls_recipe(here: dict[str, object], port: int) -> dict[str, Any]:
    return Recipe("## TLS first", {**here, ":4222": f":{port}"}).settings()


def test_tls_begins_first_where_the_server_says_nothing_before(
    stack: ExitStack, certificate: dict[str, object], settings: Any
) -> None:
    config = Recipe("## TLS first", certificate).block("text")
    server = stack.enter_context(NatsServer(token="", config=config))
    use(settings, tls_recipe(certificate, server.port))
    assert cache_works()
    assert counts()


def test_a_server_takes_both_kinds_of_clients_meanwhile(
    stack: ExitStack, certificate: dict[str, object], settings: Any
) -> None:
    config = Recipe("## TLS first", certificate).block("text")
    config = config.replace("handshake_first: true", "handshake_first: auto")
    server = stack.enter_context(NatsServer(token="", config=config))
    made = tls_recipe(certificate, server.port)
    use(settings, made)
    assert eventually(cache_works)  # the server waits only 50 ms for a client that is first
    later: Any = made["CACHES"]["default"]
    tls = {"CA": later["OPTIONS"]["TLS"]["CA"]}
    NatsCache(later["LOCATION"], {"OPTIONS": {**later["OPTIONS"], "TLS": tls}}).set("key", 1)


def test_tls_ends_at_a_proxy_before_a_server_without_it(
    stack: ExitStack, certificate: dict[str, object], settings: Any
) -> None:
    server = stack.enter_context(NatsServer(token=""))
    files = (str(file) for file in [*certificate.values()][:2])
    url = stack.enter_context(terminator(server.port, *files))
    stack.callback(process.close)
    use(settings, tls_recipe(certificate, int(url.rpartition(":")[2])))
    assert cache_works()
    assert counts()


# Load balancers and NAT ----------------------------------------------------------------------


def test_only_the_balancers_of_location_are_used_in_their_order(
    stack: ExitStack, names: Names, settings: Any
) -> None:
    servers = stack.enter_context(Cluster(2, "", announce=True)).servers
    first, second = (stack.enter_context(Proxy(server.port)) for server in servers)
    stack.callback(process.close)
    here = {}
    for name, proxy in (("balancer", first), ("spare", second)):
        names.addresses[f"{name}.internal"] = ["127.0.0.1"]
        here[f"{name}.internal:4222"] = proxy.url.replace("nats://127.0.0.1", f"{name}.internal")
    use(settings, Recipe("## Load balancers and NAT", here).settings(ELECTING))

    def uses(proxy: Proxy) -> bool:
        before = proxy.requests
        return cache_works() and proxy.requests > before

    assert eventually(lambda: uses(first), 240)
    first.refusing = True
    first.cut()
    assert eventually(lambda: uses(second))
    first.refusing = False
    before = first.connections
    assert eventually(cache_works)
    assert first.connections == before
    second.cut()
    assert eventually(lambda: uses(first))
    # The servers have announced their own addresses, which are not used.
    first.refusing = True
    names.addresses["spare.internal"] = []
    first.cut()
    tried = first.connections
    assert eventually(lambda: first.connections > tried + 3)
    assert not caches["default"].session.connected
    with pytest.raises(NotSent):
        caches["default"].get("key")
    names.addresses["spare.internal"] = ["127.0.0.1"]
    assert eventually(lambda: uses(second))


# Domains -------------------------------------------------------------------------------------


def test_a_leaf_node_has_a_bucket_of_its_own_and_leads_to_that_of_the_hub(
    stack: ExitStack, names: Names, settings: Any
) -> None:
    link = free_port()

    def server(name: str) -> NatsServer:
        here = {
            "0.0.0.0:7422": f"127.0.0.1:{link}",
            "hub.internal:7422": f"127.0.0.1:{link}",
        }
        config = Recipe("## Another JetStream domain", here).server_config(f"{name}.conf")
        running = NatsServer(token="", name=name, port=free_port(), config=config)
        return stack.enter_context(running)

    hub, leaf = server("hub"), server("leaf")
    names.addresses["leaf.internal"] = ["127.0.0.1"]
    recipe = Recipe("## Another JetStream domain", {":4222": f":{leaf.port}"})
    use(settings, recipe.settings())
    assert eventually(lambda: cache_works("shared"))
    caches["default"].set("where", "leaf")
    caches["shared"].set("where", "hub")
    assert (caches["default"].get("where"), caches["shared"].get("where")) == ("leaf", "hub")
    at_hub = NatsCache(hub.url, {"OPTIONS": {"BUCKET": "shared", **PATIENT}})
    assert at_hub.get("where") == "hub"
    assert counts("default")
    assert counts("shared")
    assert caches["default"].session is caches["shared"].session
    hub.kill()
    assert caches["default"].get("where") == "leaf"
    with pytest.raises(Unavailable):
        NatsCache(leaf.url, {"OPTIONS": {"BUCKET": "shared", "JS_DOMAIN": "hub"}}).get("where")
    hub.start()
    assert eventually(lambda: cache_works("shared"))


def test_another_account_has_the_bucket_and_the_counters(
    stack: ExitStack, names: Names, settings: Any
) -> None:
    config = Recipe("## The JetStream of another account").block("text")
    config += "authorization { timeout: 60 }"
    server = stack.enter_context(NatsServer(token="", config=config))
    names.addresses["nats.internal"] = ["127.0.0.1"]
    recipe = Recipe("## The JetStream of another account", {":4222": f":{server.port}"})
    use(settings, recipe.settings())
    assert cache_works()
    assert counts()
    owner = {**PATIENT, "USER": "owner", "PASSWORD": "s3cret"}
    assert NatsCache(server.url, {"OPTIONS": owner}).get("key") == "value"


# The page itself -----------------------------------------------------------------------------


def test_every_recipe_of_the_page_is_run() -> None:
    recipes = {
        heading
        for heading, text in re.findall(r"^(## .*)\n((?:(?!^## ).*\n)*)", PAGE, re.MULTILINE)
        if "# settings.py" in text
    }
    run = re.findall(r'Recipe\(\s*"(## .*?)"', Path(__file__).read_text())
    assert {heading for heading in recipes if not heading.startswith((*run,))} == set()
    assert len(recipes) >= len({*run})
