"""How to reach the servers: what makes two aliases share one connection, or not."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class TLSConfig:
    """Paths of PEM files; hostname is what the server's certificate must name."""

    ca: str | None = None
    certificate: str | None = None
    key: str | None = None
    hostname: str | None = None

    def context(self) -> ssl.SSLContext:
        """A context that verifies the server. Raises OSError or ssl.SSLError on bad files."""
        context = ssl.create_default_context(cafile=self.ca)
        if self.certificate is not None:
            context.load_cert_chain(self.certificate, self.key)
        return context


@dataclass(frozen=True)
class ConnectionConfig:
    """A connection's identity. Secrets stay out of its repr."""

    servers: tuple[str, ...] = ()
    """nats:// or tls:// URLs, without credentials."""
    embedded: str | None = None
    """Directory of the shared development server, instead of servers."""
    name: str = "django-nats"
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    token: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)
    credentials: str | None = None
    """Path of a .creds file."""
    tls: TLSConfig | None = None
    inbox_prefix: str = "_INBOX"
    connect_timeout: float = 2.0
    """Seconds within which the first operation fails when no server can be reached."""

    @property
    def where(self) -> str:
        """The servers, for messages."""
        if self.embedded is not None:
            return f"the embedded server in {self.embedded}"
        return ", ".join(self.servers)

    def client_options(self) -> dict[str, Any]:
        """What nats-py's connect() wants to be told of it."""
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
        return options
