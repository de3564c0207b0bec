"""The audit trail tells every edit, removal and insertion."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert, select, update

from interlock.core.errors import Tampered
from interlock.release import audit
from interlock.store.database import Database
from interlock.store.tables import audit as table


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "control.db", create=True)
    for number in range(1, 6):
        audit.append(database, "olga", "deploy", f"m:{number}", {"n": number - 1}, {"n": number}, "because")
    yield database
    database.close()


def test_entries_come_back_in_order(database: Database) -> None:
    found = audit.entries(database)
    assert [entry.seq for entry in found] == [1, 2, 3, 4, 5]
    assert (found[2].before, found[2].after, found[2].subject) == ('{"n":2}', '{"n":3}', "m:3")
    assert [entry.seq for entry in audit.entries(database, last=2)] == [4, 5]
    assert [entry.seq for entry in audit.entries(database, "m:4")] == [4]


def test_an_intact_trail_is_counted(database: Database) -> None:
    assert audit.verify(database) == 5


def test_an_empty_trail_is_intact(tmp_path: Path) -> None:
    database = Database(tmp_path / "new.db", create=True)
    assert audit.verify(database) == 0
    database.close()


@pytest.mark.parametrize(
    "column", ["at", "actor", "action", "subject", "before", "after", "reason", "previous", "hash"]
)
def test_an_edited_entry_is_named(database: Database, column: str) -> None:
    with database.write() as connection:
        connection.execute(update(table).where(table.c.seq == 3).values({column: "forged"}))
    with pytest.raises(Tampered, match="entry 3"):
        audit.verify(database)


def test_an_entry_edited_with_its_hash_is_found_by_the_next(database: Database) -> None:
    entry = audit.entries(database)[2]
    forged = audit.Entry(**{name: getattr(entry, name) for name in entry.__struct_fields__} | {"actor": "mallory"})
    with database.write() as connection:
        values = {"actor": "mallory", "hash": forged.computed}
        connection.execute(update(table).where(table.c.seq == 3).values(values))
    with pytest.raises(Tampered, match=r"entry 4 .* the one before it was replaced"):
        audit.verify(database)


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_removed_entry_is_named_also_the_last(database: Database, number: int) -> None:
    with database.write() as connection:
        connection.execute(delete(table).where(table.c.seq == number))
    with pytest.raises(Tampered, match=f"entry {number} was removed"):
        audit.verify(database)


def test_a_trail_that_was_emptied_is_noticed(database: Database) -> None:
    with database.write() as connection:
        connection.execute(delete(table))
    with pytest.raises(Tampered, match="entry 1 was removed"):
        audit.verify(database)


def test_an_inserted_entry_is_found(database: Database) -> None:
    with database.write() as connection:
        for number in (5, 4):  # make room behind 3
            connection.execute(update(table).where(table.c.seq == number).values(seq=number + 1))
        row = dict(connection.execute(select(table).where(table.c.seq == 3)).one()._mapping)
        connection.execute(insert(table).values(row | {"seq": 4, "hash": "sha256:forged", "previous": row["hash"]}))
    with pytest.raises(Tampered, match="entry 4"):
        audit.verify(database)


def test_a_rewritten_end_is_found(database: Database) -> None:
    with database.write() as connection:
        connection.execute(delete(table).where(table.c.seq >= 4))
    with database.write() as connection:
        for number in (4, 5, 6):
            audit.append(connection, "mallory", "deploy", f"m:{number}")
    with pytest.raises(Tampered, match="entry 5 was replaced"):
        audit.verify(database)


def test_an_entry_stands_or_falls_with_its_change(database: Database) -> None:
    def fail() -> None:
        with audit.transaction(database) as connection:
            audit.append(connection, "olga", "deploy", "m:6")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert audit.verify(database) == 5


def test_a_refusal_says_what_and_why(database: Database) -> None:
    audit.refused(database, "ann", "approve", "m:1", "four_eyes", "ann trained this model")
    entry = audit.entries(database, last=1)[0]
    assert (entry.action, entry.actor, entry.reason) == ("refused", "ann", "ann trained this model")
    assert entry.after == '{"action":"approve","code":"four_eyes"}'


def test_writers_at_the_same_time_make_one_chain(database: Database) -> None:
    def write() -> None:
        for _ in range(5):
            audit.append(database, "olga", "params", "m")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert audit.verify(database) == 25
