"""The subjects of JetStream's API for one stream: of the server's own, a domain's, an account's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ...exceptions import DomainMismatch

if TYPE_CHECKING:
    from .config import StreamConfig

DEFAULT_PREFIX = "$JS.API"
"""The beginning of all these subjects, for the JetStream of the connected server."""


def domain_prefix(domain: str) -> str:
    """Return the prefix for the JetStream of a domain, which its servers map to their own."""
    return f"$JS.{domain}.API"


class Api:
    """The subjects of requests about one stream.

    Nothing else of the client says where the JetStream is that has the stream.
    """

    def __init__(self, prefix: str, stream: str) -> None:
        """Make the subjects once: those of reads are needed for each request."""
        self.prefix = prefix
        self.account = f"{prefix}.INFO"
        self.create = f"{prefix}.STREAM.CREATE.{stream}"
        self.info = f"{prefix}.STREAM.INFO.{stream}"
        self.update = f"{prefix}.STREAM.UPDATE.{stream}"
        self.delete = f"{prefix}.STREAM.DELETE.{stream}"
        self.purge = f"{prefix}.STREAM.PURGE.{stream}"
        self.direct_get = f"{prefix}.DIRECT.GET.{stream}"
        """From any replica. With a dot and a subject after it: the last message of that subject."""
        self.get = f"{prefix}.STREAM.MSG.GET.{stream}"
        """From the leader."""
        self._stream = stream

    def create_consumer(self, name: str) -> str:
        """Return the subject that creates a consumer."""
        return f"{self.prefix}.CONSUMER.CREATE.{self._stream}.{name}"

    def delete_consumer(self, name: str) -> str:
        """Return the subject that deletes a consumer."""
        return f"{self.prefix}.CONSUMER.DELETE.{self._stream}.{name}"

    def next_messages(self, consumer: str) -> str:
        """Return the subject that asks a consumer for messages."""
        return f"{self.prefix}.CONSUMER.MSG.NEXT.{self._stream}.{consumer}"


def domain_of(document: Mapping[str, Any], config: StreamConfig) -> bytes | None:
    """Return the JetStream domain of a stream, given STREAM.INFO; None if it is in none.

    Raise DomainMismatch if it is not the one that settings name.
    """
    domain: str | None = document.get("domain")
    if config.domain not in (None, domain):
        found = "in none" if domain is None else f"in {domain}"
        raise DomainMismatch(
            f"The {config.title} should be in the JetStream domain {config.domain}, as JS_DOMAIN "
            f"says, but is {found}"
        )
    return None if domain is None else domain.encode()


def mismatch(stream: str, expected: bytes | None, stored: bytes | None) -> DomainMismatch:
    """Return the error for a message that another domain has stored than that of its stream."""
    return DomainMismatch(
        f"A message for the stream {stream}, which is in {_named(expected)}, was stored in "
        f"{_named(stored)}: streams of both have its subject, and leaf nodes carry it to both. "
        "Give each stream a PREFIX of its own"
    )


def _named(domain: bytes | None) -> str:
    return "no JetStream domain" if domain is None else f"the JetStream domain {domain.decode()}"
