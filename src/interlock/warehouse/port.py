"""The port of the warehouse: what every engine owes its users, and the structs that cross it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

if TYPE_CHECKING:
    import pyarrow as pa

Value = str | int | float | bool


class TableInfo(Struct, frozen=True):
    """A table or view; the schema `interlock` is part of the name. `columns`: name → SQL type; `rows`: None for a view."""

    name: str
    rows: int | None
    columns: dict[str, str]


class Loaded(Struct, frozen=True):
    """What `load` did: rows of the file, columns of the table (name → SQL type), the snapshot that holds them."""

    table: str
    rows: int
    columns: dict[str, str]
    snapshot: int


class ExtractQuery(Struct, frozen=True):
    """One SELECT with `$name` variables. `id`, `event_time`, `label` name columns of its result."""

    sql: str
    variables: Mapping[str, Value]
    id: str
    event_time: str
    label: str


class Extract(Struct, frozen=True):
    """A stored extract. `digest`: of its values; `columns`: name → Arrow type; `sources`: tables and views that it reads."""

    digest: str
    path: Path
    rows: int
    snapshot: int
    columns: dict[str, str]
    sources: tuple[str, ...]


class Maintained(Struct, frozen=True):
    """What maintenance did. `longest_hold`: seconds for which it kept others from writing, at the worst."""

    merged_files: int
    expired_snapshots: int
    deleted_files: int
    cleared_orphans: int
    longest_hold: float


def silent(rows: int) -> None:
    """The progress of somebody who does not want to know."""


class Warehouse(Protocol):
    """Tables with snapshots. User tables have bare names, the tables of the log are in the schema `interlock`.

    Laws: whatever writes does it whole or not at all; a reader never waits for a writer and sees one snapshot; several
    processes may write at once. Everybody raises `Unavailable` when the storage fails (a full disk, a lost folder).
    """

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, snapshot: int | None = None
    ) -> pa.Table:
        """The rows of one reading statement; `$name` in it is bound from `parameters`.

        Times come in UTC, UUIDs as text, decimals as float64 and those without fraction as int64.
        With `snapshot` every table is read as it was then.

        Raises:
            InvalidData: the SQL does not parse, bind or run, writes, or is more than one statement.
            NotFound: no such snapshot (any more).
        """
        ...

    def snapshot(self) -> int:
        """The newest snapshot's id; every commit makes a higher one."""
        ...

    def tables(self) -> list[TableInfo]:
        """User tables, then those of the log with its views, by name."""
        ...

    def load(
        self, table: str, source: Path | str, *, replace: bool = False, progress: Callable[[int], None] = silent
    ) -> Loaded:
        """Load a file or http(s) URL: CSV (also zipped or gzipped; `NA` and empty are null), Parquet or JSON lines.

        Types are detected over the whole file (`true` and `false` are booleans, `yes` and `no` text); an existing table
        keeps its types and gets the rows appended by column name, missing ones null. A new table and a replacement appear
        whole, an append piece by piece; one that was interrupted is completed, not repeated, by loading the same file
        again. `progress` gets the rows written so far.

        Raises:
            InvalidData: unknown kind of file, unreadable rows, columns that the table has not, values that do not fit.
            NotFound: no such file. Conflict: another load is running.
        """
        ...

    def extract(self, query: ExtractQuery, *, snapshot: int | None, folder: Path) -> Extract:
        """Run `query` at a snapshot (None: the newest), ordered by (event_time, id), and keep the result in `folder`.

        Law: the same query at the same snapshot has the same digest for ever, whatever was written or merged since.
        Therefore aggregates see their values in order of the values (so `list` and `first` do too). Two things are left to
        the SQL: the ORDER BY of a window or a LIMIT must be unique, and functions of DuckDB change with its version.

        Raises:
            InvalidData: not one SELECT over tables of the warehouse; anything whose answer may differ next time (clock,
                randomness, sample, LIMIT without ORDER BY, another snapshot); a variable without a value or use; `id`
                null or twice; `event_time` null or without a time zone.
            NotFound: no such snapshot (any more).
        """
        ...

    def rows_of(self, query: ExtractQuery, ids: Sequence[str], *, snapshot: int) -> pa.Table:
        """The rows of an extract at a snapshot whose `id`, as text, is one of `ids`; nothing is kept. Raises as `extract`."""
        ...

    def marks(self) -> dict[str, int]:
        """How far each segment was written: segment id → end offset."""
        ...

    def stage(self, tables: Mapping[str, pa.Table]) -> Mapping[str, pa.Table]:
        """The same tables, written where `append` finds them: the slow part of it, which needs no lock. Nobody sees them yet.

        Raises:
            Unavailable: they cannot be written. Conflict: opened read-only.
        """
        ...

    def append(self, tables: Mapping[str, pa.Table], marks: Mapping[str, int]) -> int:
        """Write rows by table name and column name, and the marks with them: one commit, none for nothing.

        Missing tables and columns are made. `predictions_x` and `feedback_x` come together, with the view `outcomes_x`;
        `orphan` of feedback is set here: no row of `predictions_x`, this batch included, has its `prediction_id`.
        Feedback without one says `unit_id`, `at` and `since`, and is an orphan until `attribute` finds its prediction.

        Returns:
            The snapshot that holds the rows.

        Raises:
            InvalidData: a column came with another type than before.
        """
        ...

    def attribute(self) -> None:
        """Set `prediction_id`, `row`, `orphan` and `ambiguous` of feedback by unit.

        Law: afterwards it is about row 0 of the unit's last prediction with `since` <= `event_time` <= `at`, of those that
        are live, whose unit the client named, and that were answered, fell back or were refused by a rule. `ambiguous`:
        the last event time has several rows; then it is the prediction received last. Without any it is an orphan. In
        which order rows were appended makes no difference, by one process at a time. Costs nothing where nothing waits,
        else a look at the log from the first `since` on.
        """
        ...

    def forget_marks(self, segments: set[str]) -> None:
        """Drop the marks of segments that are long gone from disk."""
        ...

    def pin(self, name: str, snapshot: int) -> None:
        """Keep a snapshot readable until `unpin(name)`; a name pins one snapshot, the last one said.

        Raises:
            NotFound: no such snapshot (any more).
        """
        ...

    def unpin(self, name: str) -> None:
        """Let maintenance expire what `name` pinned; no such pin is no error."""
        ...

    def pins(self) -> dict[str, int]:
        """Pinned snapshots by name."""
        ...

    def maintain(self, *, keep: timedelta = ..., grace: timedelta = ...) -> Maintained:
        """Merge small files, expire snapshots older than `keep` unless pinned, delete files unused for `grace`.

        `grace` is longer than the longest query and the longest commit. Feedback whose prediction came after it is no
        orphan any more. Others write in between: nobody waits for the whole.
        """
        ...
