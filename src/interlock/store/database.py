"""The control database on SQLite: one file, WAL, short write transactions."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event

from interlock.core.errors import Corrupt, Misconfigured

HEAD = "0006"
"""The newest migration; a test holds it against the migrations folder."""


class Database:
    """Opens `control.db`, brought to the newest migration.

    Raises:
        Misconfigured: the file does not exist (and `create` is off), or was written by a newer Interlock.
    """

    def __init__(self, path: Path, *, create: bool = False) -> None:
        if not create and not path.exists():
            raise Misconfigured(f"no control database at {path}", next="run: interlock init .")
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.engine: Engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": 30})
        event.listen(self.engine, "connect", _prepare)
        event.listen(self.engine, "begin", _begin)
        if revision_of(path) != HEAD:
            self._migrate()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state."""
        with self.engine.connect() as connection, connection.begin():
            yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that owns the write lock from its first statement; committed at the end, or nothing happened."""
        with self.engine.connect().execution_options(immediate=True) as connection, connection.begin():
            yield connection

    def close(self) -> None:
        """Close every connection."""
        self.engine.dispose()

    def _migrate(self) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.util import CommandError

        config = Config()
        config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
        with self.write() as connection:
            config.attributes["connection"] = connection
            try:
                command.upgrade(config, "head")
            except CommandError as error:
                raise Misconfigured(
                    f"{self.path} was written by a newer Interlock ({error})",
                    next="install that version, or restore a backup",
                ) from error


def revision_of(path: Path) -> str | None:
    """The migration that a database is at, without the half second that importing Alembic costs; None: not one of ours."""
    if not path.exists():
        return None
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)
    try:
        row = connection.execute("select version_num from alembic_version").fetchone()
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{path} is no SQLite database: {error}") from error
    finally:
        connection.close()
    return row[0] if row else None


def copy_database(source: Path, target: Path) -> None:
    """Copy an SQLite database as it is at one moment, while others read and write it, into one file.

    Raises:
        Corrupt: it is none.
    """
    try:
        live = sqlite3.connect(f"file:{source}?mode=ro", uri=True, timeout=30)
        with closing(live), closing(sqlite3.connect(target)) as copy:
            live.backup(copy)
            copy.execute("pragma journal_mode = delete")
    except sqlite3.DatabaseError as error:
        raise Corrupt(f"{source} cannot be copied: {error}", next="interlock doctor") from error


def _prepare(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # SQLAlchemy's begin event below opens transactions, not the driver
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")


def _begin(connection: Connection) -> None:
    immediate = connection.get_execution_options().get("immediate", False)
    connection.exec_driver_sql("begin immediate" if immediate else "begin")
