"""Keeping the warehouse small: merged files, expired snapshots, deleted files. In slices, so that writers get in between."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from interlock.warehouse import predictions
from interlock.warehouse.lock import BeingRead
from interlock.warehouse.session import Engine

TARGET_FILE_SIZE = "16MB"
"""Files are merged up to this size: about a quarter of a second of work, which is what a slice may keep the lock."""

TRIES, PAUSE_SECONDS = 5, 0.5
"""Rows move when nobody reads: so often it is tried, then the rest waits for the next time."""

MERGE = "call ducklake_merge_adjacent_files('writer', ?, schema => ?, max_compacted_files => 1)"

SUPERSEDED_MARKS = """
delete from writer.interlock.marks as old
where exists (
    select 1 from writer.interlock.marks as new where new.segment = old.segment and new.position > old.position
)
"""

EXPIRABLE = """
select snapshot_id from ducklake_snapshots('writer')
where snapshot_time < ? and snapshot_id not in (select snapshot from writer.interlock.pins)
    and snapshot_id <> (select id from ducklake_current_snapshot('writer'))
limit 500
"""


AS_COMPARED = """
-- SQLite keeps times as text, and DuckLake compares these with one that has a T: without this only days would count.
update __ducklake_metadata_writer.main.ducklake_files_scheduled_for_deletion
set schedule_start = replace(schedule_start, ' ', 'T')
"""


def clear_orphans(engine: Engine) -> int:
    """Feedback whose prediction came later is no orphan any more."""
    return sum(
        predictions.clear_orphans(engine, name[9:]) for _, name in _tables(engine) if name.startswith("feedback_")
    )


def merge(engine: Engine) -> int:
    """Write inlined rows to files and merge small files; the number of files that went. It leaves off when it is always read."""
    with engine.transaction() as session:
        session.run(SUPERSEDED_MARKS)
    tables = _tables(engine)
    for schema, table in tables:
        _move(engine, "call ducklake_flush_inlined_data('writer', table_name => ?, schema_name => ?)", [table, schema])
    engine.forget()
    merged = 0
    for schema, table in tables:
        while slices := _move(engine, MERGE, [table, schema]):
            merged += sum(files for _, _, files, _ in slices)
    return merged


def _move(engine: Engine, sql: str, parameters: list[str]) -> list[tuple[Any, ...]]:
    """What a statement that moves rows gives; nothing when there was always somebody who read."""
    for _ in range(TRIES):
        try:
            with engine.transaction(moving=True) as session:
                return session.rows(sql, parameters)
        except BeingRead:
            time.sleep(PAUSE_SECONDS)
    return []


def expire(engine: Engine, before: datetime) -> int:
    """Forget snapshots older than `before`, but the newest one and the pinned; their number."""
    expired = 0
    while True:
        with engine.transaction() as session:
            versions = [row[0] for row in session.rows(EXPIRABLE, [before])]
            if versions:
                session.run("call ducklake_expire_snapshots('writer', versions => ?)", [versions])
        expired += len(versions)
        if not versions:
            return expired


def delete_files(engine: Engine, before: datetime) -> int:
    """Delete files that no snapshot has needed since `before`, and those of commits that never ended; their number."""
    with engine.transaction() as session:
        session.run(AS_COMPARED)
    deleted = 0
    for procedure in ("ducklake_cleanup_old_files", "ducklake_delete_orphaned_files"):
        with engine.transaction() as session:
            deleted += len(session.rows(f"call {procedure}('writer', older_than => ?)", [before]))
    return deleted


def _tables(engine: Engine) -> list[tuple[str, str]]:
    with engine.reading() as session:
        found = session.rows(
            "select schema_name, table_name from duckdb_tables() where database_name = 'lake' order by all"
        )
    return [(schema, table) for schema, table in found]
