"""The person's word on a version: approve or reject, signed over the package and the evaluation that they saw."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from interlock.core import signing
from interlock.core.clock import Clock, SystemClock, iso
from interlock.core.errors import NotFound, Refused, Usage
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.model.package import verify
from interlock.registry import evaluations
from interlock.registry.approvals import Predicate, Scope, check_four_eyes, statement, store_approval
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.release import audit, mlflow
from interlock.release.keys import Keys, prove
from interlock.release.users import trust_of
from interlock.store.database import Database


class Decision(msgspec.Struct, frozen=True):
    """A signed decision and the version as it is now."""

    version: Version
    predicate: Predicate
    path: Path
    told: str = ""
    """What MLflow was told of a model that came from there."""


class _Proof(msgspec.Struct):
    passed: bool


class _Judged(msgspec.Struct):
    """What of an evaluation report the gate itself looks at."""

    proof: _Proof | None = None


def decide(
    project: Project,
    database: Database,
    actor: str,
    keys: Keys,
    name: str,
    decision: Literal["approve", "reject"],
    reason: str,
    scope: Scope = "serve",
    clock: Clock | None = None,
) -> Decision:
    """Sign a decision about the version `MODEL:V` and keep it; an approval to serve gives it its release number.

    Raises:
        NotFound: no such version or package, or the private key does not lie here.
        Refused: not a reviewer; for an approval also: the author in a team, no evaluation, no passed round-trip proof.
        Tampered: the package or the evaluation was altered.
    """
    if not reason.strip():
        raise Usage("a decision needs a reason", next='--reason "why"')
    versions = Versions(database, PackageStore(project.packages))
    version = versions.named(name)
    trust = trust_of(project)
    now = iso((clock or SystemClock()).now())
    try:
        author = verify(versions.packages.find(version.package_digest), version.package_digest).manifest.author.name
        own = decision == "approve" and check_four_eyes(trust, author, actor)
        key = _reviewer(actor, trust, keys)
        judged = _evaluation(database, version, must=decision == "approve")
    except Refused as error:
        audit.refused(database, actor, decision, version.name, error.code, error.message)
        raise
    predicate = Predicate(decision, scope, actor, author, reason, now, None, judged, self_approved=own)
    with audit.transaction(database) as connection:
        if decision == "approve" and scope == "serve":
            versions.set_release(connection, version.model, version.version)
        after = {"decision": decision, "scope": scope, "package": version.package_digest, "evaluation": judged}
        audit.append(connection, actor, decision, version.name, None, after | {"self_approved": own}, reason)
        path = store_approval(project.approvals, statement(version.model, version.package_digest, predicate), key)
    told = ""
    if decision == "approve" and scope == "serve":
        told = mlflow.tell_approved(database, versions.packages, actor, version.name, version.package_digest)
    return Decision(versions.get(version.model, version.version), predicate, path, told)


def _reviewer(actor: str, trust: TrustRoot, keys: Keys) -> signing.PrivateKey:
    if "reviewer" not in trust.key_named(actor).roles:
        raise Refused(
            f"{actor} is no reviewer and may not judge versions",
            next=f"the holder of the root key runs: interlock users add {actor} --role reviewer",
        )
    return prove(actor, trust, keys)


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
