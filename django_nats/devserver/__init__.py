"""A nats-server for development and tests: find it, start it, share it, end it.

Standard library only: this package must work before anything of Django or NATS is configured.
"""

from django_nats.devserver.process import NatsServer, find_binary
from django_nats.devserver.shared import Endpoint, embedded

__all__ = ["Endpoint", "NatsServer", "embedded", "find_binary"]
