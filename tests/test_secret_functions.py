"""Secrets that functions of the project return: asked at each connect, and rotated."""

from __future__ import annotations

import logging
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from django_nats.cache import NatsCache
from django_nats.client import process
from django_nats.counters import Counter
from django_nats.devserver import NatsServer
from django_nats.exceptions import AuthenticationFailed, CounterUnavailable, NatsError, NotSent
from tests.conftest import PATIENT
from tests.servers import eventually
from tests.support import accounts, vault
from tests.support.logins import authorization
from tests.support.reloading import Reloading

SECRET = secrets.token_hex(8)
TOKEN = {"FUNCTION": "tests.support.vault.token"}


@pytest.fixture(autouse=True)
def _empty_vault() -> Iterator[None]:
    vault.held.clear()
    vault.asked.clear()
    yield
    process.close()


@pytest.fixture(scope="module")
def with_token() -> Iterator[NatsServer]:
    with NatsServer(token="", config=authorization(f'token: "{SECRET}"')) as running:
        yield running
        process.close()


def cache_of(server: NatsServer, **options: object) -> NatsCache:
    return NatsCache(server.url, {"OPTIONS": {"BUCKET": "secrets", **PATIENT, **options}})


def works(cache: NatsCache) -> bool:
    try:
        cache.set("key", "value")
        return bool(cache.get("key") == "value")
    except NatsError:
        return False


def failure(cache: NatsCache) -> NatsError:
    with pytest.raises(NatsError) as caught:
        cache.get("key")
    return caught.value


# Each way to log in --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ways(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, dict[str, object]]]:
    """Return, for each option, the server's configuration, the secret, and further options."""
    operator, user = accounts.Operator(), accounts.user()
    file = tmp_path_factory.mktemp("creds") / "web.creds"
    login = authorization(f'user: web, password: "{SECRET}"')
    return {
        "TOKEN": (authorization(f'token: "{SECRET}"'), SECRET, {}),
        "PASSWORD": (login, SECRET, {"USER": "web"}),
        "NKEY_SEED": (authorization(f"users: [{{ nkey: {user.public} }}]"), user.seed, {}),
        "CREDENTIALS": (operator.server_config, operator.write_credentials(file), {}),
        "CREDENTIALS_CONTENT": (operator.server_config, operator.credentials(), {}),
    }


NAMES = {
    "TOKEN": "token",
    "PASSWORD": "password",
    "NKEY_SEED": "seed",
    "CREDENTIALS": "path",
    "CREDENTIALS_CONTENT": "content",
}


@pytest.mark.parametrize("option", NAMES)
def test_a_secret_may_be_a_text_a_function_or_the_path_of_one(option: str, ways: Any) -> None:
    config, secret, further = ways[option]
    name = NAMES[option]
    with NatsServer(token="", config=config) as server:
        assert works(cache_of(server, **further, **{option: secret}))
        assert vault.asked == []
        vault.held[name] = f"{secret}\r\n"  # as read from a file
        for value in (
            getattr(vault, name),
            {"FUNCTION": getattr(vault, name)},
            {"FUNCTION": f"tests.support.vault.{name}"},
        ):
            vault.asked.clear()
            assert works(cache_of(server, **further, **{option: value}))
            process.close()
            assert vault.asked == ["django-nats-secrets"]


# Rotation ------------------------------------------------------------------------------------


def test_a_reconnect_uses_the_token_that_the_function_returns_then() -> None:
    old, new = secrets.token_hex(8), secrets.token_hex(8)
    vault.held["token"] = old
    with Reloading(token="", config=authorization(f'token: "{old}"')) as server:
        cache = cache_of(server, TOKEN=TOKEN, MAX_REFUSED_WAIT=1)
        assert works(cache)
        vault.held["token"] = new
        server.reload(authorization(f'token: "{new}"'))  # ends the connections with the old one
        assert eventually(lambda: len(vault.asked) > 1)
        assert eventually(lambda: works(cache))
        process.close()


def test_a_refused_secret_is_asked_for_again(with_token: NatsServer) -> None:
    vault.held["token"] = "expired"
    cache = cache_of(with_token, TOKEN=TOKEN, MAX_REFUSED_WAIT=1)
    error = failure(cache)
    assert type(error) is AuthenticationFailed
    assert str(error).endswith('Correct TOKEN of CACHES["?"].')
    vault.held["token"] = SECRET
    assert eventually(lambda: works(cache))


# Failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (PermissionError(f"the vault has {SECRET}"), "failed: PermissionError in "),
        (SystemExit(SECRET), "failed: SystemExit in "),
        ("", "returned an empty text, not"),
        (" \n", "returned an empty text, not"),
        (None, "returned a value of type NoneType, not"),
        (SECRET.encode(), "returned a value of type bytes, not"),
    ],
    ids=["error", "exit", "empty", "blank", "none", "bytes"],
)
def test_a_function_that_fails_is_an_outage_that_names_the_option(
    with_token: NatsServer, answer: object, problem: str, caplog: pytest.LogCaptureFixture
) -> None:
    vault.held["token"] = answer
    cache = cache_of(with_token, TOKEN=TOKEN)
    for _ in range(2):  # the second call is refused at once
        error: BaseException | None = failure(cache)
        assert type(error) is NotSent
        where = 'CACHES["?"]: TOKEN: the function tests.support.vault.token'
        assert f"{where} {problem}" in str(error)
        while error is not None:
            assert SECRET not in f"{error!s}{error!r}"
            error = error.__cause__ or error.__context__
    assert cache_of(with_token, TOKEN=TOKEN, FAIL_OPEN=True).get("key", "none") == "none"
    assert SECRET not in caplog.text
    vault.held["token"] = SECRET
    assert eventually(lambda: works(cache))


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        ("tests.support.nowhere.token", "cannot be imported: ModuleNotFoundError"),
        ("tests.support.vault.nothing", "cannot be imported: AttributeError"),
        ("tests.support.vault.held", "failed: TypeError"),
        ("tests.support.vault.coroutine", "returned a coroutine, not a text"),
    ],
)
def test_a_path_that_leads_to_no_function_is_named(
    with_token: NatsServer, target: str, problem: str
) -> None:
    error = failure(cache_of(with_token, TOKEN={"FUNCTION": target}))
    assert f"TOKEN: the function {target} {problem}" in str(error)


def test_the_line_of_the_project_is_named_if_python_s_library_raises(
    with_token: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VAULT_ADDR", raising=False)
    error = failure(cache_of(with_token, TOKEN={"FUNCTION": "tests.support.vault.address"}))
    assert re.search(r"address failed: KeyError in \S+vault\.py, line \d+$", str(error))


def test_an_error_of_counters_names_their_entry(with_token: NatsServer, settings: Any) -> None:
    vault.held["token"] = OSError(SECRET)
    entry = {"LOCATION": with_token.url, "TOKEN": TOKEN, "DEADLINE": 0.2, "REQUEST_TIMEOUT": 0.2}
    settings.NATS_COUNTERS = {"visits": {**entry, "STREAM": "VISITS"}}
    with pytest.raises(CounterUnavailable, match=r'NATS_COUNTERS\["visits"\]: TOKEN: the function'):
        Counter("hits", alias="visits").incr()


def test_a_function_that_returns_content_for_a_path_is_told_where_that_belongs(
    with_token: NatsServer,
) -> None:
    content = accounts.Operator().credentials()
    error = failure(cache_of(with_token, CREDENTIALS=lambda: content))
    assert "belongs in CREDENTIALS_CONTENT" in str(error)
    assert not any(line in str(error) for line in content.splitlines() if line)


def test_a_function_that_returns_a_seed_for_a_path_does_not_give_it_away(
    with_token: NatsServer,
) -> None:
    seed = accounts.user().seed
    error = failure(cache_of(with_token, CREDENTIALS=lambda: seed))
    assert "CREDENTIALS: the file that" in str(error)
    assert seed not in str(error)


@pytest.fixture
def stuck() -> Iterator[Callable[[], str]]:
    """Yield a function that does not return before its event is set, or the test ends."""
    released = threading.Event()

    def ask() -> str:
        released.wait(60)
        return SECRET

    ask.released = released  # type: ignore[attr-defined]
    yield ask
    released.set()


def test_a_function_that_hangs_is_an_outage_and_holds_up_nobody_else(
    with_token: NatsServer, stuck: Any
) -> None:
    cache = cache_of(with_token, TOKEN=stuck, CONNECT_TIMEOUT=0.2, MAX_RECONNECT_WAIT=0.1)
    assert "TOKEN could not be read within CONNECT_TIMEOUT" in str(failure(cache))
    assert works(cache_of(with_token, TOKEN=SECRET))
    stuck.released.set()
    assert eventually(lambda: works(cache))


def test_a_function_that_hangs_is_not_asked_again_meanwhile(
    with_token: NatsServer, stuck: Any, caplog: pytest.LogCaptureFixture
) -> None:
    calls = []

    def ask() -> str:
        calls.append(None)
        return str(stuck())

    cache = cache_of(with_token, TOKEN=ask, CONNECT_TIMEOUT=0.05, MAX_RECONNECT_WAIT=0.05)
    failure(cache)
    connector = cache.session._connector
    tries = []
    connect = connector.connect

    async def counted(*args: Any, **options: Any) -> Any:
        tries.append(None)
        return await connect(*args, **options)

    connector.connect = counted
    assert eventually(lambda: len(tries) > 3)
    assert len(calls) == 1


def test_a_function_that_always_takes_too_long_is_heard_at_the_next_attempt(
    with_token: NatsServer,
) -> None:
    asked = []
    released = threading.Event()

    def ask() -> str:
        asked.append(None)
        if len(asked) > 1:
            return ""
        released.wait(60)
        return SECRET

    cache = cache_of(with_token, TOKEN=ask, CONNECT_TIMEOUT=1)
    connector = cache.session._connector
    connect, ended = connector.connect, threading.Event()

    async def held(*args: Any, **options: Any) -> Any:
        # Each attempt begins when the answer to the one before is there.
        question = connector._asking._question
        if question is not None:
            released.set()
            await question.answered
            ended.set()
        return await connect(*args, **options)

    connector.connect = held  # type: ignore[method-assign]
    assert "TOKEN could not be read within CONNECT_TIMEOUT" in str(failure(cache))
    assert eventually(lambda: works(cache))
    assert ended.is_set()
    assert len(asked) == 1


def test_a_file_is_read_again_at_each_connect(tmp_path: Path) -> None:
    operator, other = accounts.Operator(), accounts.Operator()
    file = tmp_path / "web.creds"
    other.write_credentials(file)
    vault.held["path"] = file
    with NatsServer(token="", config=operator.server_config) as server:
        cache = cache_of(server, CREDENTIALS=vault.path, MAX_REFUSED_WAIT=1)
        assert type(failure(cache)) is AuthenticationFailed
        operator.write_credentials(file)
        assert eventually(lambda: works(cache))
        process.close()


def test_logs_show_no_secret_that_a_function_has_returned(
    with_token: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("", "django_nats", "nats", "asyncio"):
        caplog.set_level(logging.DEBUG, logger=name or None)
    vault.held["token"] = SECRET
    cache = cache_of(with_token, TOKEN=TOKEN)
    assert works(cache)
    assert SECRET not in repr(vars(cache.session))
    process.close()
    assert SECRET not in caplog.text


# The form of credentials ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def operated() -> Iterator[tuple[NatsServer, str]]:
    operator = accounts.Operator()
    with NatsServer(token="", config=operator.server_config) as running:
        yield running, operator.credentials()
        process.close()


@pytest.mark.parametrize(
    "write",
    [
        lambda text: text,
        lambda text: text.replace("\n", "\r\n"),
        lambda text: text.replace("\n", "\r"),
        lambda text: f"\ufeff{text}",
        lambda text: text.replace("\n", "  \t\n"),
        lambda text: text.replace("\n", "\n  "),
        lambda text: text.rstrip("\n").rpartition("\n")[0],  # without the last line
        lambda text: f"# of the web servers\n\n{text}",
    ],
    ids=["lf", "crlf", "cr", "bom", "blanks-after", "blanks-before", "no-end", "comment"],
)
def test_credentials_of_any_editor_log_in(
    operated: tuple[NatsServer, str], write: Callable[[str], str], tmp_path: Path
) -> None:
    server, content = operated
    file = tmp_path / "web.creds"
    file.write_bytes(write(content).encode())
    assert works(cache_of(server, CREDENTIALS=file))
    assert works(cache_of(server, CREDENTIALS_CONTENT=write(content)))


@pytest.mark.parametrize("form", ["{}\r\n", "\ufeff{}", " {} \n"], ids=["crlf", "bom", "blanks"])
def test_a_seed_of_any_editor_logs_in(form: str) -> None:
    user = accounts.user()
    with NatsServer(
        token="", config=authorization(f"users: [{{ nkey: {user.public} }}]")
    ) as server:
        assert works(cache_of(server, NKEY_SEED=form.format(user.seed)))
        process.close()
