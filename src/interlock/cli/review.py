"""`interlock review`, `approve`, `request-changes`, `reject`: a person sees the evidence and gives their word."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.evidence import diff_line, evidence, loadtest_line, skew_line, standard_line
from interlock.cli.identity import As, acting, somebody
from interlock.cli.output import Part, Reply
from interlock.cli.reviews import decided, in_order, told
from interlock.cli.session import Flags, Session
from interlock.cli.versions import origin_lines, serving, standing, version_row
from interlock.core.clock import SystemClock, parse_span, parse_time
from interlock.core.errors import NotApproved, Usage
from interlock.core.files import write_atomic
from interlock.core.policy import Risk
from interlock.core.project import Project
from interlock.evaluation import card as model_card
from interlock.evaluation import report_views
from interlock.evaluation.report import decode
from interlock.evaluation.report_views import Dossier
from interlock.model.features import FILE
from interlock.model.package import verify
from interlock.registry import evaluations
from interlock.registry import evidence as documents
from interlock.registry.admission import admitted
from interlock.registry.approvals import TAKEN, Said, Scope, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import CHAMPION, RouteStore
from interlock.registry.versions import Version, Versions
from interlock.release import reviews
from interlock.release.keys import Keys
from interlock.release.review import Terms, decide
from interlock.release.standard import Bench, judge
from interlock.release.users import trust_of
from interlock.release.waiting import may_sign
from interlock.store.database import Database

Why = Annotated[str, Parameter(name="--reason", help="Goes into the signed decision.")]
Seen = Annotated[str, Parameter(help="The state that `interlock review` showed; refused when it is another by now.")]
Checked = Annotated[
    list[str], Parameter(negative=(), help="An item of the checklist that you looked at: its number, or how it begins.")
]


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
    seen = reviews.look(database, one, decisions, trust)  # before the rest: what comes meanwhile is a conflict later
    with database.write() as connection:
        reviews.keep(connection, seen, somebody(None))
    found, checklist = reviews.heads(database, one.package_digest), project.settings().review.checklist
    row, now = version_row(one, decisions) | standing(one, decisions, found, trust), SystemClock().now()
    may = may_sign(one, decisions, found, trust, now) or may_sign(one, (), (), trust, now)
    stored = evaluations.latest(database, one.package_digest)
    report = decode(stored.report)
    said = decided(decisions, found)
    notes = msgspec.to_builtins(reviews.comments(database, one.package_digest))
    source = package.files[FILE].decode()
    diff = documents.latest(database, "diff", one.package_digest)
    loadtest = documents.latest(database, "loadtest", one.package_digest)
    skew = documents.latest(database, "skew", one.package_digest)
    verdict = judge(Bench(project, database, version)) if project.settings().standard else None
    rules = msgspec.to_builtins(verdict.rules) if verdict else []
    text: list[Part] = [
        f"{one.name}  {one.label}  by {one.author}, {one.created_at}",
        f"package {one.package_digest}",
        f"state: {row['state']} {row['why']}".rstrip(),
        *origin_lines(package.manifest.lineage.origin),
        "",
        *evidence(report),
        diff_line(one.name, diff),
        loadtest_line(one.name, loadtest),
        skew_line(one.name, skew),
        standard_line(verdict),
        "",
        "feature function (runs in the model server):",
        *(f"    {line}" for line in source.splitlines()),
    ]
    code = package.files[own].decode() if (own := package.manifest.runtime.code) else ""
    if code:
        text += ["", "the model is code of the project's own (runs in the model server):"]
        text += [f"    {line}" for line in code.splitlines()]
    if checklist:
        text += ["", "checklist (approve takes --checked N for each):"]
        text += [f"    {number} {item}" for number, item in enumerate(checklist, 1)]
    text += ["", *told(said, notes), f"seen: {seen.short}"]
    sources = {"Feature function": source, **({"Code of the model": code} if code else {})}
    dossier = Dossier(
        report, stored.digest, one.label, package.manifest, package.digest, sources, in_order(said, notes), rules
    )
    for path, view in ((html, report_views.html), (card, model_card.card)):
        if path:
            write_atomic(path.absolute(), view(dossier).encode())
            text.append(f"wrote {path}")
    return Reply(
        {
            **row,
            "evaluation": stored.digest,
            "diff": diff.digest if diff else None,
            "loadtest": loadtest.digest if loadtest else None,
            "skew": skew.digest if skew else None,
            "standard": msgspec.to_builtins(verdict),
            "report": msgspec.to_builtins(report),
            "decisions": said,
            "notes": notes,
            "seen": seen.short,
            "checklist": checklist,
            "features": source,
            "code": code,
            "wrote": [str(path) for path in (html, card) if path],
        },
        text,
        _decide_lines(one, may, seen.short),
    )


def approve(
    version: str,
    /,
    *,
    session: Session,
    reason: Why,
    scope: Scope = "serve",
    expires: str = "",
    diff: str | None = None,
    loadtest: str | None = None,
    standard: str | None = None,
    risk: Risk | None = None,
    override: str | None = None,
    checked: Checked = [],  # noqa: B006 - nobody changes it
    seen: Seen = "",
    as_: As = None,
) -> Reply:
    """Sign that a version may be served.

    Args:
        version: MODEL:V
        scope: serve, or shadow for answers that no client sees.
        expires: When it ends: in how long, as in 30d, or ISO with an offset (default: as late as the policy allows).
        diff: Digest of the decision diff that you looked at (default: the newest that tells of what is in force).
        loadtest: Digest of the load test that you looked at (default: the newest).
        standard: Digest of the verdict that you looked at; refused when the evidence says another by now (default: judged now).
        risk: The class of the change (default: that of the diff).
        override: Why this goes past a failed standard; takes an admin's signature too, and holds as long as the policy says.
    """
    try:
        span = parse_span(expires)
        end = SystemClock().now() + span if span else parse_time(expires) if expires else None
    except ValueError:
        raise Usage(f"--expires {expires}: no span and no time with an offset", next="as in: --expires 30d") from None
    terms = Terms(
        expires=end,
        diff=diff,
        loadtest=loadtest,
        standard=standard,
        risk=risk,
        override=override,
        checklist=tuple(checked),
    )
    return _decided(session, version, "approve", reason, scope, as_, terms, seen)


def request_changes(version: str, /, *, session: Session, reason: Why, seen: Seen = "", as_: As = None) -> Reply:
    """Sign what has to change before a version can be approved; approvals before it count no more.

    Args:
        version: MODEL:V
    """
    return _decided(session, version, "request_changes", reason, "serve", as_, seen=seen)


def reject(
    version: str, /, *, session: Session, reason: Why, scope: Scope = "serve", seen: Seen = "", as_: As = None
) -> Reply:
    """Sign that a version may not be served; takes an approval back.

    Args:
        version: MODEL:V
        scope: Written down; a rejection holds for every scope.
    """
    return _decided(session, version, "reject", reason, scope, as_, seen=seen)


def revoke(version: str, /, *, session: Session, reason: Why, as_: As = None) -> Reply:
    """Take all approvals of a version back; whatever it serves stops within two seconds.

    Args:
        version: MODEL:V
    """
    return _decided(session, version, "revoke", reason, "serve", as_)


def _decided(
    session: Flags, name: str, decision: Said, reason: str, scope: Scope, as_: str | None, terms: Terms | None = None,
    seen: str = "",
) -> Reply:  # fmt: skip
    project, actor = session.project, acting(as_)
    database, keys = Database(project.database), Keys.find()
    said = decide(project, database, actor, keys, name, decision, reason, scope, terms=terms, seen=seen)
    version, predicate = said.version, said.predicate
    mark = " (self-approved: author and reviewer are one person)" if predicate.self_approved else ""
    word = "approved" if decision == "approve" else TAKEN[decision]
    document = {
        **msgspec.to_builtins(version), "label": version.label, "decision": decision, "scope": scope,
        "signed_by": actor, "self_approved": predicate.self_approved, "evaluation": predicate.evaluation,
        "approval": str(said.path), "expires": predicate.expires, "risk": predicate.risk, "missing": said.missing,
        "mlflow": said.told or None, "diff": predicate.diff, "loadtest": predicate.loadtest,
        "standard": predicate.standard, "override": predicate.override,
    }  # fmt: skip
    text = [f"{version.name} {version.label} is {word} by {actor}{mark}", f"signed in {said.path}"]
    if predicate.override is not None:
        text.append(f"an override until {predicate.expires}: {predicate.override}")
    if said.missing:
        text.append(f"it may not be served yet: {said.missing}")
    live = serving(project, trust_of(project)).get(version.package_digest, [])
    if said.told:
        text.append(said.told)
    if decision == "revoke":
        document["instead"] = instead = {place: _instead(project, version, place) for place in live}
        text += [f"{place}: {who} answers instead" for place, who in instead.items()]
    step = f"interlock review {version.name}" if said.missing else _after(project, version, decision, scope, live)
    return Reply(document, text, step)


def _instead(project: Project, version: Version, place: str) -> str:
    """Who answers at `ENDPOINT/ARM` from now on."""
    endpoint, arm = place.split("/")
    routes, trust = RouteStore(project.routes), trust_of(project)
    route = routes.read(endpoint, trust, past=True)
    champion, before = route.arm(CHAMPION), route.standby
    if arm.startswith("shadow"):
        return "nobody, for nobody saw its answers:"
    if champion.package_digest != version.package_digest:
        return f"the champion, {champion.model}:{champion.version},"
    fallback = "nobody" if isinstance(route.parameters.fallback, str) else "the fixed fallback"
    if before is None or route.parameters.on_revoked == "fallback":
        return fallback
    author = verify(PackageStore(project.packages).find(before.package_digest), before.package_digest).manifest.author
    decisions, now = read_decisions(project.approvals, before.package_digest, trust), SystemClock().now()
    try:
        admitted(routes, route, before.package_digest, decisions, author.name, "serve", trust, now)
    except NotApproved:
        return fallback
    return f"the champion before, {before.model}:{before.version},"


def _after(project: Project, version: Version, decision: str, scope: Scope, live: list[str]) -> str:
    """The next step: deploy what was approved, take out what was rejected."""
    trust = trust_of(project)
    who = next((key.name for key in trust.keys if "operator" in key.roles), "NAME")
    if decision != "approve":
        steps = [place.split("/") for place in live]
        routes = RouteStore(project.routes)

        def step(at: str, arm: str) -> str:
            if arm != CHAMPION:
                return f"retire {at} {arm}"
            before = routes.read(at, trust, past=True).standby
            return f"rollback {at}" if before else f"deploy {version.model}:V --to {at} --as champion"

        words = [step(at, arm) for at, arm in steps]
        return "\n".join(f"interlock {word} --as {who}" for word in words)
    if scope == "shadow":
        return f"interlock versions show {version.name}"
    arm = "challenger --weight 10%" if serving(project, trust) else "champion"
    return f"interlock deploy {version.name} --to {version.model} --as {arm} --as {who}"


def _decide_lines(version: Version, may: Sequence[str], seen: str) -> str:
    """The exact lines to type, in the name of somebody who may."""
    if not may:
        return "interlock keys generate rita\ninterlock users add rita --role reviewer"
    why = shlex.quote("the reason")
    said = f"{version.name} --as {may[0]} --seen {seen} --reason {why}"
    return "\n".join(f"interlock {word} {said}" for word in ("approve", "reject"))
