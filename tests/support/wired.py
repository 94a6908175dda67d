"""A request on a connection of which a test chooses every byte that comes in."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from django_nats.client.protocol.parser import Parser, ProtocolError
from django_nats.client.protocol.steps import Request
from django_nats.client.transport.pending import Outstanding
from django_nats.client.transport.waiter import Waiter

MOST = 1024 * 1024
"""Bytes of the largest reply."""


def cut(data: bytes, at: Iterable[int]) -> list[bytes]:
    """Cut bytes into pieces at these positions, which may lie beyond their end."""
    edges = [0, *sorted(each % (len(data) + 1) for each in at), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


class Wired:
    """A request whose replies come in on the subject, or the subscription, of a chosen token."""

    def __init__(self, request: Request, token: bytes) -> None:
        self.ended: list[bytes] = []
        """Subscriptions that the request has ended."""
        self.table = Outstanding(self.ended.append)
        self.table.open(b"_INBOX.x.")
        self.table.max_reply_bytes = MOST
        self.table._tokens.append(token)
        self.waiter = Waiter([request], lambda: None)
        self.table.enlist(self.waiter, [], MOST)
        self.parser = Parser(self.table.take, lambda line: None, self.table.refuse_large, MOST)

    def failure(self, pieces: Iterable[bytes]) -> str:
        """Let pieces come in. Return why the request is not answered by them, or nothing."""
        try:
            for piece in pieces:
                self.parser.feed(piece)
        except ProtocolError:
            return "not the protocol"
        return "unanswered" if self.waiter.unanswered else ""
