"""`interlock predictions` and `interlock reconcile`: the prediction log, and the proof that it is whole."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import msgspec

from interlock.cli.moments import moment
from interlock.cli.output import Columns, Reply, items
from interlock.cli.session import Session
from interlock.core.errors import NotFound, Usage
from interlock.core.project import Project, snake
from interlock.predlog.reconcile import Held, Reconciliation, read_held
from interlock.predlog.reconcile import reconcile as compare
from interlock.predlog.recorder import Backlog, backlog
from interlock.registry.routes import RouteStore
from interlock.release.users import trust_of
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.port import Warehouse

SHOWN = ("received_at", "prediction_id", "row", "unit_id", "arm", "version", "outcome")
LOOK_SECONDS = 0.3
SLACK_SECONDS = 3.0
"""On top of TIMEOUT_SECOND: for so long a request can have been under way, at the most."""

ROWS = """
select * from interlock.TABLE where received_at >= $since::timestamptz and (WHERE)
order by received_at desc, "row" limit $rows
"""


def predictions(endpoint: str, /, *, session: Session, since: str = "", where: str = "true", limit: int = 20) -> Reply:
    """Show rows of an endpoint's prediction log, the newest first.

    Args:
        endpoint: The endpoint.
        since: ISO time with an offset, or how long ago: 30s, 15m, 1h, 2d.
        where: An SQL condition over the columns, as in: outcome <> 'answered'.
        limit: How many rows.
    """
    warehouse = log_of(session.project, endpoint)
    sql = ROWS.replace("TABLE", f"predictions_{snake(endpoint)}").replace("WHERE", where)
    table = warehouse.query(sql, {"since": moment("--since", since or "1970-01-01T00:00:00Z"), "rows": limit})
    answers = tuple(name for name in table.column_names if name.startswith("out_"))
    rows = table.to_pylist()
    step = f"interlock explain {rows[0]['prediction_id']}" if rows else f"interlock predict {endpoint} --sample"
    return items(rows, (*SHOWN, *answers), empty="no such rows", next=step)


def reconcile(endpoint: str, /, *, session: Session, ids: Path | None = None, wait: float = 0.0) -> Reply:
    """Prove that the log is whole: no row doubled or missing, no number of a gateway lost, every id you hold there.

    Args:
        endpoint: The endpoint.
        ids: File with a prediction id a line, or JSON lines with prediction_id and rows: answers that a client holds.
        wait: Give the recorder up to so many seconds to write what is in the journals.
    """
    project, held = session.project, _held(ids)
    timeout = RouteStore(project.routes).read(endpoint, trust_of(project)).parameters.timeout_second
    end = time.monotonic() + wait
    warehouse = _awaited(project, endpoint, end)

    def ask(sql: str, parameters: Any) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = warehouse.query(sql, parameters).to_pylist()
        return rows

    while True:
        waiting = backlog(project.journals, warehouse.marks())
        beats = "interlock.gateways" in {one.name for one in warehouse.tables()}
        found = compare(ask, endpoint, held, patience=timeout + SLACK_SECONDS, heartbeats=beats)
        settled = found.whole and not waiting.segments
        if settled or time.monotonic() >= end:
            return _told(found, waiting)
        time.sleep(LOOK_SECONDS)


def _awaited(project: Project, endpoint: str, end: float) -> Warehouse:
    """See `log_of`; an endpoint that is new has its log with the recorder's first batch."""
    while True:
        try:
            return log_of(project, endpoint)
        except NotFound:
            if time.monotonic() >= end:
                raise
        time.sleep(LOOK_SECONDS)


def _held(file: Path | None) -> list[Held]:
    try:
        return read_held(file.read_text(encoding="utf-8")) if file else []
    except (OSError, ValueError) as error:
        raise Usage(f"--ids {file}: {error}", next="one prediction id a line") from None


def _told(found: Reconciliation, waiting: Backlog) -> Reply:
    document = {**msgspec.to_builtins(found), "whole": found.whole, "backlog": msgspec.to_builtins(waiting)}
    gateways = msgspec.to_builtins(found.gateways)
    text = (
        f"{found.predictions} predictions, {found.rows} rows",
        f"{found.duplicates} doubled, {found.incomplete} incomplete, {found.lost} lost, {found.in_flight} under way",
        f"{found.missing} missing of {found.checked} ids",
        f"{waiting.segments} segment(s) wait for the recorder, {waiting.quarantined} in quarantine",
        Columns(gateways, ("gateway", "last_seq", "recorded", "final", "lost", "in_flight")),
        *(f"missing: {one}" for one in found.missing_ids[:20]),
        "the log is whole" if found.whole else "the log is NOT whole",
    )
    step = "" if found.whole else "interlock doctor"
    if waiting.segments and not found.whole:
        step = f"interlock reconcile {found.endpoint} --wait 10"
    return Reply(document, text, step, failed=not found.whole)


def log_of(project: Project, endpoint: str) -> Warehouse:
    """The warehouse, in which the endpoint has a log.

    Raises:
        NotFound: no prediction of this endpoint was recorded yet.
    """
    warehouse = open_warehouse(project.warehouse, read_only=True)
    if f"interlock.predictions_{snake(endpoint)}" not in {one.name for one in warehouse.tables()}:
        raise NotFound(
            f"no prediction of an endpoint {endpoint} is in the warehouse yet",
            next=f"make one: interlock predict {endpoint} --sample",
        )
    return warehouse
