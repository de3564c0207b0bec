"""`interlock versions`: what was trained, what was said about it, where it serves."""

from __future__ import annotations

from typing import Any

import msgspec

from interlock.cli.output import Columns, Reply, cell, items
from interlock.cli.reviews import decided, told
from interlock.cli.session import Session
from interlock.core.clock import SystemClock
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.evaluation.report import decode
from interlock.model.manifest import Origin, Runtime
from interlock.registry import evaluations
from interlock.registry.approvals import Approval, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import Arm, RouteStore, Shadow
from interlock.registry.versions import Version, Versions
from interlock.release import reviews, waiting
from interlock.release.users import trust_of
from interlock.store.database import Database


def list_versions(model: str = "", /, *, session: Session) -> Reply:
    """List versions with the last decision about each and the arms that serve it.

    Args:
        model: Only this model's.
    """
    project = session.project
    trust, found = trust_of(project), versions_of(project).all(model)
    rows, database = list[dict[str, Any]](), Database(project.database)
    for one in found:
        decisions = read_decisions(project.approvals, one.package_digest, trust)
        evidence = reviews.heads(database, one.package_digest)
        rows.append(version_row(one, decisions) | standing(one, decisions, evidence, trust))
    arms = serving(project, trust)
    for row in rows:
        row["arms"] = arms.get(row["package_digest"], [])
    new = next((row["name"] for row in reversed(rows) if row["state"] == "to review"), "")
    step = f"interlock review {new}" if new else ""
    columns = ("name", "label", "author", "created_at", "state", "decision", "signed_by", "arms")
    return items(rows, columns, empty="no versions yet", next=step or ("" if rows else "interlock train --wait"))


def show(version: str, /, *, session: Session) -> Reply:
    """Show one version: its manifest and every decision about it.

    Args:
        version: MODEL:V
    """
    project = session.project
    versions, trust = versions_of(project), trust_of(project)
    one = versions.named(version)
    manifest = versions.manifest(one)
    decisions = read_decisions(project.approvals, one.package_digest, trust)
    found = reviews.heads(Database(project.database), one.package_digest)
    row = (
        version_row(one, decisions)
        | standing(one, decisions, found, trust)
        | {"arms": serving(project, trust).get(one.package_digest, [])}
    )
    lineage = manifest.lineage
    proof = decode(evaluations.latest(Database(project.database), one.package_digest).report).proof
    start = proof.start_seconds if proof else None
    about = {
        **row,
        "trained on": f"snapshot {lineage.snapshot}: "
        + ", ".join(f"{part} {n}" for part, n in lineage.split.rows.items()),
        "parameters": msgspec.json.encode(lineage.parameters).decode(),
        "recipe": lineage.recipe,
        "runtime": runtime_words(manifest.runtime),
        "start-up": f"{start} s" if start is not None else "not measured",
        "git commit": lineage.git_commit,
    }
    inputs = [{"input": spec.name, "type": spec.type, "nullable": spec.nullable} for spec in manifest.signature.inputs]
    said = decided(decisions, found)
    text = [*(f"{name:<16}{cell(value)}" for name, value in about.items()), *origin_lines(lineage.origin)]
    return Reply(
        {**row, "manifest": msgspec.to_builtins(manifest), "decisions": said, "start_seconds": start},
        (*text, "", Columns(inputs, ("input", "type", "nullable")), "", *told(said)),
        f"interlock review {version}",
    )


def diff(before: str, after: str, /, *, session: Session) -> Reply:
    """Show what differs between the manifests of two versions.

    Args:
        before: MODEL:V
        after: MODEL:V
    """
    versions = versions_of(session.project)
    changes = msgspec.to_builtins(versions.diff(versions.named(before), versions.named(after)))
    return items(changes, ("field", "before", "after"), empty=f"{before} and {after} say the same of themselves")


def origin_lines(origin: Origin | None) -> list[str]:
    """Where a model that was not trained here comes from."""
    return [f"registered from {origin.source} ({origin.digest}), trained elsewhere"] if origin else []


def runtime_words(runtime: Runtime) -> str:
    """What loads a model, in a few words."""
    if runtime.code:
        return f"the project's own code, {runtime.code}: see interlock review"
    made = runtime.compiled
    if made is None:
        return f"{runtime.name}, not compiled"
    return f"{runtime.name}, compiled: {made.speedup_1} × as fast with 1 row, {made.speedup_64} × with 64"


def versions_of(project: Project) -> Versions:
    """The versions of a project."""
    return Versions(Database(project.database), PackageStore(project.packages))


def serving(project: Project, trust: TrustRoot) -> dict[str, list[str]]:
    """Package digest → `endpoint/arm` of every arm and shadow that it is."""
    routes, found = RouteStore(project.routes), dict[str, list[str]]()
    for endpoint in routes.endpoints():
        route = routes.read(endpoint, trust, past=True)
        served: list[Arm | Shadow] = [*route.arms, *route.shadows]
        for one in served:
            found.setdefault(one.package_digest, []).append(f"{endpoint}/{one.name}")
    return found


def standing(
    version: Version, decisions: list[Approval], found: list[reviews.Head], trust: TrustRoot
) -> dict[str, Any]:
    """What became of a version at the gate, and why; `found`: the evidence about it."""
    state, why = waiting.standing(version, decisions, found, trust, SystemClock().now())
    return {"state": state, "why": why}


def version_row(version: Version, decisions: list[Approval]) -> dict[str, Any]:
    """A version with its label and the last decision about it."""
    last = max((one.predicate for one in decisions), key=lambda said: said.time, default=None)
    mark = " (self-approved)" if last and last.self_approved else ""
    return {
        "name": version.name,
        "label": version.label,
        **msgspec.to_builtins(version),
        "decision": f"{last.decision} {last.scope}" if last else None,
        "signed_by": f"{last.approver}{mark}" if last else None,
    }
