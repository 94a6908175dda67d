"""LOCATION and the options of a connection, which caches and counters have in common."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings

from ..client.config import ConnectionConfig, TLSConfig
from .reader import Reader

EMBEDDED = "embedded"
DEFAULT_LOCATION = "nats://127.0.0.1:4222"

CONNECTION_OPTIONS = {
    "NAME": "name",
    "USER": "user",
    "PASSWORD": "password",
    "TOKEN": "token",
    "NKEY_SEED": "nkey_seed",
    "CREDENTIALS": "credentials",
    "TLS": "tls",
    "INBOX_PREFIX": "inbox_prefix",
    "CONNECT_TIMEOUT": "connect_timeout",
}
EMBEDDED_OPTIONS = ("EMBEDDED_DIR", "ALLOW_EMBEDDED")

_LOCATION_MUST_BE = f'must be nats://host:port, tls://host:port, a list of these, or "{EMBEDDED}"'
_SUBJECT = re.compile(r"[^\s.*>\x7f]+(\.[^\s.*>\x7f]+)*")


def read_connection(reader: Reader, location: object) -> ConnectionConfig:
    values: dict[str, Any] = {
        attribute: reader.text(option)
        for option, attribute in CONNECTION_OPTIONS.items()
        if option not in ("TLS", "CONNECT_TIMEOUT") and option in reader.options
    }
    values["connect_timeout"] = reader.seconds("CONNECT_TIMEOUT", 2.0)
    prefix = values.get("inbox_prefix", "_INBOX")
    if not prefix.isascii() or not _SUBJECT.fullmatch(prefix):
        reader.fail("INBOX_PREFIX", f"is {prefix!r}, which is no NATS subject without wildcards")
    tls = reader.mapping("TLS", {"CA", "CERT", "KEY", "HOSTNAME"})
    for member, path in tls.items():
        if not isinstance(path, str):
            reader.fail("TLS", f"has a {member} that is no string, but {type(path).__name__}")
    if "KEY" in tls and "CERT" not in tls:
        reader.fail("TLS", "has a KEY, but no CERT")
    if "TLS" in reader.options:
        values["tls"] = TLSConfig(
            tls.get("CA"), tls.get("CERT"), tls.get("KEY"), tls.get("HOSTNAME")
        )
    if location == EMBEDDED:
        for attribute in ("user", "password", "token", "nkey_seed", "credentials", "tls"):
            if attribute in values:
                reader.fail(attribute.upper(), f'does not go with LOCATION "{EMBEDDED}"')
        return ConnectionConfig(embedded=_embedded(reader), **values)
    if reader.options.keys() & {"EMBEDDED_DIR", "ALLOW_EMBEDDED"}:
        reader.fail("EMBEDDED_DIR", f'and ALLOW_EMBEDDED go with LOCATION "{EMBEDDED}" only')
    if isinstance(location, str):
        location = re.split("[;,]", location or DEFAULT_LOCATION)
    if not isinstance(location, (list, tuple)) or not location:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(location)}")
    servers = []
    for url in location:
        server, credentials = _server(reader, url)
        servers.append(server)
        for attribute, value in credentials.items():
            if values.setdefault(attribute, value) != value:
                reader.fail("LOCATION", "has credentials that are not the same everywhere")
    if ("user" in values) != ("password" in values):
        reader.fail("USER", "and PASSWORD go together")
    ways = [way for way in ("user", "token", "nkey_seed", "credentials") if way in values]
    if len(ways) > 1:
        reader.fail(ways[1].upper(), f"and {ways[0].upper()} are two ways to log in: choose one")
    return ConnectionConfig(servers=tuple(servers), **values)


def _server(reader: Reader, url: object) -> tuple[str, dict[str, str]]:
    """A server's URL without credentials, and the credentials."""
    text = url.strip() if isinstance(url, str) else ""
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, 4222 if parts.port is None else parts.port
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if not host or not port or parts.scheme not in ("nats", "tls") or extra:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(url)}")
    credentials = {}
    if parts.password is not None:
        credentials = {"user": unquote(parts.username or ""), "password": unquote(parts.password)}
    elif parts.username is not None:
        credentials = {"token": unquote(parts.username)}
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}:{port}", credentials


def _shown(location: object) -> str:
    """A location for an error: only those parts of a URL that can hold no password."""
    if not isinstance(location, str):
        return repr(location) if not location else type(location).__name__
    safe = re.match(r"(\w+://)?(.*@)?([\w.-]*(?::\d{1,5}(?=$|[/?#]))?)", location, re.DOTALL)
    scheme, credentials, host = safe.groups("") if safe else ("", "", "")
    rest = "***" if safe and safe.end() < len(location) else ""
    return repr(f"{scheme}{'***@' if credentials else ''}{host}{rest}")


def _embedded(reader: Reader) -> str:
    if not settings.DEBUG and not reader.boolean("ALLOW_EMBEDDED", False):
        reader.fail(
            "LOCATION",
            f'is "{EMBEDDED}", a server for development, but DEBUG is off. Run a NATS server and '
            "name it. Django's test runner turns DEBUG off, too: in tests use the pytest fixture "
            "nats_cache, or set ALLOW_EMBEDDED to True",
        )
    directory = reader.options.get("EMBEDDED_DIR")
    base = Path(getattr(settings, "BASE_DIR", None) or Path.cwd())
    return str(Path(directory).absolute() if directory else base.absolute() / ".nats")
