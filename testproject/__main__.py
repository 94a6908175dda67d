"""``python -m testproject``: everything from an empty directory to a site that serves."""

from __future__ import annotations

import argparse
import errno
import io
import os
import socket
import sys
from collections.abc import Sequence

LOOPBACK = ("127.0.0.1", "localhost")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the site until Ctrl-C.

    Returns the exit status: 0 after Ctrl-C, 1 when the cache cannot be used, 2 when the address
    cannot be listened on.
    """
    options = parser().parse_args(argv)
    problem = cannot_listen(options.host, options.port)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        return serve(options.host, options.port)
    except KeyboardInterrupt:
        return 0


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="python -m testproject", description="Serve the django-nats demonstration site."
    )
    arguments.add_argument(
        "--host",
        default="127.0.0.1",
        help="IPv4 address or name to listen on (default: %(default)s); any other than the "
        "default shows the site, with its debug pages, to the network",
    )
    arguments.add_argument("--port", type=port, default=8000, help="default: %(default)s")
    return arguments


def port(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and 65535")
    return number


def cannot_listen(host: str, port: int) -> str | None:
    """Say why ``host:port`` cannot be listened on, and what to do; None if it can."""
    try:
        socket.create_server((host, port)).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return (
                f"{host}:{port} is in use by another program. "
                f"Choose another port: python -m testproject --port {port % 65535 + 1}"
            )
        return f"Cannot listen on {host}:{port}: {error.strerror}. See --host and --port."
    return None


def serve(host: str, port: int) -> int:
    # Django is imported here, so that a busy port is reported at once.
    import django
    from django.conf import settings
    from django.core.cache import caches
    from django.core.management import call_command

    from django_nats.exceptions import NatsError

    # Whatever project this shell is for otherwise.
    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    django.setup()
    if host not in LOOPBACK:
        settings.ALLOWED_HOSTS.append("*")
    call_command("migrate", verbosity=0)
    call_command("load_sample_data", verbosity=0)
    try:
        # The first use starts the embedded server: a site without one should not say it is ready.
        stats = caches["default"].stats()  # type: ignore[attr-defined]
    except NatsError as error:
        print(f"The cache cannot be used: {error}", file=sys.stderr)
        return 1
    print(
        f"Slack Water is open at http://{host}:{port}\n"
        f"Its cache is the bucket {stats.bucket} on {stats.server}. Ctrl-C closes both.",
        flush=True,
    )
    # runserver's own banner would say the same at greater length.
    call_command("runserver", f"{host}:{port}", use_reloader=False, stdout=io.StringIO())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
