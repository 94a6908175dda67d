"""A nats-server for development and tests: find, start, share and stop it.

This package imports the standard library only, since it must work before Django or NATS is
configured.
"""

from django_nats.devserver.server import NatsServer, find_binary
from django_nats.devserver.shared import Endpoint, embedded

__all__ = ["Endpoint", "NatsServer", "embedded", "find_binary"]
