"""`interlock keys`: private keys of people."""

from __future__ import annotations

from typing import Literal

import msgspec

from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.release.keys import Keys, new_passphrase


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


def list_keys(*, session: Session) -> Reply:
    """List the keys on this machine."""
    keys = Keys.find()
    return items(
        msgspec.to_builtins(keys.entries()),
        ("name", "keyid", "private"),
        empty=f"no keys in {keys.folder}",
        next="" if keys.entries() else "interlock keys generate NAME",
    )
