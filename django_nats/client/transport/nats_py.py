"""What the connection needs of nats-py beyond its documented interface.

A release of nats-py may rename a private name. Calls would then fail one by one, each with an error
that says little. So the names are looked up once, before the first connection.
"""

from __future__ import annotations

from importlib import import_module

from ...exceptions import DriverMismatch

REQUIREMENT = ">=2.16,<2.17"
"""The versions that the connection has been tested with, as in pyproject.toml."""
PRIVATE_NAMES = {
    "nats.aio.client.Client": (
        *("_read_loop", "_send_ping", "_process_info", "_process_pong", "_process_err"),
        *("_process_op_err", "_pongs", "_reading_task", "_pings_outstanding", "_transport"),
        *("_ping_interval_task", "_flusher_task"),
        *("_connect_to_server", "_max_payload", "_setup_server_pool", "_process_connect_init"),
        *("_nkeys_seed_str", "_user_credentials", "_setup_nkeys_connect"),
        *("_pending", "_pending_data_size", "_err", "_reconnection_task", "_close"),
        "_attempt_reconnect",
    ),
    "nats.aio.transport.TcpTransport": (
        *("_io_reader", "_io_writer", "_bare_io_reader", "_bare_io_writer"),
    ),
}
"""The names that subclasses of nats-py's classes use, by the class whose instances have them."""


def require_names() -> None:
    """Raise DriverMismatch if the installed nats-py lacks a private name."""
    for path, names in PRIVATE_NAMES.items():
        module, _, kind = path.rpartition(".")
        try:
            instance = getattr(import_module(module), kind)()
        except (ImportError, AttributeError) as error:
            raise _lacks(path) from error
        for name in names:
            if not hasattr(instance, name):
                raise _lacks(f"{kind}.{name}")


def _lacks(name: str) -> DriverMismatch:
    from importlib.metadata import PackageNotFoundError, version  # slow, and hardly ever needed

    try:
        installed = f"nats-py {version('nats-py')} lacks"
    except PackageNotFoundError:
        installed = "nats-py is not installed: there is no"
    return DriverMismatch(
        f"{installed} {name}, which django-nats needs. Install a version that it supports: "
        f"pip install 'nats-py{REQUIREMENT}'"
    )
