"""`interlock review`, `approve`, `reject`: a person sees the evidence and gives their word."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from cyclopts import Parameter

from interlock.cli.evidence import evidence
from interlock.cli.identity import As, acting
from interlock.cli.output import Columns, Part, Reply
from interlock.cli.session import Flags, Session
from interlock.cli.versions import origin_lines, serving, version_row
from interlock.core.files import write_atomic
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.evaluation import card as model_card
from interlock.evaluation import report_views
from interlock.evaluation.report import decode
from interlock.evaluation.report_views import Dossier
from interlock.model.features import FILE
from interlock.model.package import verify
from interlock.registry import evaluations
from interlock.registry.approvals import Scope, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION
from interlock.registry.versions import Version, Versions
from interlock.release.keys import Keys
from interlock.release.review import decide
from interlock.release.users import trust_of
from interlock.store.database import Database

Why = Annotated[str, Parameter(name="--reason", help="Goes into the signed decision.")]


def review(version: str, /, *, session: Session, html: Path | None = None, card: Path | None = None) -> Reply:
    """Show all evidence about a version: evaluation, slices, round-trip proof, feature function, decisions so far.

    Args:
        version: MODEL:V
        html: Write everything, with charts, into this file, which needs nothing else.
        card: Write a model card (Markdown with a YAML head) into this file.
    """
    project = session.project
    database = Database(project.database)
    versions, trust = Versions(database, PackageStore(project.packages)), trust_of(project)
    one = versions.named(version)
    package = verify(versions.packages.find(one.package_digest), one.package_digest)
    decisions = read_decisions(project.approvals, one.package_digest, trust)
    row = version_row(one, decisions)
    stored = evaluations.latest(database, one.package_digest)
    report = decode(stored.report)
    said = [msgspec.to_builtins(decision.predicate) for decision in decisions]
    source = package.files[FILE].decode()
    text: list[Part] = [
        f"{one.name}  {one.label}  by {one.author}, {one.created_at}",
        f"package {one.package_digest}",
        *origin_lines(package.manifest.lineage.origin),
        "",
        *evidence(report),
        "",
        "feature function (runs in the model server):",
        *(f"    {line}" for line in source.splitlines()),
    ]
    code = package.files[own].decode() if (own := package.manifest.runtime.code) else ""
    if code:
        text += ["", "the model is code of the project's own (runs in the model server):"]
        text += [f"    {line}" for line in code.splitlines()]
    if said:
        text += ["", Columns(said, ("time", "decision", "scope", "approver", "self_approved", "reason"))]
    sources = {"Feature function": source, **({"Code of the model": code} if code else {})}
    dossier = Dossier(report, stored.digest, one.label, package.manifest, package.digest, sources, said)
    for path, view in ((html, report_views.html), (card, model_card.card)):
        if path:
            write_atomic(path.absolute(), view(dossier).encode())
            text.append(f"wrote {path}")
    return Reply(
        {
            **row,
            "evaluation": stored.digest,
            "report": msgspec.to_builtins(report),
            "decisions": said,
            "features": source,
            "code": code,
            "wrote": [str(path) for path in (html, card) if path],
        },
        text,
        _decide_lines(one, trust),
    )


def approve(version: str, /, *, session: Session, reason: Why, scope: Scope = "serve", as_: As = None) -> Reply:
    """Sign that a version may be served.

    Args:
        version: MODEL:V
        scope: serve, or shadow for answers that no client sees.
    """
    return _decided(session, version, "approve", reason, scope, as_)


def reject(version: str, /, *, session: Session, reason: Why, scope: Scope = "serve", as_: As = None) -> Reply:
    """Sign that a version may not be served; takes an approval back.

    Args:
        version: MODEL:V
        scope: Written down; a rejection holds for every scope.
    """
    return _decided(session, version, "reject", reason, scope, as_)


def _decided(
    session: Flags, name: str, decision: Literal["approve", "reject"], reason: str, scope: Scope, as_: str | None
) -> Reply:
    project, actor = session.project, acting(as_)
    said = decide(project, Database(project.database), actor, Keys.find(), name, decision, reason, scope)
    version, predicate = said.version, said.predicate
    mark = " (self-approved: author and reviewer are one person)" if predicate.self_approved else ""
    word = {"approve": "approved", "reject": "rejected"}[decision]
    document = {
        **msgspec.to_builtins(version), "label": version.label, "decision": decision, "scope": scope,
        "signed_by": actor, "self_approved": predicate.self_approved, "evaluation": predicate.evaluation,
        "approval": str(said.path), "mlflow": said.told or None,
    }  # fmt: skip
    live = serving(project, trust_of(project)).get(version.package_digest, [])
    return Reply(
        document,
        (
            f"{version.name} {version.label} is {word} by {actor}{mark}",
            f"signed in {said.path}",
            *([said.told] if said.told else []),
        ),
        _after(project, version, decision, scope, live),
    )


def _after(project: Project, version: Version, decision: str, scope: Scope, live: list[str]) -> str:
    """The next step: deploy what was approved, take out what was rejected."""
    trust = trust_of(project)
    who = next((key.name for key in trust.keys if "operator" in key.roles), "NAME")
    if decision == "reject":
        steps = [place.split("/") for place in live]
        words = [f"rollback {at}" if arm == CHAMPION else f"retire {at} {arm}" for at, arm in steps]
        return "\n".join(f"interlock {step} --as {who}" for step in words)
    if scope == "shadow":
        return f"interlock versions show {version.name}"
    arm = "challenger --weight 10%" if serving(project, trust) else "champion"
    return f"interlock deploy {version.name} --to {version.model} --as {arm} --as {who}"


def _decide_lines(version: Version, trust: TrustRoot) -> str:
    """The exact lines to type, in the name of somebody who may."""
    owners = {key.name: key.owner for key in trust.keys}
    own = owners.get(version.author, version.author)
    may = [key.name for key in trust.keys if "reviewer" in key.roles and (trust.mode == "solo" or key.owner != own)]
    if not may:
        return "interlock keys generate rita\ninterlock users add rita --role reviewer"
    why = shlex.quote("the reason")
    return "\n".join(f"interlock {word} {version.name} --as {may[0]} --reason {why}" for word in ("approve", "reject"))
