"""`interlock schedules`: training on a clock."""

from __future__ import annotations

from typing import Any

import msgspec

from interlock.cli.identity import As, somebody
from interlock.cli.output import Columns, Reply, cell, items
from interlock.cli.session import Flags, Session
from interlock.cli.train import Params, Variables, run_spec, trusted_author
from interlock.jobs.schedules import CatchUp, Schedule, Schedules
from interlock.release import audit
from interlock.store.database import Database

COLUMNS = ("name", "cron", "zone", "state", "next_tick", "priority", "catch_up", "author")


def list_schedules(*, session: Session) -> Reply:
    """List schedules with their next tick."""
    rows = msgspec.to_builtins(_schedules(session).all())
    step = "" if rows else "interlock schedules add NAME --cron '0 3 * * 1'"
    return items(rows, COLUMNS, empty="no schedules", next=step)


def show(name: str, /, *, session: Session, last: int = 20) -> Reply:
    """Show a schedule and what became of its last ticks.

    Args:
        name: The schedule's name.
        last: How many ticks.
    """
    schedules = _schedules(session)
    row = msgspec.to_builtins(schedules.get(name))
    ticks = msgspec.to_builtins(schedules.history(name, last))
    about = [f"{column:<12}{cell(row[column])}" for column in COLUMNS]
    table = Columns(ticks, ("tick_at", "state", "run_id")) if ticks else "no tick has come yet"
    return Reply({**row, "ticks": ticks}, (*about, table), "interlock jobs list")


def add(
    name: str,
    /,
    *,
    session: Session,
    cron: str,
    zone: str = "UTC",
    param: Params = (),
    var: Variables = (),
    extract: str = "",
    priority: int = 0,
    catch_up: CatchUp = "last",
    as_: As = None,
) -> Reply:
    """Train at every tick of a cron expression, as the person who adds it.

    Args:
        name: The schedule's name.
        cron: Five fields, or six with seconds first.
        zone: IANA zone in which it is read.
        extract: Train on [extracts.NAME].
        priority: Of waiting runs the one with the highest is next.
        catch_up: Of ticks that came while no worker lived, which make a run; all: the newest 24.
    """
    author = trusted_author(session.project, as_)
    spec = run_spec(session.project.settings(), param, var, extract)
    made = _schedules(session).add(name, cron, zone, spec, author, priority=priority, catch_up=catch_up)
    return _said(session, "add", author, None, made)


def pause(name: str, /, *, session: Session) -> Reply:
    """Make no more runs until `resume`.

    Args:
        name: The schedule's name.
    """
    before = _schedules(session).get(name)
    return _said(session, "pause", somebody(None), before, _schedules(session).pause(name))


def resume(name: str, /, *, session: Session) -> Reply:
    """Make runs again, from the next tick on.

    Args:
        name: The schedule's name.
    """
    before = _schedules(session).get(name)
    return _said(session, "resume", somebody(None), before, _schedules(session).resume(name))


def remove(name: str, /, *, session: Session) -> Reply:
    """Forget a schedule; its runs stay.

    Args:
        name: The schedule's name.
    """
    before = _schedules(session).get(name)
    _schedules(session).remove(name)
    _remember(session, "remove", somebody(None), before, None)
    return Reply({"name": name, "removed": True}, (f"schedule {name} is removed",), "interlock schedules list")


def _schedules(session: Flags) -> Schedules:
    return Schedules(Database(session.project.database))


def _remember(session: Flags, action: str, who: str, before: Schedule | None, after: Schedule | None) -> None:
    names = [one.name for one in (before, after) if one]
    was, now = (None if one is None else _told(one) for one in (before, after))
    audit.append(Database(session.project.database), who, f"schedule {action}", names[0], was, now)


def _told(schedule: Schedule) -> dict[str, Any]:
    """A schedule as the trail tells of it: without the next tick, which is no decision of anybody."""
    return {name: value for name, value in msgspec.to_builtins(schedule).items() if name != "next_tick"}


def _said(session: Flags, action: str, who: str, before: Schedule | None, schedule: Schedule) -> Reply:
    _remember(session, action, who, before, schedule)
    when = f"fires next at {schedule.next_tick}" if schedule.next_tick else "is paused"
    step = "interlock jobs list" if schedule.next_tick else f"interlock schedules resume {schedule.name}"
    return Reply(msgspec.to_builtins(schedule), (f"schedule {schedule.name} {when}",), step)
