"""The tag of all checks: ``manage.py check --tag nats``."""

TAG = "nats"
