"""`interlock users`: who may do what."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import As, somebody
from interlock.cli.keys import Why, public_of, told
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.errors import Usage
from interlock.core.policy import Policy
from interlock.core.trust import Role
from interlock.release.keys import Keys
from interlock.release.users import add_user, set_policy, trust_of


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
    roles = tuple(dict.fromkeys(role))
    changed = add_user(session.project, Keys.find(), somebody(as_), name, roles, public_of(public_key), owner)
    return told(changed, f"{name} may act as {', '.join(roles)}", "interlock users list\ninterlock versions list")


def policy(
    file: Path | None = None, /, *, session: Session, threshold: int | None = None, reason: Why = "", as_: As = None
) -> Reply:
    """Show the policy, or put another one in force; signed by the root key.

    Args:
        file: The policy as TOML: tables quorum.CLASS and limits.NAME.
        threshold: So many root keys sign changes of who may do what: the project's, and those of the admins.
    """
    if file is None and threshold is None:
        trust = trust_of(session.project)
        document = {"threshold": trust.threshold, "roots": sorted(trust.roots), **msgspec.to_builtins(trust.policy)}
        return Reply(document, [f"{name:<10}{value}" for name, value in document.items()])
    if threshold is not None and threshold < 1:
        raise Usage(f"--threshold {threshold}: at least one root key signs")
    try:
        wanted = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Policy) if file else None
    except (OSError, ValueError) as error:  # msgspec's and tomllib's errors are ValueErrors
        raise Usage(f"{file} is no policy: {error}", next="docs/reference/roles.md shows one") from None
    changed = set_policy(session.project, Keys.find(), somebody(as_), wanted, threshold, reason)
    return told(changed, "the policy is in force", "interlock users policy")


def list_users(*, session: Session) -> Reply:
    """List who is trusted, with their roles."""
    trust = trust_of(session.project)
    rows = [
        {name: value for name, value in msgspec.to_builtins(key).items() if name != "public_key"} for key in trust.keys
    ]
    return items(rows, ("name", "owner", "roles", "valid_from", "valid_to", "keyid"), empty="nobody is trusted")
