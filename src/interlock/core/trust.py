"""The trust root: who may do what, signed by the root keys. Policy lives here and not in the database.

Most projects have one root key. With several, which are the keys of the people with the role admin, `threshold` of them sign
each revision. Whoever knows the root keys of an older revision follows the chain: a revision with other root keys is signed
by those before it too (as in The Update Framework, section 5.3), and `trust/` keeps what was.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from interlock.core import signing
from interlock.core.clock import parse_time
from interlock.core.errors import Misconfigured, NotApproved, Refused, Tampered
from interlock.core.hashing import canonical, digest
from interlock.core.policy import Policy
from interlock.core.settings import Mode

TRUST_TYPE = "application/vnd.interlock.trust+json"
Role = Literal["author", "reviewer", "operator", "route", "analyst", "admin"]


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
    """The key made at `init`; empty when the admins' keys have taken its place."""
    keys: tuple[TrustedKey, ...]
    """Those before a rotation too: what they signed then stays valid."""
    policy: Policy = Policy()
    threshold: Annotated[int, msgspec.Meta(ge=1)] = 1
    """So many root keys sign a revision."""
    former: tuple[str, ...] = ()
    """Root keys that this revision takes leave of: they may sign it too."""

    @property
    def roots(self) -> dict[str, str]:
        """The root keys by id: the one made at `init`, and those of the people with the role admin."""
        admins = {key.keyid: key.public_key for key in self.keys if "admin" in key.roles and key.valid_to is None}
        first = {signing.key_id(signing.load_public(self.root_key)): self.root_key} if self.root_key else {}
        return first | admins

    @property
    def fingerprint(self) -> str:
        """What readers pin: the id of the one root key; of several, a digest over their ids and the threshold."""
        ids = sorted(self.roots)
        return ids[0] if len(ids) == 1 else digest(canonical({"roots": ids, "threshold": self.threshold}))

    def key_named(self, name: str) -> TrustedKey:
        """The key called `name` that is in use, or had been last; or the one with that id.

        Raises:
            Refused: nobody of that name is trusted here.
        """
        mine = [key for key in self.keys if name in (key.name, key.keyid)]
        if mine:
            return max(mine, key=lambda key: (key.valid_to is None, key.valid_from))
        known = ", ".join(dict.fromkeys(key.name for key in self.keys))
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
        payload, (key, *others) = self.unseal_by(data, payload_type, what)
        if others:
            raise Tampered(f"{what} has {len(others) + 1} signatures instead of one")
        if not set(roles) & set(key.roles):
            raise NotApproved(f"{what} is signed by {key.name}, who has not the role {' or '.join(roles)}")
        return payload, key

    def unseal_by(self, data: bytes, payload_type: str, what: str) -> tuple[Any, tuple[TrustedKey, ...]]:
        """As `unseal`, of an envelope that several may have signed; their roles are the caller's to check too."""
        keys = tuple(self.key_with_id(keyid, what) for keyid in signing.signers_of(data, what))
        public = {key.keyid: signing.load_public(key.public_key) for key in keys}
        return signing.unseal_by(data, payload_type, public, what)[0], keys


def seal_trust(root: TrustRoot, *keys: signing.PrivateKey) -> bytes:
    """Sign the trust root with root keys."""
    return signing.seal(root, TRUST_TYPE, *keys)


def open_trust(data: bytes, pin: str, older: Iterable[bytes] = ()) -> TrustRoot:
    """Verify `trust.json` against a pin: FINGERPRINT, or FINGERPRINT@REVISION for at least that revision.

    `older`: the revisions before it in their order, read only where the pin is of other root keys than today's.

    Raises:
        Tampered: altered, signed by other root keys or too few of them, or older than the pin.
    """
    what = "trust.json"
    fingerprint, _, least = pin.partition("@")
    root, _ = _verified(data, what)
    if root.fingerprint != fingerprint:
        before = (_verified(one, "a revision of the trust root that is kept") for one in older)
        _follow(fingerprint, [*(one for one in before if one[0].revision < root.revision), _verified(data, what)])
    if least and (not least.isdecimal() or root.revision < int(least)):
        raise Tampered(f"{what} is revision {root.revision}, and the pin {pin} asks for a newer one")
    return root


def _follow(fingerprint: str, revisions: list[tuple[TrustRoot, frozenset[str]]]) -> None:
    """Whether the last revision descends from the root keys with that fingerprint; each comes with those who signed it."""
    known: TrustRoot | None = None
    for one, signers in revisions:
        if known is None:
            known = one if one.fingerprint == fingerprint else None
            continue
        if one.fingerprint != known.fingerprint and len(signers & known.roots.keys()) < known.threshold:
            raise Tampered(f"revision {one.revision} of the trust root is not signed by the root keys before it")
        known = one
    if known is None or known is not revisions[-1][0]:
        raise Tampered(f"trust.json is not signed by the root key {fingerprint}")


def _verified(data: bytes, what: str) -> tuple[TrustRoot, frozenset[str]]:
    """A revision that enough of its own root keys signed, and the ids of all keys that did. Says nothing of whose they are."""
    try:
        claimed = msgspec.convert(signing.peek(data, what), TrustRoot)
        keys = {keyid: signing.load_public(text) for keyid, text in claimed.roots.items()}
        former = [signing.load_public(text) for text in claimed.former]
        for entry in claimed.keys:
            if signing.key_id(signing.load_public(entry.public_key)) != entry.keyid:
                raise Tampered(f"{what}: the key of {entry.name} is not the one its id names")
    except (msgspec.ValidationError, Misconfigured) as error:
        raise Tampered(f"{what} cannot be read: {error}") from error
    if claimed.format != 1:
        raise Tampered(f"{what} has the unknown format {claimed.format}")
    _, signers = signing.unseal_by(data, TRUST_TYPE, {**{signing.key_id(key): key for key in former}, **keys}, what)
    if len(signers & keys.keys()) < claimed.threshold:
        raise Tampered(
            f"{what} has the signatures of {len(signers & keys.keys())} root keys and needs {claimed.threshold}"
        )
    return claimed, signers


def read_trust(path: Path, pin: str) -> TrustRoot:
    """`open_trust` of a file, with the revisions before it that lie in the folder `trust/` beside it.

    Raises:
        Misconfigured: there is no such file.
        Tampered: see `open_trust`; also when a newer revision lies beside it.
    """
    kept = kept_revisions(path)  # before the file itself, which is written first
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise Misconfigured(f"no trust root at {path}", next="run: interlock init .") from None
    root = open_trust(data, pin, (kept[number].read_bytes() for number in sorted(kept)))
    if kept and max(kept) > root.revision:
        raise Tampered(
            f"{path.name} is revision {root.revision}, but {max(kept)} was in force: it was put back",
            next=f"put the newest in its place: cp {kept[max(kept)]} {path}",
        )
    return root


def kept_revisions(path: Path) -> dict[int, Path]:
    """The revisions of the trust root at `path` that are kept, by number."""
    files = path.with_suffix("").glob("*.dsse.json")
    return {int(number): file for file in files if (number := file.name.partition(".")[0]).isdecimal()}


class SeenTrust(msgspec.Struct, frozen=True):
    """The newest trust root that somebody has seen."""

    revision: int = 0
    content: str = ""
    """Digest of what it says."""
    fingerprint: str = ""


class TrustKeeper:
    """The trust root as one process reads it: never again an older one, or another of the same number."""

    def __init__(self, path: Path, pin: str, seen: SeenTrust | None = None) -> None:
        self.path = path
        self.seen = seen or SeenTrust()
        self._pin = pin

    def read(self) -> TrustRoot:
        """The trust root as it is now.

        Raises:
            Tampered: see `read_trust`; also one that does not follow from what was seen.
        """
        root = read_trust(self.path, self._pin)
        seen, content = self.seen, digest(canonical(root))
        if root.revision < seen.revision or (root.revision == seen.revision and content != seen.content):
            raise Tampered(f"trust.json revision {root.revision} was put in the place of revision {seen.revision}")
        if seen.fingerprint:
            read_trust(self.path, seen.fingerprint)
        self.seen = SeenTrust(root.revision, content, root.fingerprint)
        return root
