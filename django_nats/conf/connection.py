"""Read LOCATION and the options of a connection, which caches and counters share."""

from __future__ import annotations

import re
import warnings
from hashlib import sha256
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from django.conf import settings

from .. import testrun
from ..client.transport.config import ConnectionConfig, TLSConfig
from ..exceptions import NamedServerWarning
from .django_redis import PAGE, SCHEMES
from .reader import Reader, is_nearly
from .secrets import SECRETS, read_secret

EMBEDDED = "embedded"
DEFAULT_LOCATION = "nats://127.0.0.1:4222"

CONNECTION_OPTIONS = {
    "NAME": "name",
    "USER": "user",
    "PASSWORD": "password",
    "TOKEN": "token",
    "NKEY_SEED": "nkey_seed",
    "CREDENTIALS": "credentials",
    "CREDENTIALS_CONTENT": "credentials_content",
    "TLS": "tls",
    "DISCOVER": "discover",
    "RANDOMIZE": "randomize",
    "INBOX_PREFIX": "inbox_prefix",
    "CONNECT_TIMEOUT": "connect_timeout",
    "MAX_RECONNECT_WAIT": "max_reconnect_wait",
    "MAX_REFUSED_WAIT": "max_refused_wait",
}
TLS_MEMBERS = {"CA", "CERT", "KEY", "HOSTNAME", "HANDSHAKE_FIRST"}
_WAYS = ("user", "token", "nkey_seed", "credentials", "credentials_content")
_SWITCHES = ("DISCOVER", "RANDOMIZE")
_DURATIONS = ("CONNECT_TIMEOUT", "MAX_RECONNECT_WAIT", "MAX_REFUSED_WAIT")
EMBEDDED_OPTIONS = ("EMBEDDED_DIR", "ALLOW_EMBEDDED")

_LOCATION_MUST_BE = f'must be nats://host:port, tls://host:port, a list of these, or "{EMBEDDED}"'
_NO_WEBSOCKET = (
    "WebSocket is not supported: django-nats reads and writes a TCP socket itself, which nats-py "
    "does not give for WebSocket. Use the server's port for clients, by default 4222"
)
_SUBJECT = re.compile(r"[^\s.*>\x7f]+(\.[^\s.*>\x7f]+)*")


def read_connection(reader: Reader, location: object) -> ConnectionConfig:
    """Return the configuration of a connection.

    Raises ImproperlyConfigured if LOCATION or an option is not valid.
    """
    values: dict[str, Any] = {"entry": reader.where}
    values |= {
        attribute: read_secret(reader, option) if option in SECRETS else reader.text(option)
        for option, attribute in CONNECTION_OPTIONS.items()
        if option not in ("TLS", *_SWITCHES, *_DURATIONS) and reader.options.get(option) is not None
    }
    for option in _SWITCHES:
        values[CONNECTION_OPTIONS[option]] = reader.boolean(option, True)
    for option in _DURATIONS:
        attribute = CONNECTION_OPTIONS[option]
        values[attribute] = reader.seconds(option, getattr(ConnectionConfig, attribute))
    prefix = values.get("inbox_prefix", "_INBOX")
    if not prefix.isascii() or not _SUBJECT.fullmatch(prefix):
        reader.fail("INBOX_PREFIX", f"is {prefix!r}, which is not a NATS subject without wildcards")
    tls = reader.mapping("TLS", TLS_MEMBERS)
    first = tls.pop("HANDSHAKE_FIRST", False)
    if not isinstance(first, bool):
        reader.fail("TLS", "has a HANDSHAKE_FIRST that is not True or False")
    for member, path in tls.items():
        if not isinstance(path, str):
            reader.fail("TLS", f"has a {member} that is not a string, but {type(path).__name__}")
    if "KEY" in tls and "CERT" not in tls:
        reader.fail("TLS", "has a KEY, but no CERT")
    if "TLS" in reader.options:
        values["tls"] = TLSConfig(
            tls.get("CA"), tls.get("CERT"), tls.get("KEY"), tls.get("HOSTNAME"), first
        )
    if isinstance(location, str) and location != EMBEDDED and is_nearly(location, EMBEDDED):
        reader.fail("LOCATION", f'is {location!r}. Correct it to "{EMBEDDED}"')
    if location == EMBEDDED:
        for option in ("USER", *SECRETS, "TLS", "JS_DOMAIN", "JS_API_PREFIX"):
            if reader.options.get(option) is not None:
                reader.fail(option, f'cannot be combined with LOCATION "{EMBEDDED}"')
        run = testrun.current()
        return ConnectionConfig(embedded=_embedded(reader, run), test_run=run, **values)
    if reader.options.keys() & {"EMBEDDED_DIR", "ALLOW_EMBEDDED"}:
        reader.fail("EMBEDDED_DIR", f'and ALLOW_EMBEDDED need LOCATION "{EMBEDDED}"')
    if isinstance(location, str):
        location = re.split("[;,]", location or DEFAULT_LOCATION)
    if not isinstance(location, (list, tuple)) or not location:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(location)}")
    servers = []
    for url in location:
        server, credentials = _server(reader, url)
        servers.append(server)
        for attribute, value in credentials.items():
            if values.setdefault(attribute, value) == value:
                continue
            if attribute.upper() in reader.options:
                reader.fail("LOCATION", f"and {attribute.upper()} are two logins: choose one")
            reader.fail("LOCATION", "has different credentials for different servers")
    if ("user" in values) != ("password" in values):
        reader.fail("USER", "and PASSWORD must be given together")
    values["login"] = _login(reader, values)
    ways = [way for way in _WAYS if way in values]
    if len(ways) > 1:
        reader.fail(ways[1].upper(), f"and {ways[0].upper()} are two ways to log in: choose one")
    return ConnectionConfig(servers=tuple(servers), **values)


def _login(reader: Reader, values: dict[str, Any]) -> str:
    """Return what holds the credentials, for messages."""
    if "user" in values and "USER" in reader.options:
        return "USER and PASSWORD"
    for way in _WAYS[1:]:
        if way in values and way.upper() in reader.options:
            return way.upper()
    return "the credentials in LOCATION" if {"user", "token"} & values.keys() else ""


def _server(reader: Reader, url: object) -> tuple[str, dict[str, str]]:
    """Return a server's URL without its credentials, and the credentials."""
    text = url.strip() if isinstance(url, str) else ""
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, 4222 if parts.port is None else parts.port
    except ValueError:
        host, port, parts = None, 0, urlsplit("")
    extra = parts.path.strip("/") or parts.query or parts.fragment
    if "://" in text and parts.scheme in SCHEMES:
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(url)}. {PAGE}")
    if "://" in text and parts.scheme in ("ws", "wss"):
        reader.fail("LOCATION", f"{_LOCATION_MUST_BE}, not {_shown(url)}. {_NO_WEBSOCKET}")
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
    """Return a location for an error message, without what may be a password."""
    if not isinstance(location, str):
        return repr(location) if not location else type(location).__name__
    safe = re.match(r"(\w+://)?(.*@)?([\w.-]*(?::\d{1,5}(?=$|[/?#]))?)", location, re.DOTALL)
    scheme, credentials, host = safe.groups("") if safe else ("", "", "")
    rest = "***" if safe and safe.end() < len(location) else ""
    return repr(f"{scheme}{'***@' if credentials else ''}{host}{rest}")


def _embedded(reader: Reader, test_run: str | None) -> str:
    """Return the directory of the embedded server: in a test run, one that nothing else uses."""
    allowed = reader.boolean("ALLOW_EMBEDDED", False)
    if not (settings.DEBUG or allowed or test_run):
        reader.fail(
            "LOCATION",
            f'is "{EMBEDDED}", a server for development, but DEBUG is False. Run a NATS server '
            f"and name its address, or set ALLOW_EMBEDDED to True in {reader.place}",
        )
    chosen = reader.options.get("EMBEDDED_DIR")
    base = Path(getattr(settings, "BASE_DIR", None) or Path.cwd())
    directory = str(Path(chosen).absolute() if chosen else base.absolute() / ".nats")
    if test_run is None:
        return directory
    import tempfile  # not imported outside of tests

    # Aliases with different directories have different servers in tests, too.
    name = sha256(f"{test_run} {directory}".encode()).hexdigest()[:24]
    return str(Path(tempfile.gettempdir()) / f"django-nats-{name}")


# Test runs -------------------------------------------------------------------------------------


def is_outdated(connection: ConnectionConfig) -> bool:
    """Return True if a connection to an embedded server belongs to another test run, or to none.

    A cache may have been made before the tests began, or by the parent of a forked test process.
    """
    return connection.embedded is not None and connection.test_run != testrun.current()


_warned: set[str] = set()


def warn_of_named_server(where: str, connection: ConnectionConfig) -> None:
    """Warn, once for each entry of settings, if a test run uses a server that settings name.

    A server that this process has started is for its tests, and needs no warning.
    """
    if where in _warned or connection.embedded is not None or testrun.current() is None:
        return
    from ..devserver.server import was_started_here  # not imported outside of tests

    if not any(was_started_here(server) for server in connection.servers):
        warnings.warn(
            f"{where}: this test run uses the NATS server at {connection.where}, as settings say, "
            "with what others keep there. For a private and empty server, set LOCATION to "
            f'"{EMBEDDED}" in the settings of the tests, or use the pytest fixtures nats_cache and '
            "nats_counters.",
            NamedServerWarning,
            stacklevel=2,
        )
    _warned.add(where)
