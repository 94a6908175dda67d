"""Private keys and seeds in options that are no place for them, and how secrets are shared."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured

from django_nats.client import process
from django_nats.client.transport.secrets import SecretFunction
from django_nats.conf.counters import counter_settings
from tests.support import accounts, vault
from tests.support.configuring import URL, config, problem

USER = accounts.user()
CREDS = accounts.Operator().credentials()
PEM = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIHH\n-----END PRIVATE KEY-----\n"
ENCODED = base64.b64encode(PEM.encode()).decode()
JWT = CREDS.splitlines()[1]

MISPLACED: list[tuple[str, dict[str, Any], str]] = [
    ("pem as KEY", {"TLS": {"CERT": "web.pem", "KEY": PEM}}, "TLS has a KEY that is not the path"),
    ("pem as CERT", {"TLS": {"CERT": PEM}}, "TLS has a CERT that is not the path"),
    ("pem as CA", {"TLS": {"CA": PEM}}, "TLS has a CA that is not the path"),
    ("base64 as KEY", {"TLS": {"CERT": "c", "KEY": ENCODED}}, "TLS has a KEY that is not"),
    ("der as KEY", {"TLS": {"CERT": "c", "KEY": "MC4C" * 300}}, "TLS has a KEY that is not"),
    ("pem as HOSTNAME", {"TLS": {"HOSTNAME": PEM}}, "TLS holds a private key"),
    ("creds as CREDENTIALS", {"CREDENTIALS": CREDS}, "CREDENTIALS is not the path of a .creds"),
    ("jwt as CREDENTIALS", {"CREDENTIALS": JWT}, "CREDENTIALS is not the path of a .creds"),
    ("seed as CREDENTIALS", {"CREDENTIALS": USER.seed}, "CREDENTIALS is not the path of a .creds"),
    ("path as NKEY_SEED", {"NKEY_SEED": "/run/s3cret/web"}, "NKEY_SEED must be the seed itself"),
    ("creds as NKEY_SEED", {"NKEY_SEED": CREDS}, "NKEY_SEED must be the seed itself"),
    ("path as content", {"CREDENTIALS_CONTENT": "/run/s3cret"}, "CREDENTIALS_CONTENT is not the"),
    (
        "Path as content",
        {"CREDENTIALS_CONTENT": Path("/run/s3cret")},
        "CREDENTIALS_CONTENT is not the",
    ),
    ("seed as content", {"CREDENTIALS_CONTENT": USER.seed}, "CREDENTIALS_CONTENT is not the"),
    ("seed as TOKEN", {"TOKEN": USER.seed}, "TOKEN holds a private key"),
    ("seed as PASSWORD", {"USER": "web", "PASSWORD": USER.seed}, "PASSWORD holds a private key"),
    ("seed as USER", {"USER": USER.seed, "PASSWORD": "pw"}, "USER holds a private key"),
    ("seed as NAME", {"NAME": USER.seed}, "NAME holds a private key"),
    ("seed as INBOX_PREFIX", {"INBOX_PREFIX": USER.seed}, "INBOX_PREFIX holds a private key"),
    ("seed as BUCKET", {"BUCKET": f"{USER.seed}!"}, "BUCKET holds a private key"),
    ("creds as TOKEN", {"TOKEN": CREDS}, "TOKEN holds a private key"),
    ("seed in METADATA", {"METADATA": {"seed": USER.seed}}, "METADATA holds a private key"),
    ("key in a list", {"PLACEMENT": {"TAGS": [PEM]}}, "PLACEMENT holds a private key"),
    ("seed as FUNCTION", {"TOKEN": {"FUNCTION": USER.seed}}, "TOKEN holds a private key"),
    ("seed in FUNCTION", {"NKEY_SEED": {"FUNCTION": USER.seed}}, "NKEY_SEED must have a FUNCTION"),
]
SHOWN = (USER.seed, PEM.splitlines()[1], JWT, CREDS.splitlines()[5], "/run/s3cret", "MC4CMC4C")


@pytest.mark.parametrize(
    ("options", "message"), [case[1:] for case in MISPLACED], ids=[case[0] for case in MISPLACED]
)
def test_a_key_in_the_wrong_option_is_refused_without_being_shown(
    options: dict[str, Any], message: str, settings: Any
) -> None:
    text = problem(**options)
    assert text.startswith(f'CACHES["?"]: {message}')
    assert not [each for each in SHOWN if each in text]
    counters = {name: value for name, value in options.items() if name != "BUCKET"}
    if counters:
        settings.NATS_COUNTERS = {"default": {"LOCATION": URL, **counters}}
        with pytest.raises(ImproperlyConfigured) as caught:
            counter_settings("default")
        assert not [each for each in SHOWN if each in str(caught.value)]


@pytest.mark.parametrize(
    "location",
    [f"nats://{USER.seed}@127.0.0.1", f"nats://{USER.seed}:4222", [URL, f"web:{USER.seed}@a"], PEM],
    ids=["token", "host", "password", "pem"],
)
def test_a_key_in_location_is_refused_without_being_shown(location: object) -> None:
    text = problem(location)
    assert text.startswith('CACHES["?"]: LOCATION holds a private key')
    assert not [each for each in SHOWN if each in text]


def test_a_token_may_be_a_jwt() -> None:
    assert config(TOKEN=JWT).connection.token == JWT  # an auth callout may ask for one


@pytest.mark.parametrize("option", ["USER", "PASSWORD", "TOKEN", "CREDENTIALS", "NKEY_SEED"])
def test_an_option_that_is_none_counts_as_left_out(option: str) -> None:
    """So that a variable of the environment need not be set."""
    assert config(**{option: None}).connection == config().connection
    assert config("embedded", ALLOW_EMBEDDED=True, **{option: None}).connection.login == ""


@pytest.mark.parametrize(
    "value", [{"FUNCTION": "token"}, {"FUNCTION": 5}, {"FUNCTION": "a b.c"}, {"FUNCTION": ""}, {}]
)
def test_a_function_must_be_one_or_its_dotted_path(value: object) -> None:
    assert problem(TOKEN=value) == (
        'CACHES["?"]: TOKEN must have a FUNCTION that is a function or its dotted path.'
    )


def test_an_unknown_member_of_a_secret_is_named() -> None:
    assert "TOKEN has an unknown member 'FUNC'. Did you mean FUNCTION?" in problem(
        TOKEN={"FUNC": "a.b"}
    )


@pytest.mark.parametrize("option", ["TOKEN", "NKEY_SEED", "CREDENTIALS", "CREDENTIALS_CONTENT"])
def test_a_function_is_a_way_to_log_in_like_its_result(option: str) -> None:
    made = config(**{option: vault.token}).connection
    assert made.login == option
    assert "two ways to log in" in problem(**{option: vault.token}, USER="web", PASSWORD="pw")
    assert "cannot be combined" in problem("embedded", **{option: vault.token})


# Sharing -------------------------------------------------------------------------------------


class Vault:
    """An object without a hash, as one with __eq__ is."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vault)

    def __call__(self) -> str:
        return "s3cret"


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    process.close()


def test_aliases_with_the_same_function_share_a_connection() -> None:
    held = Vault()
    for one, other in (
        (vault.token, vault.token),
        (vault.token, {"FUNCTION": vault.token}),
        ({"FUNCTION": "myproject.vault.token"}, {"FUNCTION": "myproject.vault.token"}),
        (held, held),
    ):
        first, second = config(TOKEN=one).connection, config(TOKEN=other).connection
        assert first == second
        assert process.session(first) is process.session(second)


def test_aliases_with_different_secrets_never_share_a_connection() -> None:
    ways: list[dict[str, Any]] = [
        {"TOKEN": vault.token},
        {"TOKEN": vault.seed},
        {"TOKEN": "tests.support.vault.token"},  # a token that looks like a path
        {"TOKEN": {"FUNCTION": "tests.support.vault.token"}},
        {"TOKEN": {"FUNCTION": "tests.support.vault.seed"}},
        {"TOKEN": partial(vault.token)},
        {"NKEY_SEED": vault.token},
        {"USER": "web", "PASSWORD": vault.token},
        {"USER": "app", "PASSWORD": vault.token},
        {"CREDENTIALS": vault.token},
        {"CREDENTIALS_CONTENT": vault.token},
        {"CREDENTIALS_CONTENT": CREDS},
        {"CREDENTIALS_CONTENT": accounts.Operator().credentials()},
        {"CREDENTIALS": Path("/etc/web.creds")},
    ]
    sessions = [process.session(config(**options).connection) for options in ways]
    assert len(set(map(id, sessions))) == len(ways)


def test_no_repr_or_field_shows_what_a_function_holds() -> None:
    def ask(secret: str) -> str:
        return secret

    made = config(TOKEN=partial(ask, "s3cret")).connection
    assert "s3cret" not in f"{made!r}{asdict(made)!r}{made.token!r}"
    assert repr(made.token) == "<SecretFunction functools.partial>"
    assert repr(SecretFunction("myproject.vault.token")) == "<SecretFunction myproject.vault.token>"
