"""Extracts: the answer to a named question at one snapshot of the warehouse, kept under the digest of its values."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from sqlalchemy import insert, select

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import NotFound, Usage
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.store.database import Database
from interlock.store.tables import extracts
from interlock.warehouse.port import ExtractQuery, Value

if TYPE_CHECKING:
    import pandas as pd


class ExtractRecord(msgspec.Struct, frozen=True):
    """Which question was asked, and its answer."""

    name: str
    """Empty = the default extract."""
    sql: str
    variables: dict[str, Value]
    id: str
    event_time: str
    label: str
    digest: str
    snapshot: int
    rows: int
    sources: tuple[str, ...]


def make(project: Project, settings: Settings, name: str, variables: Mapping[str, Value]) -> ExtractRecord:
    """Ask the warehouse at its newest snapshot, which stays pinned; `variables` override those of the extract.

    Raises:
        Misconfigured: there is no such extract.
        Usage: a variable that the extract does not have.
        InvalidData: the SQL fails, or its answer would not be the same next time.
    """
    from interlock.warehouse.ducklake import open_warehouse

    query = _query(settings, name, variables)
    warehouse = open_warehouse(project.warehouse)
    found = warehouse.extract(query, snapshot=None, folder=project.warehouse / "extracts")
    warehouse.pin(f"extract {found.digest}", found.snapshot)
    database = Database(project.database)
    with database.write() as connection:
        if connection.execute(select(extracts.c.digest).where(extracts.c.digest == found.digest)).first() is None:
            connection.execute(
                insert(extracts).values(
                    digest=found.digest,
                    sql=query.sql,
                    variables=msgspec.json.encode(query.variables).decode(),
                    snapshot=found.snapshot,
                    rows=found.rows,
                    path=str(found.path.relative_to(project.root)),
                    created_at=iso(SystemClock().now()),
                )
            )
    database.close()
    return _record(name, query, found.digest, found.snapshot, found.rows, found.sources)


def sample(
    project: Project, settings: Settings, name: str, variables: Mapping[str, Value], rows: int | None
) -> tuple[ExtractRecord, pd.DataFrame]:
    """At most so many rows (None: all), evenly spread over event time; nothing is kept. The record counts all rows."""
    from interlock.warehouse.ducklake import open_warehouse

    query = _query(settings, name, variables)
    warehouse = open_warehouse(project.warehouse)
    snapshot = warehouse.snapshot()
    table = warehouse.query(query.sql, query.variables, snapshot=snapshot)
    table = table.sort_by([(query.event_time, "ascending"), (query.id, "ascending")])
    there = table.num_rows
    if rows is not None and rows < there:
        table = table.take(np.linspace(0, there - 1, rows).astype(int))
    return _record(name, query, "", snapshot, there, ()), table.to_pandas()


def _query(settings: Settings, name: str, variables: Mapping[str, Value]) -> ExtractQuery:
    asked = settings.extract_named(name)
    strangers = sorted(set(variables) - set(asked.variables))
    if strangers:
        known = ", ".join(asked.variables) or "none"
        raise Usage(
            f"the extract has no variable {strangers[0]} (known: {known})", next="see [extract] in interlock.toml"
        )
    return ExtractQuery(asked.sql, {**asked.variables, **variables}, asked.id, asked.event_time, asked.label)


def _record(
    name: str, query: ExtractQuery, digest: str, snapshot: int, rows: int, sources: tuple[str, ...]
) -> ExtractRecord:
    return ExtractRecord(
        name=name,
        sql=query.sql,
        variables=dict(query.variables),
        id=query.id,
        event_time=query.event_time,
        label=query.label,
        digest=digest,
        snapshot=snapshot,
        rows=rows,
        sources=sources,
    )


def read(project: Project, digest: str) -> pd.DataFrame:
    """The rows of a stored extract.

    Raises:
        NotFound: it is not kept here.
    """
    import pyarrow.parquet

    database = Database(project.database)
    with database.read() as connection:
        path = connection.scalar(select(extracts.c.path).where(extracts.c.digest == digest))
    database.close()
    if path is None:
        raise NotFound(f"extract {digest} is not kept in this project")
    table: pd.DataFrame = pyarrow.parquet.read_table(project.root / path).to_pandas()
    return table
