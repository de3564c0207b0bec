"""`interlock monitors` and `interlock alerts`: the last numbers, and what people do about those that fired."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Literal

import msgspec

from interlock.cli.identity import As, somebody
from interlock.cli.output import Reply, items
from interlock.cli.session import Session
from interlock.core.clock import SystemClock
from interlock.core.errors import Usage
from interlock.monitoring import alerts as kept
from interlock.monitoring import readings
from interlock.monitoring.expiry import watch_approvals
from interlock.monitoring.notify import deliver, document
from interlock.monitoring.overrides import watch_overrides
from interlock.monitoring.passes import watch
from interlock.monitoring.realised import watch_changes
from interlock.monitoring.states import Acked, Resolved, Silenced
from interlock.registry.routes import RouteStore
from interlock.release import audit
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse


def monitors(endpoint: str, /, *, session: Session, run: bool = False, all: bool = False) -> Reply:
    """Show the last number of every monitor.

    Args:
        endpoint: The endpoint.
        run: Make a pass now instead of waiting for the next one.
        all: With --run: judge the last window too, though it is not over.
    """
    if all and not run:
        raise Usage("--all goes with --run", next=f"interlock monitors {endpoint} --run --all")
    project = session.project
    database = Database(project.database)
    if run:
        with closing(open_warehouse(project.warehouse, read_only=True)) as warehouse:
            new = watch(project, database, warehouse, endpoint, final=all)
            if endpoint in RouteStore(project.routes).endpoints():
                now = SystemClock().now()
                for look in (watch_approvals, watch_overrides):
                    new += look(project, database, endpoint, now)
                new += watch_changes(project, database, warehouse, endpoint, now)
        deliver(database, project.settings())
        session.progress(f"{len(new)} new readings")
    rows: list[dict[str, Any]] = msgspec.to_builtins(readings.latest(database, endpoint))
    settings = project.settings().monitors
    hint = "no window is over yet" if settings else "no [[monitors]] in interlock.toml"
    return items(
        rows,
        ("monitor", "window_start", "value", "threshold", "n", "verdict", "version"),
        empty=hint,
        next="interlock alerts" if rows else f"interlock monitors {endpoint} --run --all" if settings else "",
    )


def alerts(
    action: Literal["list", "ack", "silence", "resolve"] = "list",
    alert: str = "",
    /,
    *,
    session: Session,
    endpoint: str = "",
    all: bool = False,
    hours: float = 8.0,
    reason: str = "",
    as_: As = None,
) -> Reply:
    """List open alerts, or act on one.

    Args:
        action: ack takes a firing alert on; silence keeps it quiet for a time; resolve closes it.
        alert: The alert's id.
        endpoint: list: only alerts of this endpoint.
        all: list: closed ones too.
        hours: silence: for how long.
        reason: Why; goes into the audit trail.
    """
    database, settings = Database(session.project.database), session.project.settings()
    if action == "list":
        rows = [document(row, settings) for row in kept.listed(database, endpoint, closed=all)]
        columns = ("state", "monitor", "endpoint", "since", "value", "threshold", "n", "version", "id")
        first = next((row for row in rows if row["state"] == "FIRING"), None)
        return items(
            rows, columns, empty="no alert is open", next=f"interlock alerts ack {first['id']}" if first else ""
        )
    if not alert:
        raise Usage(f"{action} which alert?", next=f"interlock alerts {action} ID; the ids: interlock alerts")
    if not 0 < hours <= 24 * 365:
        raise Usage(f"--hours {hours}: more than 0, at most a year")
    who, at = somebody(as_), SystemClock().now()
    events: dict[str, Acked | Silenced | Resolved] = {
        "ack": Acked(who), "silence": kept.silence(hours, at), "resolve": Resolved(who),
    }  # fmt: skip
    with audit.transaction(database) as connection:
        before, after = kept.act(connection, alert, events[action], at)
        states = [
            {"state": row.state, "silenced_until": row.silenced_until} for row in (before, after)
        ]  # fmt: skip
        audit.append(connection, who, f"alert {action}", after.endpoint, states[0], states[1], reason)
    return Reply(document(after, settings), (after.sentence, f"first: {after.first_check}"), "interlock alerts")
