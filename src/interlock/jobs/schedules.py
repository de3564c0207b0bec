"""Runs on a clock. A tick and the run it makes are one transaction, so any number of workers fire it once.

A tick that comes while the run of an earlier one is still open is skipped, and its history says so: a schedule that is
faster than its runs piles nothing up. What becomes of ticks that nobody saw in time is each schedule's `catch_up`.
"""

from __future__ import annotations

from collections import deque
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from cronsim import CronSim, CronSimError
from sqlalchemy import Connection, Row, delete, insert, select, update

from interlock.core.clock import Clock, SystemClock, iso, parse_time
from interlock.core.errors import Conflict, NotFound, Usage
from interlock.jobs.port import RunSpec
from interlock.jobs.records import OPEN, count_open, create_run
from interlock.store.database import Database
from interlock.store.tables import runs, schedules, ticks

LATEST = timedelta(seconds=60)
"""A tick that is seen later than this counts as missed."""
MOST = 24
"""So many runs of a schedule with `catch_up = "all"` are open at most; earlier missed ticks are dropped."""
CatchUp = Literal["none", "last", "all"]
"""Which of several ticks that were missed make a run; `all` also lets runs wait for each other, up to `MOST`."""


class Schedule(msgspec.Struct, frozen=True):
    """When which run is made. `cron` has five fields, or six with seconds first, read in the IANA zone `zone`."""

    name: str
    cron: str
    zone: str
    spec: RunSpec
    state: Literal["active", "paused"]
    author: str
    created_at: str
    priority: int
    catch_up: CatchUp
    seen_at: str
    """Ticks up to here are dealt with."""
    next_tick: str | None
    """None while it is paused."""


class Tick(msgspec.Struct, frozen=True):
    """What became of a tick. `run_id`: the run it made, or for which it was skipped; none if too many were waiting."""

    tick_at: str
    state: Literal["made", "skipped", "missed"]
    run_id: str | None


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
        for tick in CronSim(cron, local):
            if (
                found := tick.astimezone(UTC)
            ) > after:  # in the hour that comes twice CronSim may begin in the first one
                return found
    except (CronSimError, OverflowError):
        pass  # no expression, or none that comes true: said below
    raise Usage(
        f"{cron!r} is no cron expression that ever comes true",
        next="five fields, or six with seconds first: '0 3 * * 1' = Mondays at 3, '*/10 * * * * *' = every 10 s",
    )


def due_ticks(cron: str, zone: str, after: datetime, until: datetime, most: int) -> list[datetime]:
    """The last `most` ticks in (`after`, `until`], rising. Looks back in growing strides, so a long absence costs little."""
    stride = LATEST
    while True:
        start = max(after, until - stride)
        found: deque[datetime] = deque(maxlen=most)
        tick = next_tick(cron, zone, start)
        while tick <= until:
            found.append(tick)
            tick = next_tick(cron, zone, tick)
        if len(found) == most or start == after:
            return list(found)
        stride *= 4


class Schedules:
    """The schedules of a project, in the control database."""

    def __init__(self, database: Database, clock: Clock | None = None, *, waiting: int = 100) -> None:
        self._database = database
        self._clock = clock or SystemClock()
        self._waiting = waiting

    def add(
        self,
        name: str,
        cron: str,
        zone: str,
        spec: RunSpec,
        author: str,
        *,
        priority: int = 0,
        catch_up: CatchUp = "last",
    ) -> Schedule:
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
            values: dict[str, Any] = {"name": name, "cron": cron, "zone": zone, "spec": text, "author": author}
            values |= {"state": "active", "created_at": iso(now), "seen_at": iso(now)}
            connection.execute(insert(schedules).values(**values, priority=priority, catch_up=catch_up))
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

    def history(self, name: str, limit: int) -> list[Tick]:
        """What became of the last ticks, the newest first."""
        query = select(ticks.c.tick_at, ticks.c.state, ticks.c.run_id).where(ticks.c.schedule == name)
        with self._database.read() as connection:
            rows = connection.execute(query.order_by(ticks.c.tick_at.desc()).limit(limit)).all()
        return [Tick(**row._mapping) for row in rows]

    def pause(self, name: str) -> Schedule:
        """Make no more runs until `resume`."""
        return self._set(name, state="paused")

    def resume(self, name: str) -> Schedule:
        """Make runs again, from the next tick on: what came during the pause was not missed but called off."""
        return self._set(name, state="active", seen_at=max(iso(self._clock.now()), self.get(name).seen_at))

    def remove(self, name: str) -> None:
        """Forget the schedule and its ticks. Its runs stay."""
        self.get(name)
        with self._database.write() as connection:
            connection.execute(delete(schedules).where(schedules.c.name == name))
            connection.execute(delete(ticks).where(ticks.c.schedule == name))

    def fire(self, now: datetime) -> list[str]:
        """Deal with the ticks that have come since the last time; the ids of the runs made."""
        with self._database.read() as connection:
            active = connection.execute(select(schedules).where(schedules.c.state == "active")).all()
        due = [row.name for row in active if next_tick(row.cron, row.zone, parse_time(row.seen_at)) <= now]
        return [run_id for name in due for run_id in self._fire(name, now)]

    def _fire(self, name: str, now: datetime) -> list[str]:
        with self._database.write() as connection:
            row = connection.execute(select(schedules).where(schedules.c.name == name)).one_or_none()
            if row is None or row.state != "active":  # changed since we looked
                return []
            most = MOST if row.catch_up == "all" else 1
            due = due_ticks(row.cron, row.zone, parse_time(row.seen_at), now, most)
            if not due:  # another worker was first
                return []
            connection.execute(update(schedules).where(schedules.c.name == name).values(seen_at=iso(due[-1])))
            if row.catch_up == "none" and due[-1] < now - LATEST:
                _book(connection, name, due[-1], "missed", None)
                return []
            mine = select(runs.c.id).where(runs.c.schedule == name, runs.c.state.in_(OPEN)).order_by(runs.c.created_at)
            going = list(connection.scalars(mine))
            made: list[str] = []
            for tick in due:
                if len(going) + len(made) >= most or count_open(connection) >= self._waiting:
                    _book(connection, name, tick, "skipped", going[0] if going else None)
                    continue
                made.append(self._make(connection, row))
                _book(connection, name, tick, "made", made[-1])
            return made

    def _make(self, connection: Connection, row: Row[Any]) -> str:
        spec, now = msgspec.json.decode(row.spec, type=RunSpec), iso(self._clock.now())
        return create_run(connection, spec, row.author, now, priority=row.priority, schedule=row.name)

    def _set(self, name: str, **values: str) -> Schedule:
        with self._database.write() as connection:
            connection.execute(update(schedules).where(schedules.c.name == name).values(values))
        return self.get(name)


def _book(connection: Connection, name: str, tick: datetime, state: str, run_id: str | None) -> None:
    connection.execute(insert(ticks).values(schedule=name, tick_at=iso(tick), state=state, run_id=run_id))


def _schedule(row: Row[Any], now: datetime) -> Schedule:
    tick = iso(next_tick(row.cron, row.zone, now)) if row.state == "active" else None
    spec = msgspec.json.decode(row.spec, type=RunSpec)
    return Schedule(**{**row._mapping, "spec": spec}, next_tick=tick)
