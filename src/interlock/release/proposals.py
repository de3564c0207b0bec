"""Changes of a route that wait for signatures: files beside its revisions, which go from one signer to the next.

The last signature that one needs puts it in force, if the route is still the one that it was made for. Whoever withdraws one
removes the file.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from interlock.core import signing
from interlock.core.clock import Clock, parse_time
from interlock.core.errors import Conflict, Refused
from interlock.core.files import locked, write_atomic, write_new
from interlock.core.project import Project
from interlock.core.trust import TrustedKey, TrustRoot
from interlock.registry.routes import ROUTE_TYPE, RouteDocument, RouteStore, lacking, open_route, signed_route
from interlock.release import arms, audit
from interlock.release.keys import Keys, prove
from interlock.release.roles import require_role
from interlock.release.users import trust_of
from interlock.store.database import Database

SIGN = "sign"


class Signed(msgspec.Struct, frozen=True):
    """A proposed revision, and what has become of it."""

    file: str
    before: RouteDocument
    """In force when it was proposed."""
    route: RouteDocument
    signed_by: list[str]
    missing: str
    """What it has too little of; empty: it is in force."""
    may_sign: list[str]
    """Whose signature would help."""


def propose(
    project: Project, database: Database, actor: str, action: str,
    before: RouteDocument, route: RouteDocument, key: signing.PrivateKey,
) -> Signed:  # fmt: skip
    """Keep the revision `route`, which needs more signatures than the actor's.

    Raises:
        Conflict: another one waits already.
    """
    store = RouteStore(project.routes)
    file = store.path(route.endpoint, route.revision).with_name(f"{route.revision}.proposal.json")
    data = signing.seal(route, ROUTE_TYPE, key)
    try:
        write_new(file, data)
    except FileExistsError:
        raise Conflict(
            f"another change of {route.endpoint} waits for signatures",
            next=f"look at it: interlock sign {file}; or withdraw it: rm {file}",
        ) from None
    old, new = arms.difference(before, route)
    audit.append(database, actor, f"propose {action}", route.endpoint, old, _waiting(new), route.reason)
    return _read(store, trust_of(project), data, file)


def read_proposal(project: Project, file: Path) -> Signed:
    """A proposal as it waits.

    Raises:
        Tampered, NotApproved: it is none, or signed by a key that may not.
        Conflict: the route has moved on since.
    """
    return _read(RouteStore(project.routes), trust_of(project), file.read_bytes(), file)


def sign(project: Project, actor: str, keys: Keys, file: Path, clock: Clock | None = None) -> Signed:
    """Add a signature to a proposal; the last one that it needs puts it in force.

    Raises:
        Refused: the actor may not sign it.
        Tampered, Conflict: see `read_proposal`.
    """
    trust, store = trust_of(project), RouteStore(project.routes)
    database = Database(project.database)
    with locked(project.locks / "proposals"):
        data = file.read_bytes()
        route = _read(store, trust, data, file).route
        try:
            if route.override is None:
                require_role(trust, actor, "release")
            data = signing.add_signature(data, prove(actor, trust, keys, clock), file.name)
            signed = _read(store, trust, data, file)
        except Refused as error:
            audit.refused(database, actor, SIGN, route.endpoint, error.code, error.message)
            raise
        if signed.missing:
            write_atomic(file, data)
        else:
            open_route(data, trust, file.name)  # what readers would refuse is never put in force
            store.publish(route, data)
            file.unlink()
    before, after = arms.difference(signed.before, route)
    said = _waiting(after) if signed.missing else after
    audit.append(database, actor, SIGN, route.endpoint, before, said | {"signed_by": signed.signed_by}, route.reason)
    database.close()
    return signed


def _waiting(summary: dict[str, Any]) -> dict[str, Any]:
    """What the trail says of a revision that is not in force: `proposed` instead of `revision`."""
    return {"proposed" if name == "revision" else name: value for name, value in summary.items()}


def _who_may(route: RouteDocument, keys: Sequence[TrustedKey], trust: TrustRoot) -> list[str]:
    at, owners = parse_time(route.time), {key.owner for key in keys}
    helpful = {"operator", "admin"} if route.override else {"operator"}
    helpful = helpful - {role for key in keys for role in key.roles} or helpful
    others = (key for key in trust.keys if key.owner not in owners and helpful & set(key.roles))
    return [key.name for key in others if key.valid_to is None and key.valid_at(at)]


def _read(store: RouteStore, trust: TrustRoot, data: bytes, file: Path) -> Signed:
    route, keys = signed_route(data, trust, file.name)
    current = store.read(route.endpoint, trust, past=True).at(parse_time(route.time))
    if (route.revision, route.previous) != (current.revision + 1, store.digest_of(route.endpoint, current.revision)):
        base = store.read(route.endpoint, trust, min(route.revision - 1, current.revision), past=True)
        before, after = arms.difference(base, current)
        moved = ", ".join(
            f"{name} {before.get(name)} → {after[name]}" for name in after if after[name] != before.get(name)
        )
        raise Conflict(
            f"{file.name} was made for revision {route.revision - 1} of {route.endpoint}; since then {moved}",
            next=f"propose the change again, and remove the file: rm {file}",
        )
    names = sorted(key.name for key in keys)
    missing = lacking(route, keys, trust)
    return Signed(str(file), current, route, names, missing, _who_may(route, keys, trust) if missing else [])
