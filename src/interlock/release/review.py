"""The person's word on a version: approve, reject or revoke, signed over the package and all evidence that they saw."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import msgspec

from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import Conflict, NotApproved, NotFound, Refused, Usage
from interlock.core.policy import RISKS, Risk, highest
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.model.package import verify
from interlock.registry import evaluations, evidence
from interlock.registry.approvals import (
    Approval,
    Predicate,
    Said,
    Scope,
    check_four_eyes,
    read_decisions,
    require_quorum,
    statement,
    store_approval,
)
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.release import audit, mlflow, reviews, standard, waiting
from interlock.release.keys import Keys, prove
from interlock.release.roles import require_role
from interlock.release.users import trust_of
from interlock.store.database import Database


class Terms(msgspec.Struct, frozen=True):
    """What an approval says beyond yes."""

    expires: datetime | None = None
    """Default: as late as the policy allows."""
    diff: str | None = None
    """Digest of the decision diff that was looked at; default, as of `loadtest`: the newest that tells of what is in force."""
    loadtest: str | None = None
    standard: str | None = None
    """Digest of the verdict that was looked at, refused when the evidence says another by now; default: judged now."""
    risk: Risk | None = None
    """The class of the change; at least that of the diff, which is the default."""
    checklist: tuple[str, ...] = ()
    override: str | None = None


class Decision(msgspec.Struct, frozen=True):
    """A signed decision and the version as it is now."""

    version: Version
    predicate: Predicate
    path: Path
    missing: str = ""
    """Why it may not be served yet, though approved: more people must sign."""
    told: str = ""
    """What MLflow was told of a model that came from there."""


class _Proof(msgspec.Struct):
    passed: bool


class _Changed(msgspec.Struct):
    share: float


class _Changes(msgspec.Struct):
    changed: _Changed


class _Unsupported(msgspec.Struct):
    share: float = 0.0


class _Diff(msgspec.Struct):
    """What of a decision diff the gate itself looks at: the shares of rows that are decided otherwise, and not replayed."""

    changes: _Changes
    unsupported: _Unsupported = msgspec.field(default_factory=_Unsupported)

    @property
    def share(self) -> float:
        """Of all rows; what could not be replayed counts as changed."""
        return self.unsupported.share + (1 - self.unsupported.share) * self.changes.changed.share


class _Judged(msgspec.Struct):
    """What of an evaluation report the gate itself looks at."""

    proof: _Proof | None = None


def decide(
    project: Project,
    database: Database,
    actor: str,
    keys: Keys,
    name: str,
    decision: Said,
    reason: str,
    scope: Scope = "serve",
    clock: Clock | None = None,
    terms: Terms | None = None,
    seen: str = "",
) -> Decision:
    """Sign a decision about the version `MODEL:V` and keep it; the last approval to serve gives it its release number.

    `seen`: the state that a review showed; without it what lies here as this begins. A revocation asks for neither.

    Raises:
        NotFound: no such version or package, or the private key does not lie here.
        Refused: not a reviewer; for an approval also: the author in a team, no evaluation, no passed round-trip proof,
            terms that the policy does not allow, a release standard that is not met and not overridden.
        Conflict: what was looked at has changed, or somebody else was first; a version that nobody has approved is to be
            revoked, or one that may be served is to be changed.
        Tampered: the package or the evidence was altered.
    """
    if not reason.strip():
        raise Usage("a decision needs a reason", next='--reason "why"')
    versions = Versions(database, PackageStore(project.packages))
    version, approves = versions.named(name), decision == "approve"
    trust, now = trust_of(project), (clock or SystemClock()).now()
    before = read_decisions(project.approvals, version.package_digest, trust)
    state = reviews.recall(database, version, seen) if seen else reviews.look(database, version, before, trust)
    try:
        author = verify(versions.packages.find(version.package_digest), version.package_digest).manifest.author.name
        own = approves and check_four_eyes(trust, author, actor)
        require_role(trust, actor, "override" if approves and terms and terms.override else decision)
        key = prove(actor, trust, keys)
        judged = _evaluation(database, version, must=approves)
        terms = _reviewed(terms or Terms(), project, database, version, trust) if approves else Terms()
        terms = _bound(terms, project, database, actor, version, scope, clock) if approves else terms
        terms = _checked(terms, database, version, trust, now) if approves else terms
    except Refused as error:
        audit.refused(database, actor, decision, version.name, error.code, error.message)
        raise
    if decision == "revoke" and not any(one.predicate.decision == "approve" for one in before):
        raise Conflict(
            f"nobody has approved {version.name}", next=f"interlock reject {version.name} --reason R --as NAME"
        )
    if decision == "request_changes":
        waiting.require_unreleased(before, version, author, trust, now)
    expires = iso(terms.expires) if terms.expires else None
    said = {name: getattr(terms, name) for name in Terms.__struct_fields__ if name != "expires"}
    predicate = Predicate(
        decision, scope, actor, author, reason, iso(now), expires, judged, self_approved=own, **said
    )  # fmt: skip
    mine = trust.key_named(actor)
    new = Approval(version.package_digest, predicate, actor, False, version.model, mine.owner, mine.roles)
    missing = _missing([*before, new], version, author, scope, trust, now) if approves else ""
    with audit.transaction(database) as connection:
        if decision != "revoke":
            reviews.require_unchanged(project, database, version, state, terms.standard)
        if kind := _news(decision, terms, missing):
            reviews.note(connection, kind, actor, iso(now), reason, state)
        if approves and scope == "serve" and not missing:
            versions.set_release(connection, version.model, version.version)
        after = {"decision": decision, "scope": scope, "package": version.package_digest, "evaluation": judged}
        more = {name: value for name, value in {**said, "expires": expires}.items() if value}
        audit.append(connection, actor, decision, version.name, None, after | {"self_approved": own} | more, reason)
        path = store_approval(project.approvals, statement(version.model, version.package_digest, predicate), key)
    told = ""
    if approves and scope == "serve" and not missing:
        told = mlflow.tell_approved(database, versions.packages, actor, version.name, version.package_digest)
    return Decision(versions.get(version.model, version.version), predicate, path, missing, told)


def _missing(
    decisions: list[Approval], version: Version, author: str, scope: Scope, trust: TrustRoot, now: datetime
) -> str:
    """What an approved version still needs before it may be served; empty: nothing."""
    try:
        require_quorum(decisions, version.package_digest, author, scope, trust, now)
    except NotApproved as error:
        return error.message
    return ""


def _bound(
    terms: Terms,
    project: Project,
    database: Database,
    actor: str,
    version: Version,
    scope: Scope,
    clock: Clock | None,
) -> Terms:
    """The terms with the newest evidence where none was named, and the verdict on it under the release standard.

    A shadow's answers reach no client: it needs no verdict, and may be what the standard asks for.

    Raises:
        Refused: the standard is not met and not overridden; or the verdict that was named is not what the evidence says now.
    """
    seen = evidence.about(database, terms.standard, "standard", version.package_digest) if terms.standard else None
    looked = evidence.decode(seen, standard.Verdict) if seen else None
    if scope == "shadow":
        return terms
    judged = looked.judged if looked else standard.Judged(version.package_digest)
    named = msgspec.structs.replace(judged, diff=terms.diff or judged.diff, loadtest=terms.loadtest or judged.loadtest)
    bench = standard.Bench(project, database, version.name, named=named)
    found = {name: one.digest if one else None for name, one in (("diff", bench.diff), ("loadtest", bench.loadtest))}
    terms = msgspec.structs.replace(terms, **found)
    if project.settings().standard is None:
        return terms
    verdict = standard.judge(bench, clock)
    kept = standard.keep(database, actor, verdict, clock)
    if looked and terms.standard != kept:
        changed = ", ".join(standard.differences(looked, verdict))
        raise Refused(
            f"{terms.standard} does not hold any more: {changed}", next=f"look again: interlock standard {version.name}"
        )
    if terms.override is None:
        standard.require(verdict)
    return msgspec.structs.replace(terms, standard=kept)


def _checked(terms: Terms, database: Database, version: Version, trust: TrustRoot, now: datetime) -> Terms:
    """The terms with the class of the diff and the latest end that the policy allows.

    Raises:
        Refused: a class below that of the diff, an end later than allowed, or an override that is not allowed.
        NotFound: there is no such evidence about this version.
    """
    share = 0.0
    if terms.diff:
        diff = evidence.about(database, terms.diff, "diff", version.package_digest)
        share = msgspec.json.decode(diff.document, type=_Diff).share
    if terms.loadtest:
        evidence.about(database, terms.loadtest, "loadtest", version.package_digest)
    policy, limits = trust.policy, trust.policy.limits_of(version.model)
    least = policy.class_of(share, version.model)
    if terms.risk is not None and RISKS.index(terms.risk) < RISKS.index(least):
        raise Refused(
            f"the diff changes {share:.2%} of the decisions, counting what could not be replayed: that is the class {least}, "
            f"and not {terms.risk}",
            next=f"--risk {least}, or leave it out",
        )
    if terms.override is not None and not limits.override_hours:
        raise Refused(f"the policy allows no override for {version.model}", next="see it: interlock users policy")
    spans = [timedelta(days=limits.approval_days)] if limits.approval_days is not None else []
    spans += [timedelta(hours=limits.override_hours)] if terms.override is not None else []
    latest = now + min(spans) if spans else None
    expires = terms.expires or latest
    if expires is not None and expires <= now:
        raise Refused(f"an approval that ends on {iso(expires)} is over already", next="as in: --expires 30d")
    if expires is not None and latest is not None and expires > latest:
        raise Refused(
            f"the policy lets this approval live until {iso(latest)}, not {iso(expires)}", next="--expires sooner"
        )
    risk = highest(terms.risk, least) if terms.diff or terms.risk else None
    return msgspec.structs.replace(terms, risk=risk, expires=expires)


def _reviewed(terms: Terms, project: Project, database: Database, version: Version, trust: TrustRoot) -> Terms:
    """The terms with the items of the checklist in full.

    Raises:
        Refused: some are missing, evidence that is named has been replaced, or an earlier override was not reviewed.
    """
    done = reviews.ticked(project.settings().review.checklist, terms.checklist)
    if old := reviews.replaced(reviews.heads(database, version.package_digest), terms.diff, terms.loadtest):
        raise Refused("; ".join(old), next=f"look at what is new: interlock review {version.name}")
    if terms.override is not None:
        waiting.require_reviewed(project, trust, version.model)
    return msgspec.structs.replace(terms, checklist=done)


def _news(decision: Said, terms: Terms, missing: str) -> reviews.NoteKind | None:
    """What of a decision others are waiting for."""
    if decision == "request_changes":
        return "changes"
    if terms.override is not None:
        return "override"
    return "signature" if missing else None


def _evaluation(database: Database, version: Version, *, must: bool) -> str:
    """Digest of the newest evaluation; empty when there is none and none is needed."""
    again = f"make a new one: interlock evaluate {version.name}"
    try:
        found = evaluations.latest(database, version.package_digest)
    except NotFound:
        if must:
            raise Refused(f"{version.name} has no evaluation: there is nothing to judge it by", next=again) from None
        return ""
    proof = msgspec.json.decode(found.report, type=_Judged).proof
    if must and (proof is None or not proof.passed):
        raise Refused(f"{version.name} has no passed round-trip proof in its newest evaluation", next=again)
    return found.digest
