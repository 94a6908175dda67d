"""The demonstration site: a small magazine whose cache is NATS. Run ``python -m testproject``."""
