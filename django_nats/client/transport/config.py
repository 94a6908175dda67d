"""How to reach the servers. Two aliases with equal configurations share one connection."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from ...exceptions import NotSent
from .addresses import is_address
from .secrets import (
    SecretFunction,
    checked_seed,
    current,
    parse_credentials,
    read_credentials,
)

_SECRETS = ("password", "token", "nkey_seed", "credentials", "credentials_content")


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
    password: str | SecretFunction | None = field(default=None, repr=False)
    token: str | SecretFunction | None = field(default=None, repr=False)
    nkey_seed: str | SecretFunction | None = field(default=None, repr=False)
    credentials: str | SecretFunction | None = None
    """Path of a .creds file."""
    credentials_content: str | SecretFunction | None = field(default=None, repr=False)
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
    def asked_for(self) -> list[str]:
        """Return the options whose secrets functions return."""
        return [
            attribute.upper()
            for attribute in _SECRETS
            if isinstance(getattr(self, attribute), SecretFunction)
        ]

    @property
    def reads(self) -> bool:
        """Whether client_options() reads files or asks functions, and so may take time."""
        return bool(self.asked_for or self.credentials is not None or self.tls is not None)

    @property
    def hosts(self) -> list[str]:
        """Return the hosts in ``servers``, each once: names first, then IP addresses."""
        hosts = dict.fromkeys(urlsplit(each).hostname or "" for each in self.servers)
        return sorted(hosts, key=is_address)

    def client_options(self) -> dict[str, Any]:
        """Return the arguments for nats-py's connect(), apart from the servers.

        Raise NotSent, with the name of the option, if a secret or a file cannot be used.
        """
        options: dict[str, Any] = {"name": self.name, "inbox_prefix": self.inbox_prefix}
        if self.user is not None:
            options["user"] = self.user
        for attribute in _SECRETS:
            secret = getattr(self, attribute)
            if secret is not None:
                option = attribute.upper()
                what = f"{self.entry}: {option}" if self.entry else option
                options |= _login(attribute, what, current(what, secret), secret)
        if self.tls is not None:
            options["tls"] = self.tls.context()
            if self.tls.hostname is not None:
                options["tls_hostname"] = self.tls.hostname
            options["tls_handshake_first"] = self.tls.handshake_first
        return options


def _login(attribute: str, what: str, text: str, secret: str | SecretFunction) -> dict[str, Any]:
    """Return the arguments for nats-py's connect() that log in with the text of a secret."""
    if attribute == "nkey_seed":
        return {"nkeys_seed_str": checked_seed(what, text)}
    if attribute not in ("credentials", "credentials_content"):
        return {attribute: text}
    from nats.aio.client import RawCredentials  # slow, and imported by then

    if attribute == "credentials":
        # What a function returns may be a secret, instead of a path.
        title = text if secret is text else f"the file that {secret} names"
        found = read_credentials(what, text, title)
    else:
        found = parse_credentials(what, text)
    return {"user_credentials": RawCredentials(found.text)}
