"""What became of each version at the gate, what waits for whom, and which overrides are still to be reviewed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

import msgspec

from interlock.core.clock import parse_time
from interlock.core.errors import Conflict, Expired, FourEyes, NotApproved, Refused
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.registry.approvals import TAKEN, Approval, Scope, read_decisions, require_quorum
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.release.reviews import Head, heads, sentence, stale
from interlock.store.database import Database

State = Literal[
    "no evaluation", "to review", "needs signatures", "stale", "sent back for changes",
    "approved", "shadow only", "expired", "rejected", "revoked",
]  # fmt: skip
WAITS: tuple[State, ...] = ("to review", "needs signatures", "stale", "sent back for changes")


class Waiting(msgspec.Struct, frozen=True):
    """A version that somebody has to look at."""

    name: str
    label: str
    author: str
    state: State | Literal["override"]
    """`override`: it was let past the gate, and the review that this skipped is still to come."""
    since: str
    who: tuple[str, ...]
    """Who can do something about it: names of keys."""
    why: str


def standing(
    version: Version, decisions: Sequence[Approval], found: Sequence[Head], trust: TrustRoot, now: datetime
) -> tuple[State, str]:
    """What became of a version, and why; `found`: the evidence about it.

    `stale`: it may serve, but by approvals whose evidence has been replaced since.
    """
    if not decisions:
        return ("to review" if any(one.kind == "evaluation" for one in found) else "no evaluation"), ""
    fresh = [one for one in decisions if not stale(one.predicate, found)]
    package, author = version.package_digest, version.author
    why = _refusal(decisions, package, author, "serve", trust, now)
    if why is None:
        if _refusal(fresh, package, author, "serve", trust, now) is None:
            return "approved", ""
        return "stale", "; ".join(dict.fromkeys(line for one in decisions for line in stale(one.predicate, found)))
    last = _in_order(decisions)[-1].predicate
    if last.decision != "approve":
        return TAKEN[last.decision], sentence(last)
    if isinstance(why, Expired):
        return "expired", why.message
    shadow = all(one.predicate.scope == "shadow" for one in decisions if one.predicate.decision == "approve")
    enough = shadow and _refusal(decisions, package, author, "shadow", trust, now) is None
    return ("shadow only" if enough else "needs signatures"), why.message


def waiting(project: Project, database: Database, trust: TrustRoot, now: datetime) -> list[Waiting]:
    """What waits, the longest first."""
    rows = list[Waiting]()
    for version in Versions(database, PackageStore(project.packages)).all():
        decisions = _in_order(read_decisions(project.approvals, version.package_digest, trust))
        found = heads(database, version.package_digest)
        state, why = standing(version, decisions, found, trust, now)
        last = decisions[-1].predicate.time if decisions else ""
        if state in WAITS:
            since = max(one.created_at for one in found) if state in ("to review", "stale") else last
            who = may_sign(version, decisions, found, trust, now)
            mine = (version.author,) if state == "sent back for changes" else who
            rows.append(Waiting(version.name, version.label, version.author, state, since, mine, why))
        if past := unreviewed(decisions, trust):
            who, said = may_sign(version, (), (), trust, now), past.predicate
            why = f"{said.approver} signed at {said.time} that it goes past the gate: {said.override}"
            rows.append(Waiting(version.name, version.label, version.author, "override", said.time, who, why))
    return sorted(rows, key=lambda row: row.since)


def may_sign(
    version: Version, decisions: Sequence[Approval], found: Sequence[Head], trust: TrustRoot, now: datetime
) -> tuple[str, ...]:
    """The reviewers who could sign a version: not its author in a team, nor who has signed on the newest evidence."""
    owners = {key.name: key.owner for key in trust.keys}
    out = {owners.get(version.author, version.author)} if trust.mode == "team" else set[str]()
    signed = set[str]()
    for one in _in_order(decisions):
        if one.predicate.decision != "approve":
            signed.clear()
        elif one.predicate.scope == "serve" and not one.revoked and not stale(one.predicate, found):
            signed.add(one.owner)
    may = [key for key in trust.keys if "reviewer" in key.roles and key.valid_at(now)]
    return tuple(dict.fromkeys(key.name for key in may if key.owner not in out | signed))


def unreviewed(decisions: Sequence[Approval], trust: TrustRoot) -> Approval | None:
    """The override of a package that nobody has reviewed since: the signature with which it came into force.

    A review is an approval without an override that would do by itself, or a rejection.
    """
    past, signed, later = None, list[Approval](), list[Approval]()
    for one in _in_order(decisions):
        said = one.predicate
        if said.decision in ("reject", "revoke"):
            past, signed, later = None, [], []
            continue
        (signed if said.override is not None else later).append(one)
        if past is None and said.override is not None and _suffice(signed, one, "shadow", trust):
            past, later = one, []
        elif past is not None and said.override is None and _suffice(later, one, past.predicate.scope, trust):
            past, signed, later = None, [], []
    return past


def require_reviewed(project: Project, trust: TrustRoot, model: str) -> None:
    """Every override of this model has been reviewed. The signed files say so, not the database.

    Raises:
        Refused: names the one that was not.
    """
    for folder in sorted(project.approvals.glob("*")):
        mine = [one for one in read_decisions(project.approvals, f"sha256:{folder.name}", trust) if one.model == model]
        if past := unreviewed(mine, trust):
            raise Refused(
                f"an earlier override of {model} is still to be reviewed: package {past.package_digest}, "
                f"by {past.signer} at {past.predicate.time}: {past.predicate.override}",
                next="approve or reject that one first: interlock reviews",
            )


def require_unreleased(
    decisions: Sequence[Approval], version: Version, author: str, trust: TrustRoot, now: datetime
) -> None:
    """A version may not be served yet, so that changes can be requested.

    Raises:
        Conflict: it may, or might, where ON_EXPIRY lets it go on.
    """
    why = _refusal(decisions, version.package_digest, author, "serve", trust, now)
    if why is None or isinstance(why, Expired):
        raise Conflict(
            f"{version.name} is approved and may be served: changes can no longer be requested",
            next=f"interlock revoke {version.name} --reason R --as NAME",
        )


def _suffice(signed: Sequence[Approval], last: Approval, scope: Scope, trust: TrustRoot) -> bool:
    """Whether these approvals were enough when the last of them was signed."""
    said = last.predicate
    why = _refusal(signed, last.package_digest, said.author, scope, trust, parse_time(said.time))
    return why is None or isinstance(why, Expired)


def _refusal(
    decisions: Sequence[Approval], package_digest: str, author: str, scope: Scope, trust: TrustRoot, now: datetime
) -> Refused | None:
    try:
        require_quorum(decisions, package_digest, author, scope, trust, now)
    except (NotApproved, FourEyes) as error:
        return error
    return None


def _in_order(decisions: Sequence[Approval]) -> list[Approval]:
    return sorted(decisions, key=lambda one: parse_time(one.predicate.time))
