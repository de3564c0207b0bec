"""Readings in the control database: every number that a monitor found, once a window."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from interlock.core.clock import iso, parse_time
from interlock.core.settings import MonitorSettings
from interlock.monitoring.checks import Finding
from interlock.monitoring.drift import Check, Verdict
from interlock.monitoring.windows import BEGINNING, Unit
from interlock.store.database import Database
from interlock.store.tables import readings

HISTORY = 2000
"""Windows of its own past that a volume is compared with, at most."""


class Reading(msgspec.Struct, frozen=True):
    """One number. monitor: kind, window and what is watched, as in `drift:day:temp`; slice: empty, all rows.

    `n`: rows, or requests of a volume. `detail`: method, live rows of the window (`rows`), counts a bin, and the package
    whose profile has the bins.
    """

    endpoint: str
    monitor: str
    slice: str
    window_start: str
    window: Unit
    value: float | None
    threshold: float
    n: int
    verdict: Verdict
    detail: dict[str, Any]
    version: int | None
    at: str

    @property
    def check(self) -> Check:
        """The number with its verdict."""
        detail = msgspec.json.encode(self.detail).decode()
        return Check(value=self.value, threshold=self.threshold, n=self.n, verdict=self.verdict, detail=detail)


def name_of(monitor: MonitorSettings) -> str:
    """`drift:day`: what the names of its readings begin with."""
    return f"{monitor.kind}:{monitor.window}"


def _of(endpoint: str, name: str) -> ColumnElement[bool]:
    """The readings of one of the project's monitors."""
    all_of = or_(readings.c.monitor == name, readings.c.monitor.startswith(f"{name}:", autoescape=True))
    return and_(readings.c.endpoint == endpoint, all_of)


def reading_of(endpoint: str, monitor: MonitorSettings, found: Finding, at: datetime) -> Reading:
    """A finding as it is kept."""
    window, check = found.window, found.check
    detail = {"method": check.detail, "rows": window.rows, "counts": found.counts}
    if monitor.kind != "volume":
        detail["package_digest"] = window.package_digest
    return Reading(
        endpoint=endpoint,
        monitor=name_of(monitor) + (f":{found.subject}" if found.subject else ""),
        slice="",
        window_start=iso(window.start),
        window=monitor.window,
        value=check.value,
        threshold=check.threshold,
        n=window.requests if monitor.kind == "volume" else check.n,
        verdict=check.verdict,
        detail=detail,
        version=window.version,
        at=iso(at),
    )


def progress(database: Database, endpoint: str, monitor: str) -> tuple[datetime, datetime]:
    """Start of the last judged window that had rows, and when a window was last judged."""
    mine = _of(endpoint, monitor)
    with database.read() as connection:
        last = connection.scalar(select(func.max(readings.c.window_start)).where(mine, readings.c.n > 0))
        at = connection.scalar(select(func.max(readings.c.at)).where(mine))
    return parse_time(last) if last else BEGINNING, parse_time(at) if at else BEGINNING


def judged(database: Database, endpoint: str, monitor: str, since: datetime) -> dict[datetime, int]:
    """Windows from `since` on that have a reading, and the live rows they had then."""
    mine = _of(endpoint, monitor) & (readings.c.window_start >= iso(since))
    query = select(readings.c.window_start, readings.c.detail).where(mine)
    with database.read() as connection:
        return {
            parse_time(row.window_start): msgspec.json.decode(row.detail)["rows"] for row in connection.execute(query)
        }


def requests_of(database: Database, endpoint: str, monitor: str) -> dict[datetime, int]:
    """Requests of the latest windows that a volume monitor has judged."""
    query = (
        select(readings.c.window_start, readings.c.n)
        .where(_of(endpoint, monitor))
        .order_by(readings.c.window_start.desc())
        .limit(HISTORY)
    )
    with database.read() as connection:
        return {parse_time(row.window_start): row.n for row in connection.execute(query)}


def keep(connection: Any, reading: Reading) -> bool:
    """Write a reading over the one of the same window, if any; whether it is news: the newest window tells something.

    Late rows correct a number and are no news, but a window that was too small to tell may still tell.
    """
    mine = (
        (readings.c.endpoint == reading.endpoint)
        & (readings.c.monitor == reading.monitor)
        & (readings.c.slice == reading.slice)
    )
    query = select(readings.c.window_start, readings.c.verdict).where(mine).order_by(readings.c.window_start.desc())
    newest = connection.execute(query.limit(1)).first()
    values = msgspec.structs.asdict(reading) | {"detail": reading.check.detail}
    keys = ("endpoint", "monitor", "slice", "window_start")
    connection.execute(insert(readings).values(values).on_conflict_do_update(index_elements=keys, set_=values))
    if newest is None or reading.window_start > newest.window_start:
        return True
    return bool(reading.window_start == newest.window_start and newest.verdict == "too small")


def latest(database: Database, endpoint: str) -> list[Reading]:
    """The last reading of every monitor and slice of an endpoint."""
    newest = (
        select(readings.c.monitor, readings.c.slice, func.max(readings.c.window_start).label("window_start"))
        .where(readings.c.endpoint == endpoint)
        .group_by(readings.c.monitor, readings.c.slice)
        .subquery()
    )
    query = (
        select(readings)
        .join(
            newest,
            (readings.c.monitor == newest.c.monitor)
            & (readings.c.slice == newest.c.slice)
            & (readings.c.window_start == newest.c.window_start),
        )
        .where(readings.c.endpoint == endpoint)
        .order_by(readings.c.monitor, readings.c.slice)
    )
    with database.read() as connection:
        rows = connection.execute(query).all()
    return [Reading(**{**row._mapping, "detail": msgspec.json.decode(row.detail)}) for row in rows]
