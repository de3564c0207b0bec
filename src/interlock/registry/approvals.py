"""Approvals: in-toto statements in DSSE envelopes, and the one rule that says whether a package may be served.

A `reject`, a `revoke` or a `request_changes` takes back every approval before it. After it the latest approval of each person
counts, and as many people as the policy asks for the class of the change must have approved the same evidence. `serve` includes
`shadow`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

import msgspec

from interlock.core.clock import iso, parse_time
from interlock.core.errors import Expired, FourEyes, NotApproved, Tampered
from interlock.core.files import write_new
from interlock.core.ids import uuid7_text
from interlock.core.policy import Risk, highest
from interlock.core.signing import PrivateKey, seal
from interlock.core.trust import Role, TrustRoot
from interlock.registry.packages import package_hex

APPROVAL_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "urn:interlock:approval:v1"
Scope = Literal["shadow", "serve"]
Said = Literal["approve", "reject", "revoke", "request_changes"]
Back = Literal["rejected", "revoked", "sent back for changes"]
TAKEN: dict[str, Back] = {"reject": "rejected", "revoke": "revoked", "request_changes": "sent back for changes"}
SKEW = timedelta(minutes=5)
"""So far the clocks of who signs and who reads may differ: what is signed for later does not count yet."""


class Subject(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The package that is judged."""

    name: str
    digest: dict[str, str]


class Predicate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The decision."""

    decision: Said
    scope: Scope
    approver: str
    author: str
    reason: str
    time: str
    expires: str | None
    evaluation: str
    """Digest of the evaluation that was judged."""
    standard: str | None = None
    image: str | None = None
    self_approved: bool = False
    diff: str | None = None
    """Digest of the decision diff that was judged."""
    loadtest: str | None = None
    risk: Risk | None = None
    """The class of the change that it was judged as; None: low."""
    checklist: tuple[str, ...] = ()
    """What the reviewer says to have looked at."""
    override: str | None = None
    """Why this goes past a failed standard or a missing quorum, for as long as the policy allows."""


class Statement(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"type": "_type", "predicate_type": "predicateType"}
):
    """An in-toto Statement v1."""

    type: str
    subject: tuple[Subject]
    predicate_type: str
    predicate: Predicate


class Approval(msgspec.Struct, frozen=True):
    """A decision whose signature, signer and form are verified."""

    package_digest: str
    predicate: Predicate
    signer: str
    """Name of the key in the trust root."""
    revoked: bool = False
    """The key does not count for that time: an approval is void, a rejection stays one."""
    model: str = ""
    owner: str = ""
    """The person whose key it is."""
    roles: tuple[Role, ...] = ()
    id: str = ""
    """Name of its file."""


def statement(model: str, package_digest: str, predicate: Predicate) -> Statement:
    """The statement to sign."""
    subject = Subject(model, {"sha256": package_hex(package_digest)})
    return Statement(STATEMENT, (subject,), PREDICATE, predicate)


def store_approval(folder: Path, content: Statement, key: PrivateKey) -> Path:
    """Sign and keep a decision under `folder/<package hex>/<id>.dsse.json`."""
    target = folder / content.subject[0].digest["sha256"] / f"{uuid7_text()}.dsse.json"
    write_new(target, seal(content, APPROVAL_TYPE, key))
    return target


def open_approval(data: bytes, trust: TrustRoot, what: str) -> Approval:
    """Verify one decision: bytes, form, signer's role and validity, four eyes.

    Raises:
        Tampered: altered bytes or a form that is not ours.
        NotApproved: the signer may not sign approvals.
    """
    payload, key = trust.unseal(data, APPROVAL_TYPE, ("reviewer", "admin"), what)
    content = _statement(payload, what)
    predicate = content.predicate
    if "reviewer" not in key.roles and predicate.decision != "revoke" and predicate.override is None:
        raise NotApproved(f"{what} is signed by {key.name}, who has not the role reviewer")
    if predicate.approver != key.name:
        raise NotApproved(f"{what} names {predicate.approver} as approver, but is signed by {key.name}")
    revoked = not key.valid_at(parse_time(predicate.time))
    subject = content.subject[0]
    found = f"sha256:{subject.digest['sha256']}"
    return Approval(found, predicate, key.name, revoked, subject.name, key.owner, key.roles)


def _statement(payload: Any, what: str) -> Statement:
    try:
        content = msgspec.convert(payload, Statement)
        for time in (content.predicate.time, content.predicate.expires):
            parse_time(time) if time is not None else None
    except ValueError as error:  # msgspec's is one
        raise Tampered(f"{what} is no approval: {error}") from error
    if (content.type, content.predicate_type) != (STATEMENT, PREDICATE) or set(content.subject[0].digest) != {"sha256"}:
        raise Tampered(f"{what} is no approval of this format")
    return content


def check_four_eyes(trust: TrustRoot, author: str, approver: str) -> bool:
    """Whether `approver` signs their own model, which only a solo project allows.

    Raises:
        FourEyes: they do, and this is a team.
    """
    owners = {key.name: key.owner for key in trust.keys}
    own = owners.get(author, author) == owners.get(approver, approver)
    if own and trust.mode == "team":
        raise FourEyes(
            f"{approver} trained this model and may not sign it",
            next="another person with the role reviewer approves it: interlock approve MODEL:V --as NAME --reason R",
        )
    return own


def end_of(one: Approval, trust: TrustRoot) -> datetime | None:
    """When an approval ends: as it says, at the latest as the policy says; None: never."""
    said, limits = one.predicate, trust.policy.limits_of(one.model)
    ends = [parse_time(said.expires)] if said.expires is not None else []
    if limits.approval_days is not None:
        ends.append(parse_time(said.time) + timedelta(days=limits.approval_days))
    if said.override is not None:
        ends.append(parse_time(said.time) + timedelta(hours=limits.override_hours))
    return min(ends, default=None)


def require_quorum(
    decisions: Sequence[Approval],
    package_digest: str,
    author: str,
    scope: Scope,
    trust: TrustRoot,
    now: datetime,
    risk: Risk = "low",
) -> tuple[Approval, ...]:
    """The approvals that let this package be served in `scope`, out of verified decisions; the latest first.

    They are of as many people as the policy asks for the highest class that one of them states, at least `risk`, and name
    the same evaluation, standard and diff. An override takes a reviewer and another person with the role admin instead.

    Raises:
        NotApproved: there are too few, their keys were not valid then, or a later decision took them back.
        Expired: there were enough, but not for now.
        FourEyes: there is only the author's own, in a team.
    """
    mine = [one for one in decisions if one.package_digest == package_digest]
    latest: dict[str, Approval] = {}
    void, own = "", None
    for one in sorted(mine, key=lambda one: parse_time(one.predicate.time), reverse=True):
        said = one.predicate
        if said.decision != "approve":
            if latest:
                break
            raise NotApproved(f"package {package_digest} was {TAKEN[said.decision]} by {one.signer}: {said.reason}")
        if (scope == "serve" and said.scope == "shadow") or parse_time(said.time) > now + SKEW:
            continue
        if one.revoked:
            void = f"; that of {one.signer} is void, the key was not valid on {said.time}"
            continue
        try:
            check_four_eyes(trust, author, one.signer)
        except FourEyes as error:
            own = error
            continue
        latest.setdefault(one.owner, one)
    lives = [one for one in latest.values() if (until := end_of(one, trust)) is None or now < until]
    found, why = _enough(lives, trust, risk)
    if found:
        return found
    ended, _ = _enough(list(latest.values()), trust, risk)
    if ended:
        over = max(iso(end) for one in ended if one not in lives and (end := end_of(one, trust)))
        raise Expired(f"the approval of package {package_digest} expired on {over}")
    if own is not None and not latest:
        raise own
    raise NotApproved(
        f"package {package_digest} has {why or f'no approval of the scope {scope}'}{void}",
        next="a reviewer signs it: interlock approve MODEL:V --as NAME --reason R",
    )


def _enough(approvals: Sequence[Approval], trust: TrustRoot, risk: Risk) -> tuple[tuple[Approval, ...], str]:
    """The approvals on the same evidence that suffice; or none, and what is missing."""
    risk = highest(risk, *(one.predicate.risk for one in approvals))
    quorum, why = trust.policy.quorum_of(risk), ""
    groups: dict[object, list[Approval]] = {}
    for one in approvals:
        said = one.predicate
        bound = (said.evaluation, said.standard, said.diff, said.override is not None)
        groups.setdefault(bound, []).append(one)
    for group in groups.values():
        names = ", ".join(one.signer for one in group)
        if group[0].predicate.override is not None:
            reviewers, admins = ({one.owner for one in group if role in one.roles} for role in ("reviewer", "admin"))
            if reviewers and admins and len(reviewers | admins) > 1:
                return tuple(group), ""
            why = why or f"an override by {names}, and it takes a reviewer and another person with the role admin"
        elif len(group) < quorum.reviewers:
            why = why or (
                f"{len(group)} of the {quorum.reviewers} approvals on the same evidence that the class {risk} needs ({names})"
            )
        elif quorum.one_of and not any({one.signer, *one.roles} & {*quorum.one_of} for one in group):
            why = why or f"approvals by {names}, but the class {risk} needs one of {', '.join(quorum.one_of)}"
        else:
            return tuple(group), ""
    return (), why


def require_approval(
    decisions: Sequence[Approval], package_digest: str, author: str, scope: Scope, trust: TrustRoot, now: datetime
) -> Approval:
    """The latest of the approvals that `require_quorum` finds; raises what it raises."""
    return require_quorum(decisions, package_digest, author, scope, trust, now)[0]


def read_decisions(folder: Path, package_digest: str, trust: TrustRoot) -> list[Approval]:
    """All decisions on a package, verified; one altered file refuses the package, it is never skipped."""
    files = sorted((folder / package_hex(package_digest)).glob("*.dsse.json"))
    found = ((file.name, open_approval(file.read_bytes(), trust, f"approval {file.name}")) for file in files)
    return [msgspec.structs.replace(one, id=name) for name, one in found]
