"""The tag of all checks, for ``manage.py check --tag nats``."""

TAG = "nats"
