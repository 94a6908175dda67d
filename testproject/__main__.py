"""``python -m testproject``: sets up the demonstration site and serves it."""

from __future__ import annotations

import argparse
import errno
import io
import os
import signal
import socket
import sys
from collections.abc import Sequence

LOOPBACK = ("127.0.0.1", "localhost")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the site until Ctrl-C or SIGTERM. Return the exit status.

    The status is 0 after either of them, 1 if the cache or the counters cannot be used, and 2 if
    the site cannot listen on the address, or uvicorn is not installed.
    """
    options = parser().parse_args(argv)
    # SIGTERM would end the process without an exit, and lose views that are not published yet.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    problem = cannot_listen(options.host, options.port)
    if problem:
        print(problem, file=sys.stderr)
        return 2
    try:
        return serve(options.host, options.port)
    except KeyboardInterrupt:
        return 0


def parser() -> argparse.ArgumentParser:
    """Return the argument parser of the command line."""
    arguments = argparse.ArgumentParser(
        prog="python -m testproject", description="Serve the django-nats demonstration site."
    )
    arguments.add_argument(
        "--host",
        default="127.0.0.1",
        help="IPv4 address or name to listen on (default: %(default)s). Any other address shows "
        "the site, with its debug pages, to the network.",
    )
    arguments.add_argument("--port", type=port, default=8000, help="default: %(default)s")
    return arguments


def port(text: str) -> int:
    """Return the number of a port. Raises ArgumentTypeError if it is out of range."""
    number = int(text)
    if not 1 <= number <= 65535:
        raise argparse.ArgumentTypeError(f"{number} is not between 1 and 65535")
    return number


def cannot_listen(host: str, port: int) -> str | None:
    """Return why the site cannot listen on an address and what to do, or None if it can."""
    try:
        # The socket is bound, but does not listen: a client that waits for the site must not
        # connect to it.
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return (
                f"{host}:{port} is in use by another program. "
                f"Choose another port: python -m testproject --port {port % 65535 + 1}"
            )
        return f"Cannot listen on {host}:{port}: {error.strerror}. See --host and --port."
    return None


def serve(host: str, port: int) -> int:
    """Set up the site and serve it until a signal is received. Return the exit status."""
    # Django is imported late, so that a busy port is reported at once.
    import django
    from django.conf import settings
    from django.core.management import call_command

    from django_nats.exceptions import NatsError

    # The shell may have set this variable for another project.
    os.environ["DJANGO_SETTINGS_MODULE"] = "testproject.settings"
    django.setup()
    try:
        from testproject.server import Server
    except ModuleNotFoundError as error:
        print(
            f'{error}. Install what the demonstration needs: pip install -e ".[demo]"',
            file=sys.stderr,
        )
        return 2
    from django.contrib.auth.models import User

    from django_nats.cache import nats_cache
    from django_nats.counters import counters
    from testproject.magazine.sample import EDITOR

    if host not in LOOPBACK:
        settings.ALLOWED_HOSTS.append("*")
    server = Server(host, port)
    # A KeyboardInterrupt that is raised during a step may be lost in a finalizer, or appear as
    # another error. From here on a signal only sets a flag, which is checked between two steps.
    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, server.handle_exit)
    call_command("migrate", verbosity=0)
    call_command("load_sample_data", verbosity=0)
    # The editor's password is public, so the editor may log in from this machine only.
    User.objects.filter(username=EDITOR).update(is_active=host in LOOPBACK)
    if server.should_exit:
        return 0
    try:
        # The first use starts the embedded server. If that fails, the site must not report that it
        # is open.
        stats = nats_cache().stats()
        counters.total(">")
        # A production site runs this command from a timer.
        call_command("nats", "counters", "snapshot", stdout=io.StringIO())
    except NatsError as error:
        if server.should_exit:
            return 0
        print(f"The cache or the counters cannot be used: {error}", file=sys.stderr)
        return 1
    call_command("check", stdout=io.StringIO())
    if server.should_exit:
        return 0
    print(
        f"Slack Water is open at http://{host}:{port}\n"
        f"Its cache is the bucket {stats.bucket} on {stats.server}, its counters are the stream "
        f"{counters.settings.stream.stream}. Ctrl-C closes all.",
        flush=True,
    )
    server.run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
