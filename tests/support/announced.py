"""Servers that announce each other to their clients."""

from __future__ import annotations

from contextlib import ExitStack

from django_nats.devserver import NatsServer
from tests.support.ports import free_port

_CLUSTER = 'cluster { name: c, listen: "127.0.0.1:%d", routes: [%s] }\n'


def pair(stack: ExitStack, *configs: str) -> list[NatsServer]:
    """Start two servers that announce each other, with a part of the configuration of each."""
    ports = [free_port(), free_port()]
    routes = ", ".join(f'"nats://127.0.0.1:{port}"' for port in ports)
    return [
        stack.enter_context(
            NatsServer(
                port=free_port(),
                token="",
                jetstream=False,
                config=_CLUSTER % (port, routes) + config,
            )
        )
        for port, config in zip(ports, configs or ("", ""), strict=True)
    ]


def address(server: NatsServer) -> str:
    return f"127.0.0.1:{server.port}"
