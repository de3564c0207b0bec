"""The complete state of an endpoint at some moment, from signed files and the database alone."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

import msgspec
from sqlalchemy import Row, select

from interlock.core.assignment import share
from interlock.core.clock import iso, parse_time
from interlock.core.errors import FourEyes, NotApproved, NotFound, Tampered
from interlock.core.policy import Risk
from interlock.core.project import Project
from interlock.core.signing import peek
from interlock.core.trust import TrustedKey, TrustRoot, kept_revisions, open_trust
from interlock.model.package import read_manifest
from interlock.registry.approvals import Approval, Predicate, Scope, open_approval, require_quorum
from interlock.registry.packages import PackageStore, package_hex
from interlock.registry.routes import Arm, ExperimentRef, Parameters, RouteDocument, RouteStore, Rule, Standby
from interlock.release import audit
from interlock.release.acts import TRUST, told_by
from interlock.release.arms import percent
from interlock.release.proposals import SIGN
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.store.tables import alerts, experiments


class Served(msgspec.Struct, frozen=True):
    """A version and its part."""

    arm: str
    """An arm, `standby`, or a shadow's name."""
    version: str
    label: str
    package_digest: str
    percent: str | None
    """Share of the units; None: it answers no client."""
    approved: bool
    """Whether what was signed by then let it serve."""
    why: str
    """Who signed, or why it was not approved."""
    decisions: tuple[Predicate, ...]
    """Every decision about the package by then, the oldest first; with what each was judged by."""


class OpenAlert(msgspec.Struct, frozen=True):
    """An alert that was open; `state` is None where it has moved since."""

    id: str
    monitor: str
    slice: str
    since: str
    state: str | None


class State(msgspec.Struct, frozen=True):
    """An endpoint as it was at `at`."""

    endpoint: str
    at: str
    revision: int
    author: str
    reason: str
    time: str
    """When the revision was signed (for the first time); gateways obey within a second."""
    signed_by: tuple[str, ...]
    risk: Risk | None
    """The class of the change that this revision made; None: low."""
    diff: str | None
    override: str | None
    """Until when its parameters and rules are an emergency's; after that `parameters` and `rules` are those before."""
    served: tuple[Served, ...]
    parameters: Parameters
    pinned: None
    """Unknown: what a gateway's environment pins is known only while it runs."""
    rules: tuple[Rule, ...]
    experiment: ExperimentRef
    policy: dict[str, Any] | None
    """The experiment's frozen policy and, if it was decided by then, the decision; None: no experiment."""
    keys: tuple[TrustedKey, ...]
    """Valid then, by the trust root that was in force then."""
    alerts: tuple[OpenAlert, ...]


def as_of(project: Project, database: Database, endpoint: str, at: datetime) -> State:
    """The state of an endpoint at that moment.

    Raises:
        NotFound: it did not exist then.
        Tampered: a file of it was altered.
    """
    route = _route(project, database, endpoint, at)
    now, then = trust_of(project), trust_then(project, database, at)
    arms: list[tuple[str, Arm | Standby, Scope]] = [(arm.name, arm, "serve") for arm in route.arms]
    arms += [("standby", route.standby, "serve")] if route.standby else []
    arms += [(shadow.name, shadow, "shadow") for shadow in route.shadows]
    return State(
        endpoint=endpoint,
        at=iso(at),
        revision=route.revision,
        author=route.author,
        reason=route.reason,
        time=route.time,
        signed_by=tuple(RouteStore(project.routes).signers(route, now)),
        risk=route.risk,
        diff=route.diff,
        override=route.override.until if route.override else None,
        served=tuple(_served(project, name, one, scope, (now, then), at) for name, one, scope in arms),
        parameters=route.parameters,
        pinned=None,
        rules=route.rules,
        experiment=route.experiment,
        policy=_policy(database, route.experiment.id, iso(at)),
        keys=tuple(sorted((key for key in then.keys if key.valid_at(at)), key=lambda key: key.name)),
        alerts=_alerts(database, endpoint, at),
    )


def trust_then(project: Project, database: Database, at: datetime) -> TrustRoot:
    """The trust root that was in force: the trail tells when each revision came, and all of them are kept.

    Raises:
        Tampered: that revision is gone, or was not signed by the root keys that today's descend from.
    """
    root = trust_of(project)
    revision = 1 + sum(TRUST in told_by(entry) for entry in audit.entries(database, until=iso(at)))
    if revision >= root.revision:
        return root
    kept = kept_revisions(project.trust)
    if revision not in kept:
        raise Tampered(f"revision {revision} of the trust root is gone", next="restore .interlock/trust from a backup")
    data = kept[revision].read_bytes()
    claimed = msgspec.convert(peek(data, kept[revision].name), TrustRoot)
    open_trust(project.trust.read_bytes(), claimed.fingerprint, (kept[one].read_bytes() for one in sorted(kept)))
    return open_trust(data, claimed.fingerprint)


def _route(project: Project, database: Database, endpoint: str, at: datetime) -> RouteDocument:
    store, trust = RouteStore(project.routes), trust_of(project)
    signed = audit.entries(database, endpoint, action=SIGN)  # what waited for others came with the last of them
    came = {act: entry.at for entry in signed for act in told_by(entry)}
    for revision in range(store.current(endpoint), 0, -1):
        route = store.read(endpoint, trust, revision, past=True)
        if parse_time(came.get(f"{endpoint} revision {revision}", route.time)) <= at:
            return route.at(at)
    raise NotFound(
        f"there was no endpoint {endpoint} at {iso(at)} (today there are: {', '.join(store.endpoints()) or 'none'})",
        next="see when it was made: interlock audit --action deploy",
    )


def _served(
    project: Project, name: str, one: Arm | Standby, scope: Scope, trust: tuple[TrustRoot, TrustRoot], at: datetime
) -> Served:
    now, then = trust
    digest, decisions, why = one.package_digest, list[Approval](), ""
    for file in sorted((project.approvals / package_hex(digest)).glob("*.dsse.json")):
        data, what = file.read_bytes(), f"approval {file.name}"
        said = open_approval(data, now, what)
        if parse_time(said.predicate.time) <= at:
            try:
                decisions.append(open_approval(data, then, what))
            except NotApproved as error:  # so it was for everybody then
                decisions.append(said)
                why = error.message
    approved, found = _verdict(project, digest, decisions, scope, then, at)
    return Served(
        arm=name,
        version=f"{one.model}:{one.version}",
        label=one.label,
        package_digest=digest,
        percent=percent(share(one.ranges)) if isinstance(one, Arm) else None,
        approved=approved and not why,
        why=why or found,
        decisions=tuple(said.predicate for said in sorted(decisions, key=lambda said: said.predicate.time)),
    )


def _verdict(
    project: Project, digest: str, decisions: list[Approval], scope: Scope, then: TrustRoot, at: datetime
) -> tuple[bool, str]:
    author = read_manifest(PackageStore(project.packages).find(digest), digest).author.name
    try:
        told = require_quorum(decisions, digest, author, scope, then, at)
    except (NotApproved, FourEyes) as error:
        return False, error.message
    return True, "signed by " + ", ".join(f"{one.signer} on {one.predicate.time}" for one in told)


def _policy(database: Database, experiment: str, at: str) -> dict[str, Any] | None:
    with database.read() as connection:
        row: Row[Any] | None = connection.execute(select(experiments).where(experiments.c.id == experiment)).first()
    if row is None:
        return None
    decided = row.decided_at is not None and row.decided_at <= at
    names = ("decided_at", "decided_by", "decision", "reason")
    return {
        "policy": msgspec.json.decode(row.policy),
        **{name: getattr(row, name) for name in ("policy_digest", "started_at", "started_by")},
        **{name: getattr(row, name) if decided else None for name in names},
    }


def _alerts(database: Database, endpoint: str, at: datetime) -> tuple[OpenAlert, ...]:
    """An alert's id tells when it was opened; one that is closed was changed for the last time then."""
    with database.read() as connection:
        rows = connection.execute(select(alerts).where(alerts.c.endpoint == endpoint).order_by(alerts.c.id)).all()
    found = []
    for row in rows:
        opened = datetime.fromtimestamp((uuid.UUID(row.id).int >> 80) / 1000, UTC)
        moved = parse_time(row.changed_at) > at
        if opened <= at and (row.open or moved):
            found.append(OpenAlert(row.id, row.monitor, row.slice, row.since, None if moved else row.state))
    return tuple(found)
