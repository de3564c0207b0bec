"""Canonical documents in the control database, each under its own digest: how evaluations and evidence are kept and read."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from sqlalchemy import Connection, Select, Table, insert, select

from interlock.core.errors import Tampered
from interlock.core.hashing import digest
from interlock.store.database import Database

T = TypeVar("T", bound=msgspec.Struct)


def keep(connection: Connection, table: Table, row: msgspec.Struct) -> None:
    """Keep a row in the caller's write transaction. The same document twice is one."""
    values = msgspec.structs.asdict(row)
    if connection.execute(select(table.c.id).where(table.c.digest == values["digest"])).first() is None:
        connection.execute(insert(table).values(values))


def newest(database: Database, query: Select[Any], form: type[T], column: str) -> T | None:
    """The newest row that a query finds, its document (in `column`) held against its digest; None where there is none.

    Raises:
        Tampered: the database holds other bytes under it.
    """
    with database.read() as connection:
        row = connection.execute(query.order_by(query.selected_columns["id"].desc()).limit(1)).first()
    if row is None:
        return None
    if digest(row._mapping[column].encode()) != row._mapping["digest"]:
        what = form.__name__.lower()
        raise Tampered(
            f"{what} {row._mapping['digest']} was altered in the database", next="restore control.db from a backup"
        )
    return form(**row._mapping)
