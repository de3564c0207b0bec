"""Who may do what: one table over the signed trust root. docs/reference/roles.md shows it, and a test holds both together."""

from __future__ import annotations

from typing import Literal

from interlock.core.errors import Refused
from interlock.core.trust import Role, TrustedKey, TrustRoot

Action = Literal["train", "approve", "override", "reject", "revoke", "release", "tokens", "decide experiments", "trust"]
MAY: dict[Action, tuple[Role, ...]] = {
    "train": ("author",),
    "approve": ("reviewer",),
    "override": ("reviewer", "admin"),
    "reject": ("reviewer",),
    "revoke": ("reviewer", "admin"),
    "release": ("operator", "route"),
    "tokens": ("operator",),
    "decide experiments": ("analyst", "reviewer", "operator"),
    "trust": ("admin",),
}
"""Reading needs no role. `trust`: an admin's key is a root key; so is the key made at `init`, which belongs to nobody."""


def require_role(trust: TrustRoot, actor: str, action: Action) -> TrustedKey:
    """The actor's key in the trust root.

    Raises:
        Refused: they are not trusted, or have none of the roles that the action takes.
    """
    key = trust.key_named(actor)
    if not set(key.roles) & set(MAY[action]):
        wanted = " or ".join(MAY[action])
        raise Refused(
            f"{actor} has not the role {wanted}, which it takes to {WORDS.get(action, action)}",
            next=f"the holder of the root key runs: interlock users add {actor} --role {MAY[action][0]}",
        )
    return key


WORDS: dict[Action, str] = {
    "approve": "approve versions",
    "override": "override a standard",
    "reject": "reject versions",
    "revoke": "revoke versions",
    "release": "move traffic",
    "tokens": "give out API keys",
    "trust": "change who may do what",
}
