"""The engines of the warehouse port, for the suites that hold each of them to its law."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from interlock.warehouse.ducklake import open_warehouse
from interlock.warehouse.port import Warehouse

ENGINES: dict[str, Callable[[Path], Warehouse]] = {
    "ducklake": lambda folder: open_warehouse(folder, create=True),
}


def rows(warehouse: Warehouse, sql: str, *, snapshot: int | None = None, **parameters: object) -> list[tuple[Any, ...]]:
    """What a question gives, as tuples."""
    table = warehouse.query(sql, parameters, snapshot=snapshot)
    return [tuple(row.values()) for row in table.to_pylist()]
