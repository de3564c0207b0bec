"""Alerts in the control database: one open row an (endpoint, monitor, slice), moved by readings and by people."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select, update

from interlock.core.clock import iso, parse_time
from interlock.core.errors import Conflict, NotFound
from interlock.core.ids import uuid7_text
from interlock.monitoring import readings
from interlock.monitoring.drift import Check
from interlock.monitoring.readings import Reading
from interlock.monitoring.states import OPEN, Acked, Alert, Event, Observed, Resolved, Silenced, State, step
from interlock.store.database import Database
from interlock.store.tables import alerts

_FIRST_CHECK = {
    "drift": "did the source of this input change? compare the counts a bin: interlock monitors {endpoint} --json",
    "score": "did an input drift too? if none did, look at what was deployed: interlock audit --subject {endpoint}",
    "skew": "which values differ, and who was first to change? interlock skew MODEL:V --endpoint {endpoint}",
    "class": "was THRESHOLD changed? interlock params {endpoint}",
    "approval-expiry": "is it still good? interlock review {slice}; then approve it again, before ON_EXPIRY acts",
    "changed-decisions": "which rows, and is it skew or drift? interlock realised {endpoint}; interlock skew MODEL:V",
    "override": "what did it change? interlock audit --subject {endpoint}; make the change again with a diff, or take it back",
    "volume": "does the gateway answer, and do clients call it? interlock status",
}
"""The first thing to look at, by kind of monitor."""


class Row(msgspec.Struct, frozen=True):
    """An alert as it is kept. `open`: 1 or None. `untold`: 1 while the webhook has not heard of the present state."""

    id: str
    endpoint: str
    monitor: str
    slice: str
    state: State
    window_start: str
    value: float | None
    threshold: float
    n: int
    detail: str
    version: int | None
    since: str
    changed_at: str
    changed_by: str
    silenced_until: str | None
    open: int | None
    untold: int | None

    @property
    def sentence(self) -> str:
        """What, since when, number against threshold, n, version."""
        kind, window, *subject = self.monitor.split(":", 2)
        if kind == "approval-expiry":
            end = parse_time(self.window_start) - timedelta(days=self.value or 0.0)
            return f"the approval of {self.slice} at {self.endpoint} ends about {iso(end)[:16]}: {self.state}"
        if kind == "changed-decisions":
            said = msgspec.json.decode(self.detail)["method"]
            return f"{self.slice} at {self.endpoint} is {self.state} since {self.since[:16]}: {said}"
        if kind == "override":
            said = msgspec.json.decode(self.detail)["method"]
            return f"override: {self.endpoint} needs a review, {said}: {self.state}"
        number = "no value" if self.value is None else f"{self.value:.3g} against {self.threshold:.3g}"
        if kind == "skew":
            number += f" ({msgspec.json.decode(self.detail)['method']})"
        return (
            f"{' of '.join([kind, *subject])} at {self.endpoint} is {self.state} since {self.since[:10]}: "
            f"{number} in the {window} from {self.window_start[:16]} (n = {self.n}, version {self.version or 'none'})"
        )

    @property
    def first_check(self) -> str:
        """What to look at first."""
        return _FIRST_CHECK[self.monitor.partition(":")[0]].format(endpoint=self.endpoint, slice=self.slice)

    def alert(self) -> Alert:
        """The state machine's view of it."""
        return Alert(
            endpoint=self.endpoint,
            monitor=self.monitor,
            slice=self.slice,
            state=self.state,
            since=parse_time(self.since),
            window_start=parse_time(self.window_start),
            check=Check(value=self.value, threshold=self.threshold, n=self.n, verdict="alert", detail=self.detail),
            changed_by=self.changed_by,
            silenced_until=parse_time(self.silenced_until) if self.silenced_until else None,
        )


def take(database: Database, found: Iterable[Reading], at: datetime) -> None:
    """Keep readings, and let those that are new move their alerts."""
    with database.write() as connection:
        for reading in found:
            if readings.keep(connection, reading):
                observe(connection, reading, at)


def observe(connection: Connection, reading: Reading, at: datetime) -> None:
    """Let a new window's reading move the alert of its slice, in the caller's write transaction."""
    key = (alerts.c.endpoint, alerts.c.monitor, alerts.c.slice)
    mine = [column == getattr(reading, column.name) for column in key]
    found = connection.execute(select(alerts).where(*mine).order_by(alerts.c.id.desc()).limit(1)).first()
    before = Row(**found._mapping) if found else None
    alert = before.alert() if before else Alert(endpoint=reading.endpoint, monitor=reading.monitor, slice=reading.slice)
    taken = step(alert, Observed(at, parse_time(reading.window_start), reading.check))
    was_open, is_open = alert.state in OPEN, taken.alert.state in OPEN
    if taken.alert == alert or not (was_open or is_open):
        return
    of_reading = ("window_start", "value", "threshold", "n", "version")
    values = _moved(taken.alert) | {name: getattr(reading, name) for name in of_reading}
    values["detail"] = reading.check.detail
    if taken.alert.state != alert.state:
        values |= {"changed_at": iso(at), "untold": 1 if taken.notify else None}
    elif taken.notify:
        values["untold"] = 1
    if before is not None and was_open:
        connection.execute(update(alerts).where(alerts.c.id == before.id).values(values))
    else:
        named = {column.name: getattr(reading, column.name) for column in key}
        new = {"id": uuid7_text(), "since": reading.window_start}
        connection.execute(insert(alerts).values(values | named | new))


def act(connection: Connection, alert_id: str, event: Acked | Silenced | Resolved, at: datetime) -> tuple[Row, Row]:
    """What a person does to an alert, in the caller's write transaction; the alert before and after.

    Raises:
        NotFound: there is no such alert.
        Conflict: it does not apply to the state it is in.
    """
    found = connection.execute(select(alerts).where(alerts.c.id == alert_id)).first()
    if found is None:
        raise NotFound(f"no alert {alert_id}", next="see them: interlock alerts")
    before = Row(**found._mapping)
    taken = step(before.alert(), event)
    if taken.alert == before.alert() or before.open is None:
        raise Conflict(
            f"alert {alert_id} is {before.state}: {_impossible(event)}", next="see them: interlock alerts list --all"
        )  # fmt: skip
    values = _moved(taken.alert) | {"changed_at": iso(at), "untold": None}
    connection.execute(update(alerts).where(alerts.c.id == alert_id).values(values))
    return before, msgspec.structs.replace(before, **values)


def _moved(alert: Alert) -> dict[str, Any]:
    """The columns that a step of the state machine sets."""
    return {
        "state": alert.state,
        "changed_by": alert.changed_by,
        "silenced_until": iso(alert.silenced_until) if alert.silenced_until else None,
        "open": 1 if alert.state in OPEN else None,
    }


def _impossible(event: Event) -> str:
    match event:
        case Acked():
            return "only a firing one can be acknowledged"
        case _:
            return "only an open one can be silenced or resolved"


def silence(hours: float, at: datetime) -> Silenced:
    """Nobody is told for so long."""
    return Silenced(at + timedelta(hours=hours))


def listed(database: Database, endpoint: str = "", *, closed: bool = False) -> list[Row]:
    """Open alerts, or closed ones too; the latest first."""
    query = select(alerts).order_by(alerts.c.since.desc(), alerts.c.id.desc())
    if endpoint:
        query = query.where(alerts.c.endpoint == endpoint)
    if not closed:
        query = query.where(alerts.c.open == 1)
    with database.read() as connection:
        return [Row(**row._mapping) for row in connection.execute(query)]
