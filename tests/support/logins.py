"""Servers that clients log in to."""

from __future__ import annotations


def authorization(content: str) -> str:
    """Return the configuration of a server whose clients may take a minute to log in.

    By default the server ends a connection after two seconds, which is too short for a busy
    machine.
    """
    return f"authorization {{ timeout: 60, {content} }}"
