"""`interlock data`: tables of your own in the warehouse."""

from __future__ import annotations

from typing import Annotated

import msgspec
from cyclopts import Parameter

from interlock.cli.identity import somebody
from interlock.cli.output import Columns, Reply, items
from interlock.cli.session import Flags, Session
from interlock.release import audit
from interlock.store.database import Database
from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.port import Warehouse
from interlock.warehouse.session import quoted


def add(
    source: str,
    /,
    *,
    session: Session,
    table: Annotated[str, Parameter(name="--as", help="The table; made when missing, else it gets the rows appended.")],
    replace: bool = False,
) -> Reply:
    """Load a CSV, Parquet or JSON-lines file, or the file at a URL, into a table.

    Args:
        source: Path or http(s) URL.
        replace: Put the file's rows in the place of those that are there.
    """
    warehouse = open_warehouse(session.project.warehouse, create=True)
    before = warehouse.snapshot()
    loaded = warehouse.load(
        table, source, replace=replace, progress=lambda rows: session.progress(f"  {rows} rows written")
    )
    said = {**msgspec.to_builtins(loaded), "source": source, "replace": replace}
    audit.append(Database(session.project.database), somebody(None), "data add", table, {"snapshot": before}, said)
    columns = [{"column": name, "type": kind} for name, kind in loaded.columns.items()]
    return Reply(
        msgspec.to_builtins(loaded),
        (Columns(columns, ("column", "type")), f"{loaded.rows} rows into {table}, snapshot {loaded.snapshot}"),
        f"interlock data head {table}",
    )


def list_tables(*, session: Session) -> Reply:
    """List the tables of the warehouse: your own, then those of the prediction log."""
    rows = msgspec.to_builtins(_warehouse(session).tables())
    shown = [{**row, "columns": list(row["columns"])} for row in rows]
    text = (Columns(shown, ("name", "rows", "columns")),) if rows else ("no tables yet",)
    return Reply({"items": rows}, text, "" if rows else "interlock data add FILE --as TABLE")


def head(table: str, /, *, session: Session, rows: int = 10) -> Reply:
    """Show rows of a table.

    Args:
        table: The table.
        rows: How many.
    """
    path = ".".join(quoted(part) for part in table.split("."))
    found = _warehouse(session).query(f"from {path} limit $rows", {"rows": rows})
    return items(found.to_pylist(), tuple(found.column_names), empty=f"{table} has no rows")


def _warehouse(session: Flags) -> Warehouse:
    return open_warehouse(session.project.warehouse, read_only=True)
