"""Each connection option, against a real server that requires it."""

from __future__ import annotations

import json
import socket
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from django.core.cache import caches

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import counters
from django_nats.devserver import NatsServer
from django_nats.exceptions import (
    AuthenticationFailed,
    NatsError,
    NotSent,
    OutcomeUnknown,
)
from tests.support import accounts
from tests.support.certificates import Authority
from tests.support.logins import authorization
from tests.support.patience import hurried

Serve = Callable[[str], NatsServer]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Yield a function that starts a server with the given configuration."""
    with ExitStack() as stack:
        yield lambda config: stack.enter_context(NatsServer(token="", config=config))
        process.close()


def connect(location: object, **options: object) -> NatsCache:
    patient = {"BUCKET": "options", "CONNECT_TIMEOUT": 3000, "REQUEST_TIMEOUT": 3000}
    return NatsCache(location, {"OPTIONS": {**patient, **options}})


def works(cache: NatsCache) -> bool:
    cache.set("key", "value")
    return bool(cache.get("key") == "value")


def failure(cache: NatsCache) -> NatsError:
    """Return the error that an operation raises, which must not be a timeout."""
    with pytest.raises(NatsError) as caught:
        cache.get("key")
    return caught.value


def assert_refused(cache: NatsCache, *secrets: str, correct: str) -> None:
    error = failure(cache)
    assert type(error) is AuthenticationFailed
    assert "authorization" in str(error).lower()
    assert cache.session.config.servers[0] in str(error)
    assert str(error).endswith(f'{correct} of CACHES["?"].'), str(error)
    for secret in secrets:
        assert secret not in f"{error!s}{error!r}{error.__cause__!r}"


# Logging in ----------------------------------------------------------------------------------


def test_a_user_and_password_log_in(serve: Serve) -> None:
    server = serve(authorization('user: web, password: "p:ss@w/rd"'))
    assert works(connect(server.url, USER="web", PASSWORD="p:ss@w/rd"))
    assert works(connect(f"nats://web:p%3Ass%40w%2Frd@127.0.0.1:{server.port}"))
    assert_refused(
        connect(server.url, USER="web", PASSWORD="hunter2"), "hunter2", correct="USER and PASSWORD"
    )
    assert_refused(
        connect(f"nats://web:hunter3@127.0.0.1:{server.port}"),
        "hunter3",
        correct="the credentials in LOCATION",
    )
    ways = "USER and PASSWORD, TOKEN, NKEY_SEED, CREDENTIALS or CREDENTIALS_CONTENT"
    assert_refused(connect(server.url), correct=f"Set {ways}")


def test_a_refused_login_names_every_entry_of_settings_that_has_it(
    serve: Serve, settings: Any
) -> None:
    server = serve(authorization('user: web, password: "p"'))
    login = {"USER": "web", "PASSWORD": "wrong", "CONNECT_TIMEOUT": 3000}
    backend = {"BACKEND": "django_nats.cache.NatsCache", "LOCATION": server.url, "OPTIONS": login}
    settings.CACHES = {"default": backend, "sessions": {**backend, "KEY_PREFIX": "s"}}
    settings.NATS_COUNTERS = {"default": {"LOCATION": server.url, **login}}
    caches["default"].close(), caches["sessions"].close()
    with pytest.raises(AuthenticationFailed) as caught:
        counters.incr("k")
    entries = 'CACHES["default"] and CACHES["sessions"] and NATS_COUNTERS["default"]'
    assert str(caught.value).endswith(f"Correct USER and PASSWORD of {entries}.")
    with pytest.raises(AuthenticationFailed, match=r'CACHES\["sessions"\]'):
        caches["default"].get("k")


def test_a_token_logs_in(serve: Serve) -> None:
    server = serve(authorization('token: "s3cret"'))
    assert works(connect(server.url, TOKEN="s3cret"))
    assert works(connect(f"s3cret@127.0.0.1:{server.port}"))
    assert_refused(connect(server.url, TOKEN="wr0ng"), "wr0ng", correct="TOKEN")


def test_an_nkey_seed_logs_in(serve: Serve) -> None:
    known, stranger = accounts.user(), accounts.user()
    server = serve(authorization(f"users: [{{ nkey: {known.public} }}]"))
    assert works(connect(server.url, NKEY_SEED=known.seed))
    assert_refused(connect(server.url, NKEY_SEED=stranger.seed), stranger.seed, correct="NKEY_SEED")


def test_a_credentials_file_logs_in(serve: Serve, tmp_path: Path) -> None:
    operator, other = accounts.Operator(), accounts.Operator()
    server = serve(operator.server_config)
    credentials = operator.write_credentials(tmp_path / "web.creds")
    assert works(connect(server.url, CREDENTIALS=credentials))
    assert works(connect(server.url, CREDENTIALS=Path(credentials)))
    assert_refused(
        connect(server.url, CREDENTIALS=other.write_credentials(tmp_path / "other.creds")),
        correct="CREDENTIALS",
    )


def test_a_refused_cache_connects_once_its_credentials_are_replaced(
    serve: Serve, tmp_path: Path
) -> None:
    operator, other = accounts.Operator(), accounts.Operator()
    server = serve(operator.server_config)
    credentials = tmp_path / "rotated.creds"
    other.write_credentials(credentials)
    cache = connect(server.url, CREDENTIALS=credentials)
    assert_refused(cache, correct="CREDENTIALS")
    operator.write_credentials(credentials)
    assert eventually(lambda: not raises(cache))
    assert works(cache)


def eventually(happened: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = monotonic() + seconds
    while monotonic() < deadline:
        if happened():
            return True
    return False


def raises(cache: NatsCache) -> bool:
    try:
        cache.get("key")
    except NatsError:
        return True
    return False


@pytest.mark.parametrize("seed", ["hunter2", "SUAX", "", "sürprise"])
def test_a_wrong_seed_is_named(server: NatsServer, seed: str) -> None:
    error = failure(connect(server.url, NKEY_SEED=seed))
    assert type(error) is NotSent
    assert "NKEY_SEED holds no valid nkey seed" in str(error)
    assert not seed or seed not in f"{error!s}{error.__cause__!r}{error.__cause__.__context__!r}"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (None, "cannot be read: No such file or directory"),
        ("", "does not hold a JWT and a seed"),
        ("nothing of the kind\n" * 10, "does not hold a JWT and a seed"),
        ("-----BEGIN NATS USER JWT-----\nabc\n", "does not hold a JWT and a seed"),
        ("-----BEGIN NATS USER JWT-----\nabc\n---BEGIN USER NKEY SEED---\nSUAX\n", "seed"),
    ],
)
def test_a_wrong_credentials_file_is_named(
    server: NatsServer, tmp_path: Path, content: str | None, problem: str
) -> None:
    path = tmp_path / "web.creds"
    if content is not None:
        path.write_text(content)
    error = failure(connect(server.url, CREDENTIALS=path))
    assert type(error) is NotSent
    assert f"CREDENTIALS: {path}" in str(error)
    assert problem in str(error)


# TLS -----------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("certificates"))


def tls_config(authority: Authority, *hosts: str, verify: bool = False, first: bool = False) -> str:
    certificate, key = authority.issue("server", *hosts)
    demand = f'ca_file: "{authority.ca}", verify: true' if verify else ""
    demand += "handshake_first: true" if first else ""
    return f'tls {{ cert_file: "{certificate}", key_file: "{key}", {demand} }}'


def test_tls_verifies_the_servers_certificate(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    server = serve(tls_config(authority, "localhost", "127.0.0.1"))
    for location in (f"tls://127.0.0.1:{server.port}", f"nats://localhost:{server.port}"):
        assert works(connect(location, TLS={"CA": authority.ca}))
    other = tmp_path / "other"
    other.mkdir()
    for tls in ({"CA": Authority(other).ca}, {}):
        error = failure(connect(f"tls://127.0.0.1:{server.port}", TLS=tls))
        assert type(error) is NotSent
        assert "certificate verify failed" in str(error)


def test_tls_begins_before_the_greeting_if_settings_say_so(
    serve: Serve, authority: Authority, settings: Any
) -> None:
    server = serve(tls_config(authority, "127.0.0.1", first=True))
    options = {
        "TLS": {"CA": authority.ca, "HANDSHAKE_FIRST": True},
        "DISCOVER": False,
        "RANDOMIZE": False,
    }
    assert works(connect(server.url, **options))
    settings.NATS_COUNTERS = {
        "default": {"LOCATION": server.url, "CONNECT_TIMEOUT": 3000, "DEADLINE": 3000, **options}
    }
    assert counters.incr("k") == 1


def test_the_certificate_must_name_the_host(serve: Serve, authority: Authority) -> None:
    server = serve(tls_config(authority, "nats.example"))
    location = f"tls://127.0.0.1:{server.port}"
    error = failure(connect(location, TLS={"CA": authority.ca}))
    assert type(error) is NotSent
    assert "certificate verify failed" in str(error)
    assert works(connect(location, TLS={"CA": authority.ca, "HOSTNAME": "nats.example"}))


def test_a_client_certificate_is_presented(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    server = serve(tls_config(authority, "127.0.0.1", verify=True))
    certificate, key = authority.issue("client")
    tls = {"CA": authority.ca, "CERT": certificate, "KEY": Path(key)}
    assert works(connect(server.url, TLS=tls))
    both = tmp_path / "both.pem"
    both.write_text(Path(certificate).read_text() + Path(key).read_text())
    assert works(connect(server.url, TLS={"CA": authority.ca, "CERT": both}))
    assert isinstance(failure(connect(server.url, TLS={"CA": authority.ca})), NotSent)


@pytest.mark.parametrize("option", ["CA", "CERT", "KEY"])
@pytest.mark.parametrize("content", [None, "no PEM"])
def test_a_wrong_tls_file_is_named(
    server: NatsServer, authority: Authority, tmp_path: Path, option: str, content: str | None
) -> None:
    certificate, key = authority.issue("client")
    wrong = tmp_path / "wrong.pem"
    if content is not None:
        wrong.write_text(content)
    tls = {"CA": authority.ca, "CERT": certificate, "KEY": key, option: str(wrong)}
    error = failure(connect(server.url, TLS=tls))
    assert type(error) is NotSent
    assert f"{option} {wrong}" in str(error)
    assert str(error).startswith(f"No connection to NATS at {server.url}: TLS: ")


def test_an_encrypted_key_is_refused_without_a_prompt(
    server: NatsServer, authority: Authority
) -> None:
    certificate, key = authority.issue("locked", password=b"hunter2")
    tls = {"CA": authority.ca, "CERT": certificate, "KEY": key}
    error = failure(connect(server.url, TLS=tls))
    assert f"CERT {certificate} and KEY {key} cannot be used: the key is encrypted" in str(error)


@pytest.mark.parametrize("scheme", ["tls", "nats"])
def test_no_credentials_are_sent_without_tls_if_settings_require_it(
    authority: Authority, scheme: str
) -> None:
    """A man in the middle could have removed TLS from the server's INFO."""
    greeting = {"server_id": "x", "version": "2.15.1", "max_payload": 1024, "auth_required": True}
    options = {"TLS": {"CA": authority.ca}} if scheme == "nats" else {}
    with closing(socket.create_server(("127.0.0.1", 0))) as listener, ThreadPoolExecutor() as pool:
        listener.settimeout(60)
        location = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}"
        cache = connect(location, USER="web", PASSWORD="hunter2", **options)
        asking = pool.submit(failure, cache)
        peer, _ = listener.accept()
        with closing(peer):
            peer.settimeout(60)
            peer.sendall(b"INFO %b\r\n" % json.dumps(greeting).encode())
            assert peer.recv(4096) == b""
        assert "offers no TLS" in str(asking.result())
        process.close()


# Where and how long --------------------------------------------------------------------------


@pytest.fixture
def dead() -> Iterator[str]:
    """Yield the URL of a port without a listener."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"nats://127.0.0.1:{bound.getsockname()[1]}"


def test_a_dead_server_in_the_list_is_passed_over(own_server: NatsServer, dead: str) -> None:
    for servers in ([dead, own_server.url], f"{own_server.url},{dead}"):
        assert works(connect(servers, TOKEN=own_server.token))
        process.close()
    error = failure(connect([dead, dead]))
    assert type(error) is NotSent
    assert dead in str(error)


@pytest.fixture
def mute() -> Iterator[str]:
    """Yield the URL of a server that accepts connections and sends nothing."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        yield f"nats://127.0.0.1:{listener.getsockname()[1]}"
        process.close()


@pytest.mark.faults
@pytest.mark.parametrize("servers", [1, 3])
def test_connect_timeout_bounds_the_first_call_as_a_whole(mute: str, servers: int) -> None:
    cache = connect([mute] * servers, CONNECT_TIMEOUT=9)
    started = monotonic()
    with pytest.raises(NotSent, match=r"sent no greeting within CONNECT_TIMEOUT \(9 s\)"):
        cache.get("key")
    assert 8.9 < monotonic() - started < 24  # one timeout per server would be 27


@pytest.mark.usefixtures("without_pings")
def test_request_timeout_bounds_a_request(own_server: NatsServer) -> None:
    cache = connect(own_server.url, TOKEN=own_server.token, REQUEST_TIMEOUT=3)
    with hurried(cache, 3000):
        assert works(cache)
    own_server.pause()
    started = monotonic()
    with pytest.raises(OutcomeUnknown):
        cache.get("key")
    assert monotonic() - started > 2.9


def test_the_server_lists_the_connection_by_its_name(serve: Serve) -> None:
    server = serve('http: "127.0.0.1:-1"')
    assert works(connect(server.url))
    assert works(connect(server.url, NAME="shop, web 1"))
    (ports,) = server.directory.glob("*.ports")
    (monitor,) = json.loads(ports.read_text())["monitoring"]
    with urllib.request.urlopen(f"{monitor}/connz", timeout=60) as answer:
        names = {each.get("name") for each in json.load(answer)["connections"]}
    assert names == {"django-nats", "shop, web 1"}


def test_inbox_prefix_serves_a_user_with_restricted_subscriptions(serve: Serve) -> None:
    server = serve(
        """
        authorization { timeout: 60, users: [{ user: web, password: pw, permissions: {
            publish: ["$JS.API.>", "$KV.>"], subscribe: "_WEB.cache.>"
        } }] }
        """
    )
    login = {"USER": "web", "PASSWORD": "pw"}
    assert works(connect(server.url, INBOX_PREFIX="_WEB.cache", **login))
    error = failure(connect(server.url, **login))
    assert "permission" in str(error).lower()
    assert "INBOX_PREFIX" in str(error)
