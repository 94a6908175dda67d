"""Servers whose configuration changes while they run, and accounts that have limits."""

from __future__ import annotations

import os
import signal

from django_nats.devserver import NatsServer
from tests.servers import eventually

LOGIN = {"USER": "web", "PASSWORD": "pw"}
"""OPTIONS that log in to the account of ``account``."""


class Reloading(NatsServer):
    """A server whose configuration can be changed while it runs."""

    def reload(self, config: str) -> None:
        """Reload with another ``config``, and return when the server has done so."""
        self._config = config
        (self.directory / "server.conf").write_text(self._settings())
        before = self.log().count("Reloaded server configuration")
        os.kill(self.pid, signal.SIGHUP)
        assert eventually(lambda: self.log().count("Reloaded server configuration") > before), (
            self.log()
        )


def account(jetstream: str = "enabled", *, permissions: str = "") -> str:
    """Return the configuration of a server with one account besides the system's.

    ``jetstream`` is what the account has of JetStream, and ``permissions`` those of its user.
    """
    user = f"user: web, password: pw, permissions: {{ {permissions} }}"
    return f"""
accounts {{
  APP {{ jetstream: {jetstream}, users: [{{ {user} }}] }}
  SYS {{ users: [{{ user: sys, password: pw }}] }}
}}
system_account: SYS
authorization {{ timeout: 60 }}
"""
