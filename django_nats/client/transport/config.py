"""How to reach the servers. Two aliases with equal configurations share one connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...exceptions import NotSent
from .addresses import is_address


class TLSConfig(NamedTuple):
    """Paths of PEM files, and the hostname that the server's certificate must have."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    hostname: str | None = None
    handshake_first: bool = False
    """Whether TLS begins before the server's INFO."""

    def context(self) -> ssl.SSLContext:
        """Return a context that verifies the server.

        Raise NotSent, with the name of the file, if a file cannot be used.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
        except OSError as error:
            raise NotSent(f"TLS: the CA {self.ca} cannot be used: {error.strerror}") from error
        if self.certificate is not None:
            files = f"CERT {self.certificate}" + (f" and KEY {self.key}" if self.key else "")
            try:
                context.load_cert_chain(self.certificate, self.key, password=_no_password)
            except (OSError, ValueError) as error:
                reason = getattr(error, "strerror", None) or error
                raise NotSent(f"TLS: {files} cannot be used: {reason}") from error
        return context


def _no_password() -> str:
    # Otherwise OpenSSL would ask for it on the terminal, and the process would wait for that.
    raise ValueError("the key is encrypted, and there is no option for its password")


@dataclass(frozen=True)
class ConnectionConfig:
    """Everything that tells one connection from another. Its repr shows no secrets."""

    servers: tuple[str, ...] = ()
    """URLs with the scheme nats or tls, without credentials."""
    embedded: str | None = None
    """Directory of the shared development server, which replaces ``servers``."""
    test_run: str | None = None
    """The test run that this server is private to. Its directory is removed after it."""
    name: str = "django-nats"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    credentials: str | None = None
    """Path of a .creds file."""
    tls: TLSConfig | None = None
    discover: bool = True
    """Whether to use servers that a connected one announces as members of its cluster."""
    randomize: bool = True
    """Whether to try the servers, and the addresses of each, in random order."""
    inbox_prefix: str = "_INBOX"
    connect_timeout: float = 2.0
    """Seconds after which the first operation fails if no server can be reached."""
    max_reconnect_wait: float = 4.0
    """Longest pause between two attempts to connect, in seconds."""
    max_refused_wait: float = 15.0
    """Longest pause between two attempts while the server refuses the login, in seconds."""
    entry: str = field(default="", compare=False)
    """The entry of settings that this was read from, for messages."""
    login: str = field(default="", compare=False)
    """What of the entry holds the credentials, for messages. Empty if there are none."""

    @property
    def where(self) -> str:
        """Return the servers, for messages."""
        if self.embedded is not None:
            return f"the embedded server in {self.embedded}"
        return ", ".join(self.servers)

    @property
    def hosts(self) -> list[str]:
        """Return the hosts in ``servers``, each once: names first, then IP addresses."""
        hosts = dict.fromkeys(urlsplit(each).hostname or "" for each in self.servers)
        return sorted(hosts, key=is_address)

    def client_options(self) -> dict[str, Any]:
        """Return the arguments for nats-py's connect(), apart from the servers.

        Raise NotSent, with the name of the option, if a secret or a file cannot be used.
        """
        if self.credentials is not None:
            _check_credentials(self.credentials)
        if self.nkey_seed is not None:
            _check_seed("NKEY_SEED", self.nkey_seed.strip().encode())
        options: dict[str, Any] = {"name": self.name}
        for option, value in {
            "user": self.user,
            "password": self.password,
            "token": self.token,
            "nkeys_seed_str": self.nkey_seed,
            "user_credentials": self.credentials,
        }.items():
            if value is not None:
                options[option] = value
        if self.tls is not None:
            options["tls"] = self.tls.context()
            if self.tls.hostname is not None:
                options["tls_hostname"] = self.tls.hostname
            options["tls_handshake_first"] = self.tls.handshake_first
        return options


def _check_credentials(path: str) -> None:
    # nats-py never returns from reading a file that lacks the first of these lines.
    try:
        lines = Path(path).read_bytes().splitlines()
    except OSError as error:
        raise NotSent(f"CREDENTIALS: {path} cannot be read: {error.strerror}") from error
    parts = {}
    for line, after in pairwise(lines):
        for part in (b"BEGIN NATS USER JWT", b"BEGIN USER NKEY SEED"):
            if part in line and after:
                parts[part] = after
    if len(parts) != 2:
        raise NotSent(f"CREDENTIALS: {path} is not a credentials file: it needs a JWT and a seed")
    _check_seed(f"CREDENTIALS: {path}", parts[b"BEGIN USER NKEY SEED"])


def _check_seed(option: str, seed: bytes) -> None:
    if find_spec("nkeys") is None:
        raise NotSent(f"{option} needs another package: pip install django-nats[nkeys]")
    import nkeys

    try:
        nkeys.from_seed(bytearray(seed)).wipe()
    except Exception:
        # Without the cause: its traceback shows the seed.
        raise NotSent(f"{option} holds no valid nkey seed") from None
