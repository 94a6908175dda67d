"""The subcommands of ``manage.py nats``, with a module for each."""
