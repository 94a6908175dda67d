"""Django on NATS JetStream: a cache backend, and counters on models."""
