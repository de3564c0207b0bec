"""`interlock users`: who may do what."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.errors import Usage
from interlock.core.signing import load_public
from interlock.core.trust import Role
from interlock.release.keys import Keys
from interlock.release.users import add_user, trust_of


def add(
    name: str,
    /,
    *,
    session: Session,
    role: Annotated[tuple[Role, ...], Parameter(help="What they may do; again for several.")],
    public_key: Path | None = None,
    owner: str = "",
    as_: As = None,
) -> Reply:
    """Trust a person's key, or change what they may do; signed by the root key.

    Args:
        name: The person: the name of their key.
        public_key: Their NAME.pub (default: the one in the keys directory).
        owner: The human, when NAME is one of several keys of one person.
    """
    try:
        public = load_public(public_key.read_text(encoding="ascii")) if public_key else None
    except FileNotFoundError:
        raise Usage(f"there is no file {public_key}", next="--public-key FILE") from None
    roles = tuple(dict.fromkeys(role))
    added = add_user(session.project, Keys.find(), somebody(as_), name, roles, public, owner)
    return Reply(
        msgspec.to_builtins(added),
        (f"{name} may act as {', '.join(roles)} (key {added.keyid})",),
        "interlock users list\ninterlock versions list",
    )


def list_users(*, session: Session) -> Reply:
    """List who is trusted, with their roles."""
    trust = trust_of(session.project)
    rows = [
        {name: value for name, value in msgspec.to_builtins(key).items() if name != "public_key"} for key in trust.keys
    ]
    return items(rows, ("name", "owner", "roles", "valid_from", "valid_to", "keyid"), empty="nobody is trusted")
