"""Overrides that nobody has reviewed: an alert from the moment one is in force until a revision without one follows it."""

from __future__ import annotations

from datetime import datetime, timedelta

from interlock.core.clock import iso, parse_time
from interlock.core.project import Project
from interlock.core.trust import read_trust
from interlock.monitoring import alerts
from interlock.monitoring.drift import Verdict
from interlock.monitoring.readings import Reading
from interlock.registry.routes import RouteStore
from interlock.store.database import Database

MONITOR = "override:hour"


def watch_overrides(project: Project, database: Database, endpoint: str, now: datetime) -> list[Reading]:
    """Look whether the route rests on an override; the readings if it does, or if it did at the pass before.

    `value`: hours since it was signed; -1 when it is gone. It counts at once for two windows, so that nobody waits an hour
    to be told.
    """
    trust = read_trust(project.trust, project.root_fingerprint())
    route = RouteStore(project.routes).read(endpoint, trust, past=True)
    if route.override is None and not any(row.monitor == MONITOR for row in alerts.listed(database, endpoint)):
        return []
    since, hour = parse_time(route.time), now.replace(minute=0, second=0, microsecond=0)
    starts = {since - timedelta(hours=1), since, max(since, hour)} if route.override else {max(since, hour)}
    value = (now - since) / timedelta(hours=1) if route.override else -1.0
    verdict: Verdict = "alert" if route.override else "ok"
    until = f" until {route.override.until}" if route.override else ""
    detail = {"method": f"revision {route.revision} by {route.author}{until}", "rows": 0, "counts": []}
    found = [
        Reading(endpoint, MONITOR, "", iso(start), "hour", value, 0.0, 0, verdict, detail, None, iso(now))
        for start in sorted(starts)
    ]
    alerts.take(database, found, now)
    return found
