"""The trust root as people change it: made at `init`, then one signed revision for every change of who may do what."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec

from interlock.core import signing
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, NotFound, Usage
from interlock.core.files import locked, write_atomic
from interlock.core.project import Project
from interlock.core.settings import Mode
from interlock.core.trust import Role, TrustedKey, TrustRoot, read_trust, seal_trust
from interlock.release.keys import Keys, new_passphrase

FIRST_ROLES: dict[Mode, tuple[Role, ...]] = {
    "solo": ("author", "reviewer", "operator"),
    "team": ("author", "operator"),
}
"""What the person who runs `init` may do. In a team somebody else reviews."""


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
    known = {entry.name for entry in keys.entries()}
    passphrase = new_passphrase(owner, wanted=False)
    person = keys.public(owner) if owner in known else keys.generate(owner, passphrase=passphrase).public_key()
    root = keys.generate(_root_name(project, known), passphrase=passphrase)
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
) -> TrustedKey:
    """Trust a person's key with `roles`, or change the roles of one that is trusted; needs the root's private key.

    `public_key` defaults to `NAME.pub` among the keys here. `owner` is the human, when one has several keys.

    Raises:
        NotFound: the public key or the root's private key does not lie here.
        Conflict: the name has another key, or the key another name.
    """
    public = public_key or keys.public(name)
    old: TrustedKey | None = None

    def change(before: TrustRoot) -> TrustedKey:
        nonlocal old
        old = next((key for key in before.keys if key.name == name), None)
        new = _trusted(name, owner or (old.owner if old else name), public, roles)
        for key in before.keys:
            if (key.name == name) != (key.keyid == new.keyid):
                raise Conflict(
                    f"{key.name} is trusted with key {key.keyid}: a name has one key and a key one name",
                    next="choose another name for the new key, with --owner for the person",
                )
        return msgspec.structs.replace(new, valid_from=old.valid_from, valid_to=old.valid_to) if old else new

    new = _change(project, keys, change)
    was = {"roles": old.roles, "owner": old.owner} if old else None
    _remember(project, actor, "trust", name, was, {"roles": roles, "owner": new.owner, "keyid": new.keyid})
    return new


def revoke_key(
    project: Project, keys: Keys, actor: str, name: str, since: datetime | None = None, reason: str = ""
) -> TrustedKey:
    """Take the trust back: what the key signed from `since` on (None: ever) counts no more; needs the root's private key.

    Raises:
        Refused: nobody of that name is trusted.
        Usage: it was not trusted yet at that time, or its trust ended earlier.
    """

    def change(before: TrustRoot) -> TrustedKey:
        old = before.key_named(name)
        end = old.valid_from if since is None else iso(since)
        if not old.valid_from <= end <= (old.valid_to or end):
            raise Usage(
                f"the key of {name} is trusted from {old.valid_from} to {old.valid_to or 'further notice'}",
                next="--since a time in between, or without --since to void all that it signed",
            )
        return msgspec.structs.replace(old, valid_to=end)

    was = trust_of(project).key_named(name).valid_to
    new = _change(project, keys, change)
    _remember(project, actor, "revoke key", name, {"valid_to": was}, {"valid_to": new.valid_to}, reason=reason)
    return new


def _change(project: Project, keys: Keys, change: Callable[[TrustRoot], TrustedKey]) -> TrustedKey:
    """Sign the next revision of the trust root, with one key new or other than before."""
    with locked(project.locks / "trust"):
        before = trust_of(project)
        new = change(before)
        others = tuple(key for key in before.keys if key.name != new.name)
        after = msgspec.structs.replace(before, revision=before.revision + 1, keys=(*others, new))
        try:
            root = keys.with_id(project.root_fingerprint())
        except NotFound as error:
            raise NotFound(f"only the root key can change the trust root: {error.message}", next=error.next) from None
        write_atomic(project.trust, seal_trust(after, root))
    return new


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


def _root_name(project: Project, known: set[str]) -> str:
    slug = re.sub(r"[^a-z0-9]+", "-", project.root.name.lower()).strip("-") or "project"
    name, number = f"root-{slug}", 2
    while name in known:
        name, number = f"root-{slug}-{number}", number + 1
    return name
