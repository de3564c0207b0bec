"""`interlock keys`: private keys of people."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.clock import parse_time
from interlock.core.errors import Usage
from interlock.core.signing import PublicKey, key_id, load_public
from interlock.release.keys import Keys, new_passphrase
from interlock.release.users import Changed, read_proposal, revoke_key, rotate_key, sign_root

Why = Annotated[str, Parameter(name="--reason", help="Goes into the audit trail.")]


def generate(
    name: str,
    /,
    *,
    session: Session,
    algorithm: Literal["ecdsa-p256", "ed25519"] = "ecdsa-p256",
    passphrase: bool = False,
) -> Reply:
    """Make a private key.

    Args:
        name: The person: lower-case letters and digits.
        algorithm: Of the key.
        passphrase: Ask for one on the terminal (or set INTERLOCK_KEY_PASSPHRASE).
    """
    keys = Keys.find()
    keys.generate(name, algorithm, new_passphrase(name, wanted=passphrase))
    made = next(entry for entry in keys.entries() if entry.name == name)
    return Reply(
        msgspec.to_builtins(made),
        (
            f"private key  {made.path} (stays with {name})",
            f"public key   {made.path}.pub",
            f"key id       {made.keyid}",
        ),
        f"interlock users add {name} --role reviewer",
    )


def revoke(name: str, /, *, session: Session, reason: Why, since: str = "", as_: As = None) -> Reply:
    """Take the trust in a key back, within two seconds everywhere; signed by the root key.

    Args:
        name: The person whose key it is.
        since: Only what it signed from this time on counts no more (ISO, with an offset; default: all it ever signed).
    """
    try:
        at = parse_time(since) if since else None
    except ValueError:
        raise Usage(f"--since {since}: no time with an offset", next="as in: --since 2026-01-31T14:05:00Z") from None
    changed = revoke_key(session.project, Keys.find(), somebody(as_), name, at, reason)
    voided = f"what it signed from {since} on" if since else "everything that it signed"
    return told(changed, f"the key of {name} is revoked: {voided} counts no more", "interlock versions list")


def rotate(name: str, /, *, session: Session, reason: Why, public_key: Path | None = None, as_: As = None) -> Reply:
    """Give a person, or the project's root, a new key; what the old one signed stays valid. Signed by the root key.

    Args:
        name: The person, or the name of the root key.
        public_key: The new key's .pub, made by its person (default: a new one here, NAME-2).
    """
    fresh = public_of(public_key)
    changed = rotate_key(session.project, Keys.find(), somebody(as_), name, fresh, reason)
    return told(changed, f"{name} has a new key", "interlock users list")


def add_ssh(name: str, /, *, session: Session, comment: str = "") -> Reply:
    """Use a key that the ssh-agent holds: its public half is kept here, and the agent signs.

    Args:
        name: The person: lower-case letters and digits.
        comment: Which of the agent's keys, as in ssh-add -l.
    """
    keys = Keys.find()
    held = keys.add_agent(name, comment)
    return Reply(
        {"name": name, "keyid": key_id(held.public_key()), "path": str(keys.folder / name), "comment": held.comment},
        (f"{name} signs with the ssh-agent's key {held.comment}", f"key id  {key_id(held.public_key())}"),
        f"interlock users add {name} --role reviewer",
    )


def sign(file: Path, /, *, session: Session, as_: As = None) -> Reply:
    """Show what a proposal would change, and sign it with a root key; the last signature puts it in force.

    Args:
        file: The proposal.
    """
    try:
        after, differences = read_proposal(session.project, file)
    except FileNotFoundError:
        raise Usage(f"there is no file {file}", next="interlock keys sign-root FILE --as NAME") from None
    if as_ is None:
        document = {"revision": after.revision, "differences": differences, "proposal": str(file)}
        return Reply(document, differences, f"interlock keys sign-root {file} --as NAME")
    return told(sign_root(session.project, Keys.find(), as_, file), "signed", "interlock users list")


def told(changed: Changed, sentence: str, step: str) -> Reply:
    """A change of the trust root as programs and people read it."""
    trust = changed.trust
    document: dict[str, Any] = {"revision": trust.revision, "fingerprint": trust.fingerprint}
    document |= {name: getattr(changed, name) for name in ("differences", "proposal", "signed_by")}
    if changed.key is not None:
        document |= {key: value for key, value in msgspec.to_builtins(changed.key).items() if key != "public_key"}
    if changed.proposal is not None:
        count = f"{len(changed.signed_by)} signature(s), and {trust.threshold} root keys must sign"
        step = f"interlock keys sign-root {changed.proposal} --as NAME"
        return Reply(document, (*changed.differences, f"not in force yet: {count}", changed.proposal), step)
    pin = f"trust root revision {trust.revision}; to refuse older ones for ever, in interlock.toml: [trust] root = "
    return Reply(document, (sentence, *changed.differences, f'{pin}"{trust.fingerprint}@{trust.revision}"'), step)


def public_of(path: Path | None) -> PublicKey | None:
    """The public key in a file, where one is named."""
    try:
        return load_public(path.read_text(encoding="ascii")) if path else None
    except FileNotFoundError:
        raise Usage(f"there is no file {path}", next="--public-key FILE") from None


def list_keys(*, session: Session) -> Reply:
    """List the keys on this machine."""
    keys = Keys.find()
    return items(
        msgspec.to_builtins(keys.entries()),
        ("name", "keyid", "private"),
        empty=f"no keys in {keys.folder}",
        next="" if keys.entries() else "interlock keys generate NAME",
    )
