"""`interlock keys`: private keys of people."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.clock import parse_time
from interlock.core.errors import Usage
from interlock.release.keys import Keys, new_passphrase
from interlock.release.users import revoke_key

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
    revoked = revoke_key(session.project, Keys.find(), somebody(as_), name, at, reason)
    voided = f"what it signed from {since} on" if since else "everything that it signed"
    return Reply(
        {key: value for key, value in msgspec.to_builtins(revoked).items() if key != "public_key"},
        (f"the key of {name} is revoked: {voided} counts no more",),
        "interlock status\ninterlock versions list",
    )


def list_keys(*, session: Session) -> Reply:
    """List the keys on this machine."""
    keys = Keys.find()
    return items(
        msgspec.to_builtins(keys.entries()),
        ("name", "keyid", "private"),
        empty=f"no keys in {keys.folder}",
        next="" if keys.entries() else "interlock keys generate NAME",
    )
