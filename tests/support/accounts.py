"""NKeys and JWTs of operators, accounts and users of a NATS server."""

from __future__ import annotations

import base64
import json
import os
import time
from collections.abc import Mapping
from pathlib import Path

import nkeys


class Identity:
    """A key pair, named by its public key ``public``."""

    def __init__(self, prefix: int) -> None:
        self.seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public = self._pair.public_key.decode().rstrip("=")

    def sign(self, subject: Identity, name: str, claims: dict[str, object]) -> str:
        """Return a JWT about another identity, signed by this one."""
        token = {
            "jti": os.urandom(16).hex(),
            "iat": int(time.time()),
            "iss": self.public,
            "sub": subject.public,
            "name": name,
            "nats": {"version": 2, **claims},
        }
        signed = f"{_encode({'typ': 'JWT', 'alg': 'ed25519-nkey'})}.{_encode(token)}"
        return f"{signed}.{_base64(self._pair.sign(signed.encode()))}"


def user() -> Identity:
    return Identity(nkeys.PREFIX_BYTE_USER)


class Operator:
    """An operator with one account that may use JetStream.

    ``limits`` are those of the account, such as conn=1. What is not given is unlimited. ``tiers``
    are limits of JetStream for each number of replicas, in their place, such as R1={"streams": 5}.
    """

    def __init__(
        self, tiers: Mapping[str, Mapping[str, object]] | None = None, **limits: int
    ) -> None:
        operator = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        unlimited = dict.fromkeys(
            ("subs", "data", "payload", "imports", "exports", "conn", "leaf"), -1
        )
        jetstream = dict.fromkeys(("mem_storage", "disk_storage", "streams", "consumer"), -1)
        free = {**unlimited, "wildcards": True}
        own_limits: dict[str, object] = {**free, **limits}
        if tiers is None:
            own_limits = {**jetstream, **own_limits}
        else:
            own_limits["tiered_limits"] = {
                name: {**jetstream, **tier} for name, tier in tiers.items()
            }
        accounts = {
            system: operator.sign(system, "SYS", {"type": "account", "limits": free}),
            self._account: operator.sign(
                self._account, "APP", {"type": "account", "limits": own_limits}
            ),
        }
        own = operator.sign(operator, "OP", {"type": "operator", "system_account": system.public})
        preload = "\n".join(f"  {each.public}: {jwt}" for each, jwt in accounts.items())
        self.server_config = (
            f"operator: {own}\n"
            f"system_account: {system.public}\n"
            f"resolver: MEMORY\n"
            f"resolver_preload: {{\n{preload}\n}}\n"
        )

    def credentials(self) -> str:
        """Return the content of the credentials file of a new user."""
        new_user = user()
        limits = {"subs": -1, "data": -1, "payload": -1}
        jwt = self._account.sign(new_user, "web", {"type": "user", **limits})
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{new_user.seed}\n------END USER NKEY SEED------\n"
        )

    def write_credentials(self, path: Path) -> str:
        """Write the credentials file of a new user. Return its path."""
        path.write_text(self.credentials())
        return str(path)


def _encode(document: dict[str, object]) -> str:
    return _base64(json.dumps(document).encode())


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
