"""How far an attempt to connect has come, and what its failure there means, in plain words."""

from __future__ import annotations

import ssl
from enum import IntEnum

from ...exceptions import NotSent
from .driver_errors import explain


class Stage(IntEnum):
    """How far an attempt to connect has come."""

    LOOKUP = 0
    CONNECTING = 1
    GREETING = 2
    """The server is to send its INFO."""
    TLS = 3
    """The handshake, after the greeting or before it."""
    LOGIN = 4


NO_NATS = (
    "not the client port of a NATS server (but one for HTTP, perhaps), or it expects TLS "
    'first: "TLS": {"HANDSHAKE_FIRST": True}'
)
"""What is the matter with an address that does not greet, as the end of a sentence."""
NO_TLS_FIRST = (
    "the server begins in plain text: it does not expect TLS first. Remove HANDSHAKE_FIRST, or set "
    "handshake_first in the server's tls block"
)
NO_CERTIFICATE = "the server asks for a client's certificate. Set CERT and KEY in TLS"


class TLSRefused(NotSent):
    """One side does not accept the other's certificate."""


class NoAnswer(NotSent):
    """An address has not answered: what was sent to it was dropped."""


def late(stage: Stage, where: str, seconds: float) -> NotSent:
    """Return the error for an attempt that was at a stage when the time was up.

    ``where`` is the name that was looked up, or the address.
    """
    limit = f"within CONNECT_TIMEOUT ({seconds:g} s)"
    if stage is Stage.LOOKUP:
        return NotSent(f"the name {where} was not looked up {limit}")
    if stage is Stage.CONNECTING:
        return NoAnswer(f"{where} did not answer {limit}")
    if stage is Stage.GREETING:
        return NotSent(f"{where} sent no greeting {limit}. Perhaps it is stopped, or {NO_NATS}")
    if stage is Stage.TLS:
        return NotSent(
            f"{where} did not complete the TLS handshake {limit}. Does it expect TLS at all, "
            "and first, if HANDSHAKE_FIRST is set?"
        )
    return NotSent(
        f"the server at {where} did not accept or refuse the login {limit}. If it asks an auth "
        "callout, which needs longer, raise CONNECT_TIMEOUT, and the timeout in the server's "
        "authorization block"
    )


def lost(stage: Stage, where: str) -> NotSent:
    """Return the error for an attempt whose connection was lost at a stage, without a reason."""
    if stage is Stage.GREETING:
        return NotSent(f"{where} closed the connection without a greeting. It is {NO_NATS}")
    during = "TLS handshake" if stage is Stage.TLS else "login"
    return NotSent(f"{where} closed the connection during the {during}")


def tls_failure(error: ssl.SSLError, *, configured: bool, first: bool) -> NotSent | None:
    """Return a plainer error for a handshake that has failed, or None.

    ``configured``: the settings ask for TLS. ``first``: they ask for it before the greeting.
    """
    if error.reason == "WRONG_VERSION_NUMBER":
        if first:
            return NotSent(NO_TLS_FIRST)
        # Its refusal came after TLS had begun, which took it for a record of its own.
        return NotSent(
            "the server answers the TLS handshake in plain text, as one does that allows no "
            "more connections (max_connections)"
        )
    if isinstance(error, ssl.SSLCertVerificationError) and not configured:
        return TLSRefused(
            "the server requires TLS, and this machine does not accept its certificate "
            f"({explain(error)}). Set TLS, with the CA that has signed it"
        )
    if "CERTIFICATE_REQUIRED" in (error.reason or ""):
        return TLSRefused(NO_CERTIFICATE)
    return None
