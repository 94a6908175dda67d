"""A request on a connection whose incoming bytes are chosen by the test."""

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
    """A request whose replies arrive under a token that the test chooses."""

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
        """Receive pieces of data. Return why they do not answer the request, or ""."""
        try:
            for piece in pieces:
                self.parser.feed(piece)
        except ProtocolError:
            return "not the protocol"
        return "unanswered" if self.waiter.unanswered else ""
