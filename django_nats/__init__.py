"""A Django cache backend and counters on models, on NATS JetStream."""

__version__ = "0.1.0"
