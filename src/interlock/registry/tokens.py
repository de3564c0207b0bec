"""API keys of clients: kept as hashes in one file that an operator signs. Gateways read it, and need no database for it.

A key is `ilk_<id>_<secret>` with 256 random bits, so a plain SHA-256 of it cannot be searched through.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Literal

import msgspec

from interlock.core.clock import Clock, iso, parse_time
from interlock.core.errors import NotApproved, Tampered, Unauthenticated
from interlock.core.hashing import sha256_hex
from interlock.core.ids import uuid7
from interlock.core.signing import PrivateKey, seal
from interlock.core.trust import TrustKeeper, TrustRoot

TOKENS_TYPE = "application/vnd.interlock.tokens+json"
FILE = "tokens.dsse.json"
PREFIX = "ilk"
Use = Literal["predict", "feedback"]


class Token(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a key: everything but the key."""

    id: str
    name: str
    hash: str
    endpoints: tuple[str, ...]
    """Where it counts; empty = everywhere."""
    uses: tuple[Use, ...]
    created_at: str
    created_by: str
    expires_at: str | None = None

    def valid_at(self, at: datetime) -> bool:
        """Whether it has not expired."""
        return self.expires_at is None or at < parse_time(self.expires_at)


class TokenList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of the file."""

    format: int = 1
    revision: int = 0
    time: str = ""
    tokens: tuple[Token, ...] = ()


def new_token(
    name: str, endpoints: tuple[str, ...], uses: tuple[Use, ...], by: str, at: datetime, expires: datetime | None
) -> tuple[str, Token]:
    """A fresh key, which is shown once, and what is kept of it."""
    identity = uuid7().hex
    key = f"{PREFIX}_{identity}_{secrets.token_urlsafe(32)}"
    end = iso(expires) if expires else None
    return key, Token(identity, name, sha256_hex(key.encode()), endpoints, uses, iso(at), by, end)


def seal_tokens(tokens: TokenList, key: PrivateKey) -> bytes:
    """Sign the list."""
    return seal(tokens, TOKENS_TYPE, key)


def read_tokens(path: Path, trust: TrustRoot, *, past: bool = False) -> TokenList:
    """The verified list; an empty one where there is no file. `past`: who signed it may have lost their key since then.

    Raises:
        Tampered: altered, or of an unknown form.
        NotApproved: not signed by an operator, or with a key that is revoked for that time.
    """
    if not path.exists():
        return TokenList()
    payload, key = trust.unseal(path.read_bytes(), TOKENS_TYPE, ("operator",), path.name)
    try:
        found = msgspec.convert(payload, TokenList)
    except msgspec.ValidationError as error:
        raise Tampered(f"{path.name}: {error}") from error
    if found.format != 1:
        raise Tampered(f"{path.name} has the unknown format {found.format}")
    if not past and not key.valid_at(parse_time(found.time)):
        raise NotApproved(f"{path.name}: the key of {key.name} was not valid on {found.time}")
    return found


class Access:
    """Who may ask: whoever has a key for it; on loopback, or at an endpoint that allows it by name, everybody."""

    def __init__(
        self, path: Path, trust: Path, fingerprint: str, clock: Clock, *, loopback: bool, anonymous: tuple[str, ...]
    ) -> None:
        self._path = path
        self._trust = TrustKeeper(trust, fingerprint)
        self._clock = clock
        self._loopback = loopback
        self._anonymous = frozenset(anonymous)
        self._stamp: object = None
        self._revision = 0
        self._tokens: dict[str, Token] = {}

    def refresh(self) -> None:
        """Read the list again when it, or the trust root, was replaced.

        Raises:
            Tampered, NotApproved: it is refused; the one before stays in force.
        """
        stats = [path.stat() for path in (self._path, self._trust.path) if path.exists()]
        stamp = [(stat.st_mtime_ns, stat.st_ino) for stat in stats]
        if stamp == self._stamp:
            return
        self._stamp = stamp
        found = read_tokens(self._path, self._trust.read())
        if found.revision < self._revision:
            raise Tampered(
                f"{self._path.name} revision {found.revision} is older than {self._revision}, which was in force"
            )
        self._revision = found.revision
        self._tokens = {token.id: token for token in found.tokens}

    def require(self, endpoint: str, use: Use, headers: Mapping[str, str]) -> None:
        """Let a request through.

        Raises:
            Unauthenticated: it brings no key where one is needed, or one that does not count for this.
        """
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if not key.startswith(f"{PREFIX}_") or scheme.lower() != "bearer":
            if self._loopback or endpoint in self._anonymous:
                return
            raise Unauthenticated(
                "this endpoint wants an API key: Authorization: Bearer ilk_…",
                next="an operator makes one: interlock tokens create NAME",
            )
        token = self._tokens.get(key.split("_", 2)[1])
        if token is None or not hmac.compare_digest(token.hash, sha256_hex(key.encode())):
            raise Unauthenticated("this API key is unknown")
        if not token.valid_at(self._clock.now()):
            raise Unauthenticated(f"this API key expired on {token.expires_at}")
        if use not in token.uses or (token.endpoints and endpoint not in token.endpoints):
            raise Unauthenticated(f"this API key is not for {use} at this endpoint")
