"""`interlock schedules`: training on a clock."""

from __future__ import annotations

import msgspec

from interlock.cli.identity import As
from interlock.cli.output import Columns, Reply, cell, items
from interlock.cli.session import Flags, Session
from interlock.cli.train import Params, Variables, run_spec, trusted_author
from interlock.jobs.schedules import CatchUp, Schedule, Schedules
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
    return _said(_schedules(session).add(name, cron, zone, spec, author, priority=priority, catch_up=catch_up))


def pause(name: str, /, *, session: Session) -> Reply:
    """Make no more runs until `resume`.

    Args:
        name: The schedule's name.
    """
    return _said(_schedules(session).pause(name))


def resume(name: str, /, *, session: Session) -> Reply:
    """Make runs again, from the next tick on.

    Args:
        name: The schedule's name.
    """
    return _said(_schedules(session).resume(name))


def remove(name: str, /, *, session: Session) -> Reply:
    """Forget a schedule; its runs stay.

    Args:
        name: The schedule's name.
    """
    _schedules(session).remove(name)
    return Reply({"name": name, "removed": True}, (f"schedule {name} is removed",), "interlock schedules list")


def _schedules(session: Flags) -> Schedules:
    return Schedules(Database(session.project.database))


def _said(schedule: Schedule) -> Reply:
    when = f"fires next at {schedule.next_tick}" if schedule.next_tick else "is paused"
    step = "interlock jobs list" if schedule.next_tick else f"interlock schedules resume {schedule.name}"
    return Reply(msgspec.to_builtins(schedule), (f"schedule {schedule.name} {when}",), step)
