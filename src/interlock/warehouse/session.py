"""What the files with SQL see of the engine. The catalog is there twice: `lake` to read from, `writer` to write to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import pyarrow as pa

Parameters = Sequence[object] | Mapping[str, object] | None


class Session(Protocol):
    """Runs statements. Engine errors come out as ours."""

    def run(self, sql: str, parameters: Parameters = None) -> None:
        """Run a statement for its effect."""
        ...

    def rows(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """The rows of a small result, without times."""
        ...

    def table(self, sql: str, parameters: Parameters = None) -> pa.Table:
        """A result as it comes."""
        ...

    def register(self, name: str, table: pa.Table) -> None:
        """Let statements of this session read an Arrow table by name."""
        ...


class Engine(Protocol):
    """Where sessions come from."""

    def transaction(self, *, moving: bool = False) -> AbstractContextManager[Session]:
        """A session that writes: under the write lock, committed at the end, rolled back on any error.

        `moving`: it moves rows that are there already, and nobody reads meanwhile.

        Raises:
            BeingRead: `moving`, and somebody reads.
        """
        ...

    def reading(self) -> AbstractContextManager[Session]:
        """A session that reads, and may keep scratch tables in `memory.main`."""
        ...

    def forget(self) -> None:
        """Let the next transaction learn the catalog anew."""
        ...


def quoted(name: str) -> str:
    """An SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """An SQL string, where a statement takes no parameter."""
    return "'" + text.replace("'", "''") + "'"


def columns_of(session: Session, catalog: str, schema: str, table: str) -> dict[str, str]:
    """Name → type of a table's columns in order; empty: there is no such table."""
    found = session.rows(
        """
        select column_name, data_type from duckdb_columns()
        where database_name = ? and schema_name = ? and table_name = ? order by column_index
        """,
        [catalog, schema, table],
    )
    return dict(found)
