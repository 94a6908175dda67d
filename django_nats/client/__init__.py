"""The NATS client: no Django here, and nothing of nats-py outside."""
