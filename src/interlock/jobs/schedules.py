"""Runs on a clock. A tick and the run it makes are one transaction, so any number of workers fire it once.

A missed tick (no worker lived, or all slept) is skipped, not made up for. So is a tick that comes while the run of an
earlier one is still open: a schedule that is faster than its runs piles nothing up.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from sqlalchemy import Row, delete, insert, select, update

from interlock.core.clock import Clock, SystemClock, iso, parse_time
from interlock.core.errors import Conflict, NotFound, Usage
from interlock.jobs.port import RunSpec
from interlock.jobs.records import OPEN, create_run
from interlock.store.database import Database
from interlock.store.tables import runs, schedules, ticks

LATEST = timedelta(seconds=60)
"""A tick that is seen later than this counts as missed."""


class Schedule(msgspec.Struct, frozen=True):
    """When which run is made. `cron` has five fields, or six with seconds first, read in the IANA zone `zone`."""

    name: str
    cron: str
    zone: str
    spec: RunSpec
    state: Literal["active", "paused"]
    author: str
    created_at: str
    next_tick: str | None
    """None while it is paused."""


def next_tick(cron: str, zone: str, after: datetime) -> datetime:
    """The first tick strictly after `after`, in UTC.

    Raises:
        Usage: no cron expression, no zone, or an expression that never comes true.
    """
    try:
        local = after.astimezone(ZoneInfo(zone))
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise Usage(f"{zone!r} is no time zone", next="use an IANA name: Europe/Berlin, UTC") from error
    try:
        return next(CronSim(cron, local)).astimezone(UTC)
    except (CronSimError, StopIteration) as error:
        raise Usage(
            f"{cron!r} is no cron expression that ever comes true",
            next="five fields, or six with seconds first: '0 3 * * 1' = Mondays at 3, '*/10 * * * * *' = every 10 s",
        ) from error


def due_tick(cron: str, zone: str, after: datetime, until: datetime) -> datetime | None:
    """The last tick in (`after`, `until`], if there is one."""
    found, tick = None, next_tick(cron, zone, after)
    while tick <= until:
        found, tick = tick, next_tick(cron, zone, tick)
    return found


class Schedules:
    """The schedules of a project, in the control database."""

    def __init__(self, database: Database, clock: Clock | None = None) -> None:
        self._database = database
        self._clock = clock or SystemClock()

    def add(self, name: str, cron: str, zone: str, spec: RunSpec, author: str) -> Schedule:
        """A new schedule, active from now on.

        Raises:
            Usage: cron or zone cannot be read.
            Conflict: the name is taken.
        """
        now = self._clock.now()
        next_tick(cron, zone, now)
        with self._database.write() as connection:
            if connection.scalar(select(schedules.c.name).where(schedules.c.name == name)) is not None:
                raise Conflict(
                    f"there is a schedule {name} already", next=f"remove it: interlock schedules remove {name}"
                )
            text = msgspec.json.encode(spec).decode()
            values = {"name": name, "cron": cron, "zone": zone, "spec": text, "author": author}
            connection.execute(insert(schedules).values(state="active", created_at=iso(now), **values))
        return self.get(name)

    def get(self, name: str) -> Schedule:
        """The schedule.

        Raises:
            NotFound: there is none of that name.
        """
        for schedule in self.all():
            if schedule.name == name:
                return schedule
        raise NotFound(f"there is no schedule {name}", next="list them: interlock schedules list")

    def all(self) -> list[Schedule]:
        """Every schedule with its next tick, by name."""
        now = self._clock.now()
        with self._database.read() as connection:
            return [_schedule(row, now) for row in connection.execute(select(schedules).order_by(schedules.c.name))]

    def pause(self, name: str) -> Schedule:
        """Make no more runs until `resume`."""
        return self._set(name, "paused")

    def resume(self, name: str) -> Schedule:
        """Make runs again, from the next tick on."""
        return self._set(name, "active")

    def remove(self, name: str) -> None:
        """Forget the schedule. Its runs stay."""
        self.get(name)
        with self._database.write() as connection:
            connection.execute(delete(schedules).where(schedules.c.name == name))

    def fire(self, after: datetime, until: datetime) -> list[str]:
        """Make the runs that are due in (`after`, `until`]; their ids.

        Of several ticks of one schedule only the last one counts: the others were missed.
        """
        start = max(after, until - LATEST)
        with self._database.read() as connection:
            active = connection.execute(select(schedules).where(schedules.c.state == "active")).all()
        made = []
        for row in active:
            tick = due_tick(row.cron, row.zone, max(start, parse_time(row.created_at)), until)
            if tick is not None and (run_id := self._make(row, tick)) is not None:
                made.append(run_id)
        return made

    def _make(self, row: Row[Any], tick: datetime) -> str | None:
        mark = {"schedule": row.name, "tick_at": iso(tick)}
        with self._database.write() as connection:
            made = connection.scalar(select(ticks.c.run_id).filter_by(**mark))
            busy = connection.scalar(
                select(runs.c.id).where(runs.c.schedule == row.name, runs.c.state.in_(OPEN)).limit(1)
            )
            if made is not None or busy is not None:
                return None
            spec = msgspec.json.decode(row.spec, type=RunSpec)
            run_id = create_run(connection, spec, row.author, row.name, iso(self._clock.now()))
            connection.execute(insert(ticks).values(run_id=run_id, **mark))
            return run_id

    def _set(self, name: str, state: Literal["active", "paused"]) -> Schedule:
        with self._database.write() as connection:
            connection.execute(update(schedules).where(schedules.c.name == name).values(state=state))
        return self.get(name)


def _schedule(row: Row[Any], now: datetime) -> Schedule:
    tick = iso(next_tick(row.cron, row.zone, now)) if row.state == "active" else None
    spec = msgspec.json.decode(row.spec, type=RunSpec)
    return Schedule(**{**row._mapping, "spec": spec}, next_tick=tick)
