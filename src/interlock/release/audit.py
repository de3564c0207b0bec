"""The audit trail: one entry for every change and every refusal, each holding the hash of the one before it.

The hash is the SHA-256 of the canonical JSON of all other columns. `audit.head` beside the database remembers the
newest entry: a chain alone cannot tell that its end was cut off.
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, insert, select

from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict, Tampered
from interlock.core.files import write_atomic, write_new
from interlock.core.hashing import canonical, digest, parse_canonical
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
    origin: str | None = None
    """Where the actor sat: `host/user` of the operating system. Entries of before 0005 have none, nor is it in their hash."""

    @property
    def computed(self) -> str:
        """The hash that its columns have."""
        values = msgspec.structs.asdict(self)
        del values["hash"]
        if self.origin is None:
            del values["origin"]
        return digest(canonical(values))

    @property
    def values(self) -> tuple[Any, Any]:
        """`before` and `after`, decoded."""
        before, after = (None if text is None else msgspec.json.decode(text) for text in (self.before, self.after))
        return before, after


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
        origin=_origin(),
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


def entries(
    database: Database,
    subject: str = "",
    last: int = 0,
    *,
    actor: str = "",
    action: str = "",
    since: str = "",
    until: str = "",
) -> list[Entry]:
    """The trail in order; of what is named only; from `since` to before `until` (ISO); the `last` so many if not 0."""
    query = select(audit).order_by(audit.c.seq.desc())
    for column, wanted in ((audit.c.subject, subject), (audit.c.actor, actor), (audit.c.action, action)):
        query = query.where(column == wanted) if wanted else query
    query = query.where(audit.c.at >= since) if since else query
    query = query.where(audit.c.at < until) if until else query
    with database.read() as connection:
        rows = connection.execute(query.limit(last) if last else query).all()
    return [Entry(**row._mapping) for row in reversed(rows)]


def verify(database: Database) -> int:
    """Check the whole chain; the number of its entries.

    Raises:
        Tampered: names every entry that was edited, removed or inserted.
    """
    end = _read_head(_head(database))  # before the entries: somebody may be writing
    chain = entries(database)
    require(list(_findings(chain, end)))
    return len(chain)


def export(database: Database, file: Path) -> Head:
    """Write the trail to a new file, a canonical JSON object a line; its end.

    Raises:
        Conflict: the file exists.
    """
    chain = entries(database)
    try:
        write_new(file, b"".join(canonical(entry) + b"\n" for entry in chain))
    except FileExistsError:
        raise Conflict(f"{file} exists", next="choose another name: interlock audit export FILE") from None
    return Head(chain[-1].seq, chain[-1].hash) if chain else Head()


def verify_export(file: Path) -> Head:
    """Check an exported trail with nothing but itself; its end, for nothing in it tells what came after.

    Raises:
        Tampered: names every entry that was edited, removed or inserted, or the line that is none.
    """
    chain = []
    for number, line in enumerate(file.read_bytes().splitlines(), 1):
        try:
            chain.append(msgspec.convert(parse_canonical(line, f"line {number} of {file.name}"), Entry))
        except msgspec.ValidationError as error:
            raise Tampered(f"line {number} of {file.name} is no entry: {error}", next=_NEXT) from error
    require(list(_findings(chain, Head())))
    return Head(chain[-1].seq, chain[-1].hash) if chain else Head()


def require(findings: Sequence[str], next: str = "") -> None:
    """Nothing may have been found; `next`: what to do, where it is known better than here.

    Raises:
        Tampered: something was; names the first ten.
    """
    if findings:
        more = f"; and {len(findings) - 10} more" if len(findings) > 10 else ""
        raise Tampered("; ".join(findings[:10]) + more, next=next or _NEXT)


def _findings(chain: Sequence[Entry], end: Head) -> Iterator[str]:
    """What is wrong with the chain, which should begin at 1 and reach `end`: that may lag behind it after a crash."""
    expected, links = 1, {""}
    intact = True
    for entry in chain:
        name = f"audit entry {entry.seq} ({entry.action} {entry.subject} by {entry.actor}, {entry.at})"
        if entry.seq != expected:
            yield _removed(expected, entry.seq - 1)
        if entry.computed != entry.hash:
            yield f"{name} was edited"
        elif entry.seq == expected and entry.previous not in links:
            yield f"{name} was inserted, or the one before it was replaced"
        intact = intact and (entry.seq, entry.computed) == (expected, entry.hash)
        expected, links = entry.seq + 1, {entry.hash, entry.computed}
        if intact and entry.seq == end.seq and entry.hash != end.hash:
            yield f"audit entry {end.seq} was replaced, or one before it"
    if end.seq >= expected:
        yield _removed(expected, end.seq)


def _removed(first: int, last: int) -> str:
    return f"audit entry {first} was removed" + (f", and those up to {last}" if last > first else "")


_NEXT = "compare control.db with a backup, and with the approvals and routes on disk, which are signed"


class Head(msgspec.Struct, frozen=True):
    """The newest entry that was written."""

    seq: int = 0
    hash: str = ""


def _read_head(path: Path) -> Head:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Head)
    except FileNotFoundError:
        return Head()
    except msgspec.DecodeError as error:
        raise Tampered(f"{path.name} was edited: {error}", next=_NEXT) from None


def _end(connection: Connection) -> Head:
    newest = connection.execute(select(audit.c.seq, audit.c.hash).order_by(audit.c.seq.desc()).limit(1)).first()
    return Head(*newest) if newest else Head()


def _origin() -> str:
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # a container may run as nobody that it knows
        user = str(os.getuid())
    return f"{socket.gethostname()}/{user}"


def _head(database: Database) -> Path:
    return database.path.with_name("audit.head")
