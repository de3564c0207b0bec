"""The trust root as people change it: made at `init`, then one signed revision for every change of who may do what.

Where more root keys must sign than lie here, a change is a proposal: a file that goes from one to the next (`sign_root`), and
is put in force by the last signature.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, NotFound, Refused, Tampered, Usage
from interlock.core.files import locked, write_atomic
from interlock.core.policy import Policy
from interlock.core.project import Project
from interlock.core.settings import Mode
from interlock.core.trust import TRUST_TYPE, Role, TrustedKey, TrustRoot, open_trust, read_trust, seal_trust
from interlock.release.keys import Keys, new_passphrase

FIRST_ROLES: dict[Mode, tuple[Role, ...]] = {
    "solo": ("author", "reviewer", "operator"),
    "team": ("author", "operator"),
}
"""What the person who runs `init` may do. In a team somebody else reviews."""
replace = msgspec.structs.replace


class Changed(msgspec.Struct, frozen=True):
    """A revision of the trust root that somebody signed."""

    trust: TrustRoot
    differences: list[str]
    proposal: str | None
    """The file that needs more signatures; None: it is in force."""
    signed_by: list[str]
    """Ids of the root keys that signed."""
    key: TrustedKey | None = None
    """The key that it is about."""


def trust_of(project: Project) -> TrustRoot:
    """The project's trust root, verified against the fingerprint in `interlock.toml`."""
    return read_trust(project.trust, project.root_fingerprint())


def init_trust(project: Project, mode: Mode, owner: str, keys: Keys) -> str:
    """Make the root key, the trust root with its first person, and the audit trail; the root's fingerprint.

    The person's key is made when it does not exist. The fingerprint goes into `interlock.toml`.

    Raises:
        Conflict: the project has a trust root.
    """
    if project.trust.exists() or project.settings().trust is not None:
        raise Conflict(f"{project.root} has a trust root already", next="see who is in it: interlock users list")
    passphrase = new_passphrase(owner, wanted=False)
    person = (
        keys.public(owner)
        if owner in {entry.name for entry in keys.entries()}
        else keys.generate(owner, passphrase=passphrase).public_key()
    )
    slug = re.sub(r"[^a-z0-9]+", "-", project.root.name.lower()).strip("-") or "project"
    root = keys.generate(keys.free_name(f"root-{slug}"), passphrase=passphrase)
    fingerprint = signing.key_id(root.public_key())
    trust = TrustRoot(
        format=1,
        revision=1,
        project=project.root.name,
        mode=mode,
        root_key=signing.public_text(root.public_key()),
        keys=(_trusted(owner, owner, person, FIRST_ROLES[mode]),),
    )
    write_atomic(project.trust, seal_trust(trust, root))
    text = project.config.read_text(encoding="utf-8").rstrip("\n")
    write_atomic(project.config, f'{text}\n\n[trust]\nroot = "{fingerprint}"\n'.encode())
    _remember(project, owner, "init", project.root.name, None, {"mode": mode, "root": fingerprint}, create=True)
    return fingerprint


def add_user(
    project: Project,
    keys: Keys,
    actor: str,
    name: str,
    roles: tuple[Role, ...],
    public_key: signing.PublicKey | None = None,
    owner: str = "",
) -> Changed:
    """Trust a person's key with `roles`, or change the roles of one that is trusted; needs the root's private key.

    `public_key` defaults to `NAME.pub` among the keys here. `owner` is the human, when one has several keys. The key of
    somebody with the role admin is a root key from then on.

    Raises:
        NotFound: the public key or the root's private key does not lie here.
        Conflict: the name has another key, or the key another name.
    """
    public = public_key or keys.public(name)

    def change(before: TrustRoot) -> tuple[TrustRoot, TrustedKey]:
        old = before.key_named(name) if name in {key.name for key in before.keys} else None
        new = _trusted(name, owner or (old.owner if old else name), public, roles)
        for key in before.keys:
            if (key.keyid == new.keyid and key.name != name) or (key is old and key.keyid != new.keyid):
                raise Conflict(
                    f"{key.name} is trusted with key {key.keyid}: a name has one key and a key one name",
                    next=f"give the name a new key: interlock keys rotate {name}; or choose another, with --owner",
                )
        if old:
            new = replace(new, valid_from=old.valid_from, valid_to=old.valid_to)
        return _with(before, new), new

    return _change(project, keys, actor, "trust", name, "", change)


def rotate_key(
    project: Project, keys: Keys, actor: str, name: str, public_key: signing.PublicKey | None = None, reason: str = ""
) -> Changed:
    """Give a person, or the project's root, a new key (default: one made here); what the old one signed stays valid.

    Raises:
        NotFound: no root key lies here.
        Refused: nobody of that name is trusted.
        Conflict: the key of that name has ended, or the new one is trusted already.
    """
    before = trust_of(project)
    old = None if _is_root(before, keys, name) else before.key_named(name)
    if old is not None and old.valid_to is not None:
        raise Conflict(f"the key of {name} ended on {old.valid_to}", next=f"interlock users add {name}-2 --role ROLE")
    public = public_key
    if public is None:
        fresh = keys.free_name(name)
        public = keys.generate(fresh, passphrase=new_passphrase(fresh, wanted=False)).public_key()
    if signing.key_id(public) in {*(key.keyid for key in before.keys), *before.roots}:
        raise Conflict(f"the key {signing.key_id(public)} is trusted already", next="--public-key of a fresh one")

    def change(before: TrustRoot) -> tuple[TrustRoot, TrustedKey | None]:
        if old is None:
            return replace(before, root_key=signing.public_text(public)), None
        new = _trusted(name, old.owner, public, old.roles)
        return _with(before, replace(old, valid_to=new.valid_from), new), new

    return _change(project, keys, actor, "rotate key", name, reason, change)


def revoke_key(
    project: Project, keys: Keys, actor: str, name: str, since: datetime | None = None, reason: str = ""
) -> Changed:
    """Take the trust back: what the key signed from `since` on (None: ever) counts no more; needs the root's private key.

    `name` may be the id of a key that was rotated out, or the key made at `init` where admins have taken its place.

    Raises:
        Refused: nobody of that name is trusted.
        Usage: it was not trusted yet at that time, or its trust ended earlier.
    """

    def change(before: TrustRoot) -> tuple[TrustRoot, TrustedKey | None]:
        if _is_root(before, keys, name):
            return replace(before, root_key=""), None
        old = before.key_named(name)
        end = old.valid_from if since is None else iso(since)
        if not old.valid_from <= end <= (old.valid_to or end):
            raise Usage(
                f"the key of {name} is trusted from {old.valid_from} to {old.valid_to or 'further notice'}",
                next="--since a time in between, or without --since to void all that it signed",
            )
        new = replace(old, valid_to=end)
        return _with(before, new), new

    return _change(project, keys, actor, "revoke key", name, reason, change)


def set_policy(
    project: Project, keys: Keys, actor: str, policy: Policy | None, threshold: int | None, reason: str = ""
) -> Changed:
    """Put another policy in force, or another number of root keys that sign; None: as it is."""

    def change(before: TrustRoot) -> tuple[TrustRoot, TrustedKey | None]:
        return replace(before, policy=policy or before.policy, threshold=threshold or before.threshold), None

    return _change(project, keys, actor, "policy", project.root.name, reason, change)


def read_proposal(project: Project, file: Path) -> tuple[TrustRoot, list[str]]:
    """What a proposal would put in force, and what differs from now in words.

    Raises:
        Tampered: it is none, or signed by a key that may not.
        Conflict: the trust root has moved on since.
    """
    before, data = trust_of(project), file.read_bytes()
    try:
        after = msgspec.convert(signing.peek(data, file.name), TrustRoot)
    except msgspec.ValidationError as error:
        raise Tampered(f"{file.name} is no proposal: {error}") from error
    signing.unseal_by(data, TRUST_TYPE, _public_roots(before, after), file.name)
    if after.revision != before.revision + 1:
        raise Conflict(
            f"{file.name} proposes revision {after.revision}, and {before.revision} is in force",
            next="propose the change again",
        )
    return after, differences(before, after)


def sign_root(project: Project, keys: Keys, actor: str, file: Path) -> Changed:
    """Add the signature of a root key to a proposal; the last one that it needs puts it in force.

    Raises:
        Refused: the actor holds no root key.
        Tampered, Conflict: see `read_proposal`.
    """
    with locked(project.locks / "trust"):
        before = trust_of(project)
        after, _ = read_proposal(project, file)
        data = file.read_bytes()
        for signer in _signers(keys, actor, before, after):
            data = signing.add_signature(data, signer, file.name)
        changed = _settle(project, before, after, data, file)
    said = {"revision": after.revision, "signed_by": changed.signed_by, "changes": changed.differences}
    _remember(project, actor, "sign root", project.root.name, None, said | {"in_force": changed.proposal is None})
    return changed


def differences(before: TrustRoot, after: TrustRoot) -> list[str]:
    """What differs, a line each: people and their keys, then the policy."""
    old, said = {key.keyid: key for key in before.keys}, []
    for key in after.keys:
        was = old.pop(key.keyid, None)
        if was is None:
            said.append(f"{key.name} is trusted as {', '.join(key.roles)} with key {key.keyid} (owner {key.owner})")
            continue
        fields = ((name, getattr(was, name), getattr(key, name)) for name in ("name", "owner", "roles", "valid_to"))
        said += [f"{key.name}, key {key.keyid}: {name} {one} → {other}" for name, one, other in fields if one != other]
    said += [f"{key.name} with key {key.keyid} is gone" for key in old.values()]
    for name in ("project", "mode", "root_key", "threshold", "policy"):
        one, other = (msgspec.to_builtins(getattr(root, name)) for root in (before, after))
        if one != other:
            said.append(f"{name}: {one} → {other}")
    return said


def _change(
    project: Project,
    keys: Keys,
    actor: str,
    action: str,
    subject: str,
    reason: str,
    change: Callable[[TrustRoot], tuple[TrustRoot, TrustedKey | None]],
) -> Changed:
    """Sign the next revision of the trust root, and put it in force or aside."""
    with locked(project.locks / "trust"):
        before = trust_of(project)
        after, key = change(before)
        if len(after.roots) < after.threshold:
            raise Conflict(
                f"{after.threshold} root keys are to sign, and there would be {len(after.roots)}",
                next="interlock users add NAME --role admin; or fewer: interlock users policy --threshold 1",
            )
        gone = tuple(text for keyid, text in before.roots.items() if keyid not in after.roots)
        after = replace(after, revision=before.revision + 1, former=gone)
        data = seal_trust(after, *_signers(keys, actor, before, after))
        file = project.trust.with_suffix("") / f"{after.revision}.proposal.json"
        if file.exists():
            raise Conflict(f"{file} waits for signatures", next=f"interlock keys sign-root {file}; or remove the file")
        changed = replace(_settle(project, before, after, data, file), key=key)
    was = [one for one in before.keys if key and one.name == key.name]
    said = key if key else {"changes": changed.differences}
    word = f"propose {action}" if changed.proposal else action
    _remember(project, actor, word, subject, was[-1] if was else None, said, reason=reason)
    return changed


def _settle(project: Project, before: TrustRoot, after: TrustRoot, data: bytes, file: Path) -> Changed:
    """Put a signed revision in force when enough root keys have signed it, else keep it as the proposal `file`."""
    _, signers = signing.unseal_by(data, TRUST_TYPE, _public_roots(before, after), file.name)
    enough = all(len(signers & root.roots.keys()) >= root.threshold for root in (before, after))
    changed = Changed(after, differences(before, after), None if enough else str(file), sorted(signers))
    if not enough:
        write_atomic(file, data)
        return changed
    old = project.trust.read_bytes()
    open_trust(data, before.fingerprint, (old,))  # what readers would refuse is never put in force
    write_atomic(project.trust, data)
    for revision, kept in ((before.revision, old), (after.revision, data)):
        path = project.trust.with_suffix("") / f"{revision}.dsse.json"
        if not path.exists():
            write_atomic(path, kept)
    file.unlink(missing_ok=True)
    return changed


def _signers(keys: Keys, actor: str, before: TrustRoot, after: TrustRoot) -> list[signing.PrivateKey]:
    """The root keys that the actor signs with: their own, else the project's."""
    roots = before.roots | after.roots
    mine = {key.keyid for key in (*before.keys, *after.keys) if key.name == actor}
    project = {keyid for keyid, text in roots.items() if text in (before.root_key, after.root_key)}
    found, missing = [], None
    for keyid in sorted(mine & roots.keys() or project):
        try:
            found.append(keys.with_id(keyid))
        except NotFound as error:
            missing = error
    if missing is not None and not found:
        raise NotFound(f"only the root key can change the trust root: {missing.message}", next=missing.next)
    if not found:
        raise Refused(f"{actor} is no admin, and only they can change the trust root", next="act as one: --as NAME")
    return found


def _is_root(trust: TrustRoot, keys: Keys, name: str) -> bool:
    """Whether `name` is a file with the root key made at `init`, and nobody's name."""
    if name in {key.name for key in trust.keys} or name not in {entry.name for entry in keys.entries()}:
        return False
    return signing.public_text(keys.public(name)) == trust.root_key


def _public_roots(*revisions: TrustRoot) -> dict[str, signing.PublicKey]:
    return {keyid: signing.load_public(text) for one in revisions for keyid, text in one.roots.items()}


def _with(trust: TrustRoot, *new: TrustedKey) -> TrustRoot:
    """The trust root with these keys, in the place of those with the same ids or behind all."""
    ids = {key.keyid for key in new}
    return replace(trust, keys=(*(key for key in trust.keys if key.keyid not in ids), *new))


def _remember(
    project: Project,
    actor: str,
    action: str,
    subject: str,
    before: Any,
    after: Any,
    *,
    reason: str = "",
    create: bool = False,
) -> None:
    from interlock.release import audit  # here: reading the trust root needs no database, half a second to import
    from interlock.store.database import Database

    database = Database(project.database, create=create)
    audit.append(database, actor, action, subject, before, after, reason)
    database.close()


def _trusted(name: str, owner: str, key: signing.PublicKey, roles: tuple[Role, ...]) -> TrustedKey:
    now = iso(SystemClock().now())
    return TrustedKey(name, owner, signing.key_id(key), signing.public_text(key), roles, now)
