"""The embedded engine: DuckLake, that is DuckDB over Parquet files and a SQLite catalog. The only file that imports duckdb.

One DuckDB instance a process attaches the catalog read-only as `lake` and, at the first write, writable as `writer`. Nothing else
in a process may open catalog.sqlite: closing a second SQLite library's file drops the first one's locks.
"""

# ruff: noqa: S608 - an SQL name cannot be a parameter; ours are checked or quoted
from __future__ import annotations

import importlib
import importlib.resources
import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from interlock.core.clock import Clock, SystemClock
from interlock.core.errors import Conflict, InvalidData, NotFound, Unavailable
from interlock.core.files import locked
from interlock.core.ids import uuid7
from interlock.warehouse import attribution, extracts, loading, maintenance, predictions
from interlock.warehouse.lock import ReadLock, WriteLock
from interlock.warehouse.port import Extract, ExtractQuery, Loaded, Maintained, TableInfo, silent
from interlock.warehouse.session import Parameters, columns_of, literal, quoted
from interlock.warehouse.staging import Staged

if TYPE_CHECKING:
    import pyarrow as pa

SPACE = "look at free disk space and permissions: interlock doctor"
CREATE = (
    f"""
    create schema if not exists writer.interlock;
    create table if not exists writer.interlock.marks (segment varchar, position bigint, "at" timestamptz);
    call ducklake_set_option('writer', 'target_file_size', '{maintenance.TARGET_FILE_SIZE}');
    call ducklake_set_option('writer', 'data_inlining_row_limit', '0')
    """,
    # Rows in the catalog instead of a file, only where columns never change: readers remember where such rows are, and fail
    # for ever once a table has changed and was flushed (duckdb/ducklake issue 1305).
    """
    call ducklake_set_option('writer', 'data_inlining_row_limit', '10', schema => 'interlock', table_name => 'marks');
    create table writer.interlock.pins (name varchar, snapshot bigint, "at" timestamptz)
    """,
)
"""Two transactions: a table has options only once it is there. `pins` is the last, so where it is, all is."""

TABLES = """
select schema_name, table_name, list(column_name order by column_index), list(data_type order by column_index),
    table_name in (select view_name from duckdb_views() where database_name = 'lake' and schema_name = 'interlock')
from duckdb_columns()
where database_name = 'lake' and not contains(table_name, ' ') -- a space: `loading x`, not yet whole
    and (schema_name = 'main' or schema_name = 'interlock' and table_name not in ('marks', 'pins'))
group by all order by schema_name desc, table_name
"""


def open_warehouse(
    folder: Path,
    *,
    create: bool = False,
    read_only: bool = False,
    threads: int | None = None,
    clock: Clock | None = None,
) -> DuckLakeWarehouse:
    """The warehouse in `folder`; `create` makes it when it is not there. `threads` of queries: one a core, 1 for a recorder.

    Raises:
        NotFound: there is none. Unavailable: its files cannot be opened.
    """
    warehouse = DuckLakeWarehouse(folder.resolve(), read_only=read_only, threads=threads, clock=clock or SystemClock())
    try:
        warehouse.start(create=create)
    except BaseException:
        warehouse.close()
        raise
    return warehouse


def statement(folder: Path) -> str:
    """What opens the warehouse in a plain DuckDB of the same version, to look around."""
    return f"{_attach(folder.resolve(), 'lake', 'READ_ONLY')};"


def _attach(folder: Path, name: str, *options: str) -> str:
    # The catalog keeps the absolute path of the data that it was made with; the override finds it where the project is now.
    catalog, data = literal(f"ducklake:sqlite:{folder / 'catalog.sqlite'}"), literal(f"{folder / 'data'}/")
    said = ", ".join((*options, f"DATA_PATH {data}", "OVERRIDE_DATA_PATH true", "META_BUSY_TIMEOUT 5000"))
    return f"ATTACH {catalog} AS {name} ({said})"


def _extension(name: str) -> str:
    """The path of an extension that came as a wheel: nothing is ever downloaded."""
    files = importlib.resources.files(importlib.import_module(f"duckdb_extension_{name}"))
    return str(files / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension")


@contextmanager
def _our_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (duckdb.OperationalError, duckdb.FatalException, duckdb.PermissionException) as error:
        raise Unavailable(f"the warehouse in {folder} cannot be used: {_first_lines(error)}", next=SPACE) from error
    except duckdb.InternalError:
        raise  # a defect, not a state of the world
    except duckdb.Error as error:
        raise InvalidData(_first_lines(error), next="compare with tables and columns: interlock data list") from error


def _first_lines(error: duckdb.Error) -> str:
    return str(error).strip().partition("\n\n")[0]


class DuckDBSession:
    """A cursor of the process's DuckDB instance; see `Session`."""

    def __init__(self, cursor: duckdb.DuckDBPyConnection, folder: Path) -> None:
        self.cursor = cursor
        self.snapshot = 0
        """After a transaction: the snapshot that holds it."""
        self._folder = folder

    def run(self, sql: str, parameters: Parameters = None) -> None:
        """Run a statement for its effect."""
        with _our_errors(self._folder):
            self.cursor.execute(sql, parameters)

    def rows(self, sql: str, parameters: Parameters = None) -> list[tuple[Any, ...]]:
        """The rows of a small result, without times."""
        columns = self.table(sql, parameters).columns
        return list(zip(*(column.to_pylist() for column in columns), strict=True))

    def table(self, sql: str, parameters: Parameters = None) -> pa.Table:
        """A result as it comes."""
        with _our_errors(self._folder):
            return self.cursor.execute(sql, parameters).to_arrow_table()

    def types(self, sql: str, parameters: Parameters = None) -> dict[str, str]:
        """Name → SQL type of what a SELECT gives, without running it."""
        with _our_errors(self._folder):
            found = self.cursor.execute(f"select * from (\n{sql}\n) limit 0", parameters).description or []
        return {column[0]: str(column[1]) for column in found}

    def register(self, name: str, table: pa.Table) -> None:
        """Let statements of this session read an Arrow table by name."""
        self.cursor.register(name, table)


class DuckLakeWarehouse:
    """See `port.Warehouse`. Threads may share one: every call has its own session. `lock` has the metrics of waiting."""

    def __init__(self, folder: Path, *, read_only: bool, threads: int | None, clock: Clock) -> None:
        self.folder = folder
        self.lock = WriteLock(folder / "write.lock")
        self._readers = ReadLock(folder)
        self._read_only = read_only
        self._clock = clock
        self._known: predictions.Known = {}
        self._by_unit: attribution.Waiting | None = None  # None: nobody has looked
        self._writable = False
        self._numbers = itertools.count()
        self._connection = duckdb.connect(
            config={
                "autoinstall_known_extensions": False,
                "autoload_known_extensions": False,
                "python_enable_replacements": False,  # a table's name is never a Python variable
                "temp_directory": f"{tempfile.gettempdir()}/interlock-{uuid7()}",  # made only when memory is full
                # A recorder reads nothing twice, and should stay small.
                **({"threads": threads, "enable_external_file_cache": False} if threads else {}),
            }
        )
        self._connection.execute("set global TimeZone = 'UTC'")
        for name in ("sqlite_scanner", "ducklake"):
            self._connection.execute(f"load {literal(_extension(name))}")

    def start(self, *, create: bool) -> None:
        """Attach the catalog."""
        there = (self.folder / "catalog.sqlite").is_file()
        if not there and (not create or self._read_only):
            raise NotFound(f"no warehouse in {self.folder}", next="load a table: interlock data add FILE --as TABLE")
        if create and not self._read_only:
            self._create()
        with _our_errors(self.folder):
            self._connection.execute(_attach(self.folder, "lake", "READ_ONLY"))

    def _create(self) -> None:
        try:
            (self.folder / "data").mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Unavailable(
                f"the warehouse in {self.folder} cannot be made: {error}", next="check the path"
            ) from error
        for statements in CREATE:
            with self.transaction() as session:
                if not columns_of(session, "writer", "interlock", "pins"):
                    session.run(statements)

    def close(self) -> None:
        """Let go of the files."""
        self._connection.close()

    # sessions

    @contextmanager
    def reading(self, snapshot: int | None = None) -> Iterator[DuckDBSession]:
        """A session that finds tables by bare name, all as they were at one snapshot."""
        with self._readers.shared():
            yield from self._reading(snapshot)

    def _reading(self, snapshot: int | None) -> Iterator[DuckDBSession]:
        session = DuckDBSession(self._connection.cursor(), self.folder)
        name = "lake" if snapshot is None else f"lake_{next(self._numbers)}"
        try:
            if snapshot is not None:
                self._attach_at(session, name, snapshot)
            session.run(f"use {name}.main")
            yield session
        finally:
            if snapshot is not None:
                session.cursor.execute(f"use memory.main; detach database if exists {name}")
            session.cursor.close()

    def _attach_at(self, session: DuckDBSession, name: str, snapshot: int) -> None:
        try:
            session.run(_attach(self.folder, name, "READ_ONLY", f"SNAPSHOT_VERSION {int(snapshot)}"))
        except InvalidData as error:
            raise NotFound(f"snapshot {snapshot} does not exist or has expired", next="take a newer one") from error

    @contextmanager
    def transaction(self, *, moving: bool = False) -> Iterator[DuckDBSession]:
        """A session under the lock, committed at the end; `moving`: while nobody reads, else BeingRead."""
        if self._read_only:
            raise Conflict("this warehouse was opened read-only")
        try:
            with self.lock.held(), self._readers.alone() if moving else nullcontext(), _our_errors(self.folder):
                yield from self._transaction()
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> Unavailable:
        return Unavailable(f"the warehouse in {self.folder} cannot be written: {error}", next=SPACE)

    def _transaction(self) -> Iterator[DuckDBSession]:
        if not self._writable:
            self._connection.execute(_attach(self.folder, "writer", "META_JOURNAL_MODE 'WAL'"))
            self._writable = True
        cursor = self._connection.cursor()
        try:
            cursor.begin()
            session = DuckDBSession(cursor, self.folder)
            try:
                yield session
                cursor.commit()
                session.snapshot = session.rows("from ducklake_last_committed_snapshot('writer')")[0][0]
            except BaseException:
                with suppress(duckdb.Error):  # a failed commit has ended the transaction already
                    cursor.rollback()
                raise
        finally:
            cursor.close()

    def forget(self) -> None:
        """Let the next transaction learn the catalog anew.

        Who reads inlined rows remembers, under the number of their schema, which tables there were when their own table was
        made; who then merges older files of another table does not find it (duckdb/ducklake issue 955).
        """
        with self.lock.held():
            if self._writable:
                self._connection.execute("detach writer")
                self._writable = False

    # reading

    def query(
        self, sql: str, parameters: Mapping[str, object] | None = None, *, snapshot: int | None = None
    ) -> pa.Table:
        """See the port."""
        with self.reading(snapshot) as session:
            self._one_select(session, sql)
            return extracts.plain(session.table(sql, parameters or None))

    def _one_select(self, session: DuckDBSession, sql: str) -> set[str]:
        with _our_errors(self.folder):
            statements = session.cursor.extract_statements(sql)
        if len(statements) != 1 or statements[0].type not in (
            duckdb.StatementType.SELECT,
            duckdb.StatementType.EXPLAIN,
        ):
            raise InvalidData("only one SELECT is run here", next="tables change through interlock data add")
        return set(statements[0].named_parameters)

    def snapshot(self) -> int:
        """See the port."""
        with self.reading() as session:
            return int(session.rows("select id from ducklake_current_snapshot('lake')")[0][0])

    def tables(self) -> list[TableInfo]:
        """See the port."""
        with self.reading() as session:
            found = []
            for schema, table, names, types, is_view in session.rows(TABLES):
                count = f"select count(*) from {quoted(schema)}.{quoted(table)}"
                rows = None if is_view else session.rows(count)[0][0]
                name = table if schema == "main" else f"{schema}.{table}"
                found.append(TableInfo(name, rows, dict(zip(names, types, strict=True))))
            return found

    def extract(self, query: ExtractQuery, *, snapshot: int | None, folder: Path) -> Extract:
        """See the port."""
        at = self.snapshot() if snapshot is None else snapshot
        table, sources = self._ask(query, at, None)
        try:
            digest, path = extracts.store(table, folder)
        except OSError as error:
            raise Unavailable(f"the extract cannot be kept in {folder}: {error}", next="interlock doctor") from error
        columns = {field.name: extracts.type_name(field.type) for field in table.schema}
        return Extract(digest, path, len(table), at, columns, sources)

    def rows_of(self, query: ExtractQuery, ids: Sequence[str], *, snapshot: int) -> pa.Table:
        """See the port."""
        return self._ask(query, snapshot, ids)[0]

    def _ask(self, query: ExtractQuery, snapshot: int, ids: Sequence[str] | None) -> tuple[pa.Table, tuple[str, ...]]:
        """The checked rows of an extract, or of some ids of it, and the tables that it reads."""
        with self.reading(snapshot) as session:
            extracts.check_variables(self._one_select(session, query.sql), query)
            there = [f"{schema}.{table}".removeprefix("main.") for schema, table, *_ in session.rows(TABLES)]
            said, sql, sources = extracts.checked(session, query, there)
            variables: dict[str, object] = dict(query.variables)
            names = session.types(said, variables or None)  # an aggregate without a name is named by its text
            extracts.check_columns(names, query)
            sql = extracts.ordered(sql, query)
            if ids is not None:
                sql = f"select * from ({sql}) where {quoted(query.id)}::varchar in (select unnest($interlock_ids::varchar[]))"
                variables["interlock_ids"] = list(ids)
            table = extracts.plain(session.table(sql, variables or None)).rename_columns(list(names))
        extracts.check_rows(table, query)
        return table, sources

    # writing

    def load(
        self, table: str, source: Path | str, *, replace: bool = False, progress: Callable[[int], None] = silent
    ) -> Loaded:
        """See the port."""
        with locked(self.folder / "load.lock", timeout=0, holder="another load"):
            rows, columns = loading.load(self, table, source, replace=replace, progress=progress)
        return Loaded(table, rows, columns, self.snapshot())

    def marks(self) -> dict[str, int]:
        """See the port."""
        with self.reading() as session:
            found = session.rows(
                "select segment, max(position) from lake.interlock.marks where not starts_with(segment, ?) group by all",
                [loading.LOADS],
            )
        return dict(found)

    def stage(self, tables: Mapping[str, pa.Table]) -> Staged:
        """See the port."""
        if self._read_only:
            raise Conflict("this warehouse was opened read-only")
        log = self.folder / "data" / "interlock"
        try:
            return Staged(tables, {name: log / name for name in predictions.as_files(tables)})
        except OSError as error:
            raise self._unwritable(error) from error

    def append(self, tables: Mapping[str, pa.Table], marks: Mapping[str, int]) -> int:
        """See the port."""
        if not marks and not any(map(len, tables.values())):
            return self.snapshot()
        staged = tables if isinstance(tables, Staged) else self.stage(tables)
        try:
            by_unit = self._with_units()
            with self.transaction() as session:
                staged.mend()
                predictions.append(session, staged, self._known, by_unit)
                for segment, position in marks.items():  # few; rows this small stay in the catalog itself
                    session.run("insert into writer.interlock.marks values (?, ?, now())", [segment, position])
        except BaseException:
            self._known.clear()  # a table made in this transaction is not there
            raise
        return session.snapshot

    def attribute(self) -> None:
        """See the port."""
        by_unit = self._with_units()
        for endpoint in [name for name, waits in by_unit.items() if waits]:
            attribution.attribute(self, endpoint)
            by_unit[endpoint] = False

    def _with_units(self) -> attribution.Waiting:
        """Kept up by `append`, for nobody else appends to the log of an endpoint."""
        if self._by_unit is None:
            self._by_unit = attribution.endpoints(self)
        return self._by_unit

    def forget_marks(self, segments: set[str]) -> None:
        """See the port."""
        if segments:
            with self.transaction() as session:
                session.run("delete from writer.interlock.marks where list_contains(?, segment)", [sorted(segments)])

    def pin(self, name: str, snapshot: int) -> None:
        """See the port."""
        with self.transaction() as session:
            there = "select count(*) from ducklake_snapshots('writer') where snapshot_id = ?"
            if not session.rows(there, [snapshot])[0][0]:
                raise NotFound(f"snapshot {snapshot} does not exist or has expired", next="take a newer one")
            session.run("delete from writer.interlock.pins where name = ?", [name])
            session.run("insert into writer.interlock.pins values (?, ?, now())", [name, snapshot])

    def unpin(self, name: str) -> None:
        """See the port."""
        if name in self.pins():
            with self.transaction() as session:
                session.run("delete from writer.interlock.pins where name = ?", [name])

    def pins(self) -> dict[str, int]:
        """See the port."""
        with self.reading() as session:
            return dict(session.rows("select name, snapshot from lake.interlock.pins"))

    def maintain(self, *, keep: timedelta = timedelta(days=1), grace: timedelta = timedelta(hours=1)) -> Maintained:
        """See the port."""
        self.lock.longest_hold = 0.0
        cleared = maintenance.clear_orphans(self)
        merged = maintenance.merge(self)
        expired = maintenance.expire(self, self._clock.now() - keep)
        deleted = maintenance.delete_files(self, self._clock.now() - grace)
        return Maintained(merged, expired, deleted, cleared, self.lock.longest_hold)
