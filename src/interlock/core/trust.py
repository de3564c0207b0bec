"""The trust root: who may do what, signed by the root key. Policy lives here and not in the database."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec

from interlock.core import signing
from interlock.core.clock import parse_time
from interlock.core.errors import Misconfigured, NotApproved, Refused, Tampered
from interlock.core.hashing import parse_canonical
from interlock.core.settings import Mode

TRUST_TYPE = "application/vnd.interlock.trust+json"
Role = Literal["author", "reviewer", "operator", "route"]


class TrustedKey(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A public key and what its owner may do with it."""

    name: str
    owner: str
    keyid: str
    public_key: str
    roles: tuple[Role, ...]
    valid_from: str
    valid_to: str | None = None

    def valid_at(self, at: datetime) -> bool:
        """Whether the key counts for something done at that time."""
        return parse_time(self.valid_from) <= at and (self.valid_to is None or at < parse_time(self.valid_to))


class TrustRoot(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `trust.json`."""

    format: int
    revision: int
    project: str
    mode: Mode
    root_key: str
    keys: tuple[TrustedKey, ...]

    def key_named(self, name: str) -> TrustedKey:
        """The key called `name`.

        Raises:
            Refused: nobody of that name is trusted here.
        """
        for key in self.keys:
            if key.name == name:
                return key
        known = ", ".join(key.name for key in self.keys)
        raise Refused(
            f"{name} is not in this project's trust root (there: {known})",
            next=f"the holder of the root key runs: interlock users add {name} --role ROLE",
        )

    def key_with_id(self, keyid: str, what: str) -> TrustedKey:
        """The key with that id.

        Raises:
            NotApproved: no trusted key has it.
        """
        for key in self.keys:
            if key.keyid == keyid:
                return key
        raise NotApproved(f"{what} is signed by key {keyid}, which the trust root does not know")

    def unseal(self, data: bytes, payload_type: str, roles: tuple[Role, ...], what: str) -> tuple[Any, TrustedKey]:
        """Verify an envelope signed by a trusted key that has one of `roles`; the payload and the key.

        The time at which it was signed is inside the payload: the caller checks `valid_at` with it.

        Raises:
            Tampered: altered bytes.
            NotApproved: the key is unknown or has none of the roles.
        """
        key = self.key_with_id(signing.signer_of(data, what), what)
        payload = signing.unseal(data, payload_type, signing.load_public(key.public_key), what)
        if not set(roles) & set(key.roles):
            raise NotApproved(f"{what} is signed by {key.name}, who has not the role {' or '.join(roles)}")
        return payload, key


def seal_trust(root: TrustRoot, key: signing.PrivateKey) -> bytes:
    """Sign the trust root with the root key."""
    return signing.seal(root, TRUST_TYPE, key)


def open_trust(data: bytes, fingerprint: str) -> TrustRoot:
    """Verify `trust.json` against the root key's fingerprint.

    Raises:
        Tampered: altered, or signed by another root.
    """
    what = "trust.json"
    if signing.signer_of(data, what) != fingerprint:
        raise Tampered(f"{what} is not signed by the root key {fingerprint}")
    envelope = msgspec.json.decode(data, type=signing.Envelope)
    try:
        claimed = msgspec.convert(parse_canonical(signing.unbase64(envelope.payload, what), what), TrustRoot)
        key = signing.load_public(claimed.root_key)
    except (msgspec.ValidationError, Misconfigured) as error:
        raise Tampered(f"{what} cannot be read: {error}") from error
    if signing.key_id(key) != fingerprint:
        raise Tampered(f"{what} carries a root key that is not {fingerprint}")
    root = msgspec.convert(signing.unseal(data, TRUST_TYPE, key, what), TrustRoot)
    if root.format != 1:
        raise Tampered(f"{what} has the unknown format {root.format}")
    for entry in root.keys:
        if signing.key_id(signing.load_public(entry.public_key)) != entry.keyid:
            raise Tampered(f"{what}: the key of {entry.name} is not the one its id names")
    return root


def read_trust(path: Path, fingerprint: str) -> TrustRoot:
    """`open_trust` of a file.

    Raises:
        Misconfigured: there is no such file.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Misconfigured(f"no trust root at {path}", next="run: interlock init .") from None
    return open_trust(data, fingerprint)
