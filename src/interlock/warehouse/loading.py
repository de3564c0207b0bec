"""Bringing files into tables: `interlock data add`."""

# ruff: noqa: S608 - an SQL name cannot be a parameter; ours are checked or quoted
from __future__ import annotations

import re
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from interlock.core.errors import InvalidData, NotFound, Unavailable
from interlock.core.hashing import digest_file
from interlock.core.ids import uuid7
from interlock.warehouse.session import Engine, Session, columns_of, literal, quoted

CHUNK = 50_000
"""Rows of a transaction: it keeps the lock for about a tenth of a second."""

LOADS = "load:"
"""Marks of appends that are under way begin with it; all others are the recorder's."""

_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")


def load(
    engine: Engine, table: str, source: Path | str, *, replace: bool, progress: Callable[[int], None]
) -> tuple[int, dict[str, str]]:
    """See the port. Rows of the file and columns of the table."""
    if not _NAME.fullmatch(table):
        raise InvalidData(
            f"table name {table!r}: lower-case letters, digits and _ only", next="choose another --as NAME"
        )
    with fetched(source) as path, engine.reading() as scratch:
        there = {} if replace else columns_of(scratch, "lake", "main", table)
        staged = f"memory.main.staged_{uuid7().hex}"
        try:
            _stage(scratch, staged, path, there, table)
            rows: int = scratch.rows(f"select count(*) from {staged}")[0][0]
            if there:
                _append(engine, table, staged, rows, f"{LOADS}{table}:{digest_file(path)}", progress)
                return rows, there
            return rows, _create(engine, table, staged, rows, progress)
        finally:
            scratch.run(f"drop table if exists {staged}")


def _stage(session: Session, staged: str, path: Path, there: Mapping[str, str], table: str) -> None:
    """Read the file into a scratch table: nobody waits for it, and a bad row stops it before anything is written."""
    found = session.rows(f"describe select * from {_reader(path)}", [str(path)])
    if not there:
        words = _words(session, path, [name for name, kind, *_ in found if kind == "BOOLEAN"])
        session.run(f"create table {staged} as select * from {_reader(path, words, whole=True)}", [str(path)])
        return
    types = {name.lower(): kind for name, kind in there.items()}
    names = [name for name, *_ in found]
    if unknown := [name for name in names if name.lower() not in types]:
        raise InvalidData(
            f"table {table} has no column {', '.join(unknown)} (it has: {', '.join(there)})",
            next="rename the columns in the file, or load it as another table",
        )
    kinds = {name: types[name.lower()] for name in names}
    cast = ", ".join(f"cast({quoted(name)} as {kind}) as {quoted(name)}" for name, kind in kinds.items())
    session.run(f"create table {staged} as select {cast} from {_reader(path, kinds, whole=True)}", [str(path)])


def _words(session: Session, path: Path, booleans: Sequence[str]) -> dict[str, str]:
    """Of the columns that DuckDB takes for booleans those in which a CSV says yes and no: they stay text."""
    if not booleans:
        return {}
    texts = dict.fromkeys(booleans, "VARCHAR")
    plain = ", ".join(f"bool_and(lower({quoted(name)}::varchar) in ('true', 'false'))" for name in booleans)
    (found,) = session.rows(f"select {plain} from {_reader(path, texts, whole=True)}", [str(path)])
    return {name: "VARCHAR" for name, is_plain in zip(booleans, found, strict=True) if not is_plain}


def _reader(path: Path, types: Mapping[str, str] | None = None, *, whole: bool = False) -> str:
    """The table function for this kind of file; `types` of a CSV are known, or detected (over the whole file)."""
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    sample = ", sample_size = -1" if whole else ""
    if kind in ("csv", "tsv", "txt"):
        known = ", ".join(f"{literal(name)}: {literal(kind)}" for name, kind in (types or {}).items())
        return f"read_csv(?, nullstr = ['', 'NA']{sample}{f', types = {{{known}}}' if known else ''})"
    if kind in ("json", "jsonl", "ndjson"):
        return f"read_json(?{sample})"
    if kind == "parquet":
        return "read_parquet(?)"
    raise InvalidData(
        f"cannot tell what {path.name} is", next="give a CSV (also .zip, .gz), Parquet or JSON lines file"
    )


def _create(engine: Engine, table: str, staged: str, rows: int, progress: Callable[[int], None]) -> dict[str, str]:
    """Fill a table under a name that no user can give, then rename it: readers see all of it or the one before."""
    loading = f"writer.main.{quoted(f'loading {table}')}"
    with engine.transaction() as session:
        columns = {
            name: "VARCHAR" if kind.startswith("ENUM(") else kind
            for name, kind, *_ in session.rows(f"describe {staged}")
        }
        declared = ", ".join(f"{quoted(name)} {kind}" for name, kind in columns.items())
        session.run(f"drop table if exists {loading}")
        session.run(f"create table {loading} ({declared})")
    for start in range(0, rows, CHUNK):
        with engine.transaction() as session:
            _copy(session, loading, staged, start)
        progress(min(start + CHUNK, rows))
    with engine.transaction() as session:
        session.run(f"drop table if exists writer.main.{quoted(table)}")
        session.run(f"alter table {loading} rename to {quoted(table)}")
    return columns


def _append(engine: Engine, table: str, staged: str, rows: int, segment: str, progress: Callable[[int], None]) -> None:
    """Add to a table piece by piece, each with a mark in its transaction; begin where an interrupted load of it ended."""
    with engine.reading() as session:
        done = session.rows("select max(position) from lake.interlock.marks where segment = ?", [segment])
    for start in range(done[0][0] or 0, rows, CHUNK):
        end = min(start + CHUNK, rows)
        with engine.transaction() as session:
            _copy(session, f"writer.main.{quoted(table)}", staged, start)
            if end < rows:
                session.run("insert into writer.interlock.marks values (?, ?, now())", [segment, end])
            else:
                session.run("delete from writer.interlock.marks where segment = ?", [segment])
        progress(end)


def _copy(session: Session, target: str, staged: str, start: int) -> None:
    session.run(
        f"insert into {target} by name select * from {staged} where rowid >= ? and rowid < ?",
        [start, start + CHUNK],
    )


@contextmanager
def fetched(source: Path | str) -> Iterator[Path]:
    """The file itself on this machine: downloaded and unzipped where needed, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="interlock-load-") as folder:
        path = _download(source, Path(folder)) if str(source).startswith(("http://", "https://")) else Path(source)
        if not path.is_file():
            raise NotFound(f"no file {path}", next="check the path")
        yield _unzipped(path, Path(folder)) if path.suffix.lower() == ".zip" else path


def _download(source: Path | str, folder: Path) -> Path:
    url = str(source)
    path = folder / (Path(urllib.parse.urlsplit(url).path).name or "download")
    try:
        with urllib.request.urlopen(url, timeout=60) as answer, path.open("wb") as file:  # noqa: S310 (http or https)
            shutil.copyfileobj(answer, file)
    except urllib.error.HTTPError as error:
        raise NotFound(f"{url} answered {error.code} {error.reason}", next="check the address") from error
    except (urllib.error.URLError, OSError) as error:
        raise Unavailable(
            f"{url} cannot be fetched: {error}", next="check the network, or download it by hand"
        ) from error
    return path


def _unzipped(path: Path, folder: Path) -> Path:
    try:
        with zipfile.ZipFile(path) as archive:
            files = [member for member in archive.infolist() if not member.is_dir()]
            if len(files) != 1:
                raise InvalidData(
                    f"{path.name} holds {len(files)} files, not one", next="unzip it and load them one by one"
                )
            target = folder / Path(files[0].filename).name
            with archive.open(files[0]) as packed, target.open("wb") as file:
                shutil.copyfileobj(packed, file)
    except zipfile.BadZipFile as error:
        raise InvalidData(f"{path.name} is no zip file: {error}") from error
    return target
