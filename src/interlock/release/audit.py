"""The audit trail: one entry for every change and every refusal, each holding the hash of the one before it.

The hash is the SHA-256 of the canonical JSON of all other columns. `audit.head` beside the database remembers the
newest entry: a chain alone cannot tell that its end was cut off.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Tampered
from interlock.core.files import write_atomic
from interlock.core.hashing import canonical, digest
from interlock.store.database import Database
from interlock.store.tables import audit


class Entry(msgspec.Struct, frozen=True):
    """One line of the trail; `before` and `after` are JSON text or None."""

    seq: int
    at: str
    actor: str
    action: str
    subject: str
    before: str | None
    after: str | None
    reason: str
    previous: str
    """Hash of the entry before; empty for the first."""
    hash: str

    @property
    def computed(self) -> str:
        """The hash that its columns have."""
        return digest(
            canonical({name: value for name, value in msgspec.structs.asdict(self).items() if name != "hash"})
        )


def append(
    where: Connection | Database,
    actor: str,
    action: str,
    subject: str,
    before: Any = None,
    after: Any = None,
    reason: str = "",
) -> int:
    """Write an entry and return its number.

    A connection comes from `transaction` (or `Database.write`): the entry stands or falls with the change it tells of.
    A database gives the entry a transaction of its own.
    """
    if isinstance(where, Database):
        with transaction(where) as connection:
            return append(connection, actor, action, subject, before, after, reason)
    end = _end(where)
    entry = Entry(
        seq=end.seq + 1,
        at=iso(SystemClock().now()),
        actor=actor,
        action=action,
        subject=subject,
        before=None if before is None else canonical(before).decode(),
        after=None if after is None else canonical(after).decode(),
        reason=reason,
        previous=end.hash,
        hash="",
    )
    entry = msgspec.structs.replace(entry, hash=entry.computed)
    where.execute(insert(audit).values(msgspec.structs.asdict(entry)))
    return entry.seq


@contextmanager
def transaction(database: Database) -> Iterator[Connection]:
    """A write transaction with entries in it; afterwards `audit.head` knows the new end."""
    with database.write() as connection:
        yield connection
        end = _end(connection)
    write_atomic(_head(database), canonical(end))


def refused(database: Database, actor: str, action: str, subject: str, code: str, reason: str) -> int:
    """Write down that the gate said no to `action`; see `append`."""
    return append(database, actor, "refused", subject, None, {"action": action, "code": code}, reason)


def entries(database: Database, subject: str = "", last: int = 0) -> list[Entry]:
    """The trail in order; of one subject if named; the `last` so many entries if not 0."""
    query = select(audit).order_by(audit.c.seq.desc())
    if subject:
        query = query.where(audit.c.subject == subject)
    with database.read() as connection:
        rows = connection.execute(query.limit(last) if last else query).all()
    return [Entry(**row._mapping) for row in reversed(rows)]


def verify(database: Database) -> int:
    """Check the whole chain; the number of its entries.

    Raises:
        Tampered: names the first entry that was edited, removed or inserted.
    """
    end = _read_head(_head(database))  # before the entries: somebody may be writing
    hashes = [""]
    for expected, entry in enumerate(entries(database), 1):
        if entry.seq != expected:
            raise Tampered(f"audit entry {expected} was removed", next=_NEXT)
        name = f"audit entry {entry.seq} ({entry.action} {entry.subject} by {entry.actor}, {entry.at})"
        if entry.computed != entry.hash:
            raise Tampered(f"{name} was edited", next=_NEXT)
        if entry.previous != hashes[-1]:
            raise Tampered(f"{name} was inserted, or the one before it was replaced", next=_NEXT)
        hashes.append(entry.hash)
    if end.seq >= len(hashes):  # it may lag behind after a crash, but never know more than the trail
        raise Tampered(f"audit entry {len(hashes)} was removed", next=_NEXT)
    if hashes[end.seq] != end.hash:
        raise Tampered(f"audit entry {end.seq} was replaced, or one before it", next=_NEXT)
    return len(hashes) - 1


_NEXT = "compare control.db with a backup, and with the approvals and routes on disk, which are signed"


class _Head(msgspec.Struct, frozen=True):
    """The newest entry that was written."""

    seq: int = 0
    hash: str = ""


def _read_head(path: Path) -> _Head:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Head)
    except FileNotFoundError:
        return _Head()
    except msgspec.DecodeError as error:
        raise Tampered(f"{path.name} was edited: {error}", next=_NEXT) from None


def _end(connection: Connection) -> _Head:
    newest = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    return _Head(*newest) if newest else _Head()


def _head(database: Database) -> Path:
    return database.path.with_name("audit.head")
