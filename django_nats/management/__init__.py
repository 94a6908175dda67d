"""The subcommands of ``manage.py nats``, one module each."""
