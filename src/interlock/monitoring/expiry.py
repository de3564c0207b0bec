"""Approvals that end: an alert 14 days before, another 3 days and another 1 day before, for every version in a route."""

from __future__ import annotations

from datetime import datetime, timedelta

from sqlalchemy import select

from interlock.core.clock import iso
from interlock.core.errors import Expired, NotApproved, NotFound
from interlock.core.project import Project
from interlock.core.trust import read_trust
from interlock.model.package import read_manifest
from interlock.monitoring import alerts
from interlock.monitoring.drift import Verdict
from interlock.monitoring.readings import Reading
from interlock.registry.admission import admitted
from interlock.registry.approvals import Scope, end_of, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore, Shadow
from interlock.store.database import Database
from interlock.store.tables import alerts as table

KIND = "approval-expiry"
DAYS = (14, 3, 1)
NEVER = 36500.0


def watch_approvals(project: Project, database: Database, endpoint: str, now: datetime) -> list[Reading]:
    """Look when the approvals end by which an endpoint serves; the readings of those that do soon, or that had an alert.

    `value`: days since the end, so negative before it. Windows are hours, so an alert fires in the second hour.
    """
    left = _days_left(project, endpoint, now)
    query = select(table.c.monitor, table.c.slice).where(table.c.endpoint == endpoint, table.c.open == 1)
    with database.read() as connection:
        told = {(row.monitor, row.slice) for row in connection.execute(query) if row.monitor.startswith(KIND)}
    watched = {*left, *(name for _, name in told)}
    names = {(f"{KIND}:hour:{days}", name): days for days in DAYS for name in sorted(watched)}
    hour = iso(now.replace(minute=0, second=0, microsecond=0))
    found = []
    for (monitor, name), days in names.items():
        remaining = left.get(name, NEVER)  # one that serves no more has no end
        if remaining > days and (monitor, name) not in told:
            continue
        verdict: Verdict = "alert" if remaining <= days else "ok"
        detail = {"method": "days since the approval's end", "rows": 0, "counts": []}
        number = int(name.rpartition(":")[2])
        found.append(
            Reading(
                endpoint, monitor, name, hour, "hour", -remaining, -float(days), 0, verdict, detail, number, iso(now)
            )
        )
    alerts.take(database, found, now)
    return found


def _days_left(project: Project, endpoint: str, now: datetime) -> dict[str, float]:
    """Days until the approval of each version ends that an endpoint names."""
    routes, packages = RouteStore(project.routes), PackageStore(project.packages)
    trust = read_trust(project.trust, project.root_fingerprint())
    route = routes.read(endpoint, trust, past=True)
    standby = (route.standby,) if route.standby else ()
    left = {}
    for one in (*route.shadows, *standby, *route.arms):
        scope: Scope = "shadow" if isinstance(one, Shadow) else "serve"
        try:
            author = read_manifest(packages.find(one.package_digest), one.package_digest).author.name
        except NotFound:  # nobody serves it then; other monitors say so
            continue
        decisions = read_decisions(project.approvals, one.package_digest, trust)
        try:
            found = admitted(routes, route, one.package_digest, decisions, author, scope, trust, now)
            end = min((end for said in found if (end := end_of(said, trust))), default=None)
        except NotApproved as error:
            end = now if isinstance(error, Expired) else None  # what was taken back has no end: it is over
        left[f"{one.model}:{one.version}"] = (end - now) / timedelta(days=1) if end else NEVER
    return left
