"""Ordinary nats-py clients, for what the package itself does not do."""
