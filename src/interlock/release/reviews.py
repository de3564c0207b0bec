"""A review is bound to what lay before the reviewer: what that was, what of it has changed, and what people said about it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec
from sqlalchemy import Connection, insert, or_, select

from interlock.core.clock import SystemClock, iso, parse_time
from interlock.core.errors import Conflict, Refused, Usage
from interlock.core.hashing import canonical, digest
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.jobs.records import CHANNELS
from interlock.registry import evidence
from interlock.registry.approvals import TAKEN, Approval, Predicate, read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.release import audit
from interlock.release.keys import Keys, prove
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.store.tables import evaluations, review_notes
from interlock.store.tables import evidence as documents

NoteKind = Literal["ready", "comment", "changes", "signature", "override"]


class Seen(msgspec.Struct, frozen=True):
    """What lies before a reviewer: digests of the package, the policy and the newest evidence, and the decisions so far."""

    package: str
    policy: str
    decisions: tuple[str, ...]
    """Names of their files."""
    evaluation: str | None = None
    standard: str | None = None
    diff: str | None = None
    loadtest: str | None = None
    skew: str | None = None

    @property
    def digest(self) -> str:
        """Its name."""
        return digest(canonical(self))

    @property
    def short(self) -> str:
        """What is shown and typed of it."""
        return self.digest.removeprefix("sha256:")[:12]


class Head(msgspec.Struct, frozen=True):
    """A piece of evidence without its content."""

    kind: str
    digest: str
    against: str | None
    created_at: str


class Note(msgspec.Struct, frozen=True):
    """A line of the thread; see the table. `about`: digest of the `Seen` that its author had before them."""

    id: str
    package_digest: str
    kind: NoteKind
    author: str
    at: str
    text: str
    about: str | None
    untold: str | None = " ".join(CHANNELS)


def heads(database: Database, package_digest: str) -> list[Head]:
    """The evidence about a package, the oldest first; a diff with itself is about parameters, not about the version."""
    mine, other = documents.c.package_digest == package_digest, documents.c.against_digest
    judged = select(evaluations.c.digest, evaluations.c.created_at).where(
        evaluations.c.package_digest == package_digest
    )
    beside = select(documents.c.kind, documents.c.digest, other, documents.c.created_at)
    beside = beside.where(mine, documents.c.kind != "seen", or_(other.is_(None), other != package_digest))
    with database.read() as connection:
        reports = connection.execute(judged.order_by(evaluations.c.id)).all()
        others = connection.execute(beside.order_by(documents.c.id)).all()
    return [Head("evaluation", row.digest, None, row.created_at) for row in reports] + [Head(*row) for row in others]


def look(database: Database, version: Version, decisions: Sequence[Approval], trust: TrustRoot) -> Seen:
    """What lies before a reviewer now."""
    newest = {one.kind: one.digest for one in heads(database, version.package_digest)}
    policy = digest(canonical({"mode": trust.mode, "policy": trust.policy}))
    return Seen(version.package_digest, policy, tuple(one.id for one in decisions), **newest)


def keep(connection: Connection, seen: Seen, who: str) -> None:
    """Keep a state in the caller's write transaction, so that later its name is enough to say what has changed."""
    evidence.store(connection, "seen", canonical(seen), seen.package, None, iso(SystemClock().now()), who)


def recall(database: Database, version: Version, name: str) -> Seen:
    """The state that a review showed as `name`: twelve hex digits of its digest, or more.

    Raises:
        Usage: no review of this version did.
    """
    wanted = name.removeprefix("sha256:")
    mine = (documents.c.kind == "seen") & (documents.c.package_digest == version.package_digest)
    with database.read() as connection:
        kept = connection.scalars(select(documents.c.digest).where(mine)).all()
    found = [one for one in kept if len(wanted) >= 12 and one.startswith(f"sha256:{wanted}")]
    if len(found) != 1:
        raise Usage(
            f"no review of {version.name} has shown a state {name!r}", next=f"look: interlock review {version.name}"
        )
    return evidence.decode(evidence.read(database, found[0]), Seen)


def require_unchanged(
    project: Project, database: Database, version: Version, before: Seen, standard: str | None
) -> None:
    """Nothing came since `before`, except the verdict `standard`, which the decision itself made and names.

    To be called within the write transaction of the decision: then nobody can come in between.

    Raises:
        Conflict: says what has changed, and who decided what.
    """
    trust, current = trust_of(project), Versions(database, PackageStore(project.packages)).named(version.name)
    decisions = read_decisions(project.approvals, current.package_digest, trust)
    now = look(database, current, decisions, trust)
    if standard and now.standard == standard:
        before = msgspec.structs.replace(before, standard=standard)
    if now == before:
        return
    pairs = [
        (name, getattr(before, name), getattr(now, name)) for name in Seen.__struct_fields__ if name != "decisions"
    ]
    what = [_replaced(name, old, new) for name, old, new in pairs if old != new]
    what += [sentence(one.predicate) for one in decisions if one.id not in before.decisions]
    what += [f"the decision {one} is gone" for one in before.decisions if one not in now.decisions]
    raise Conflict(
        f"{version.name} is not as it was looked at: {'; '.join(what)}",
        next=f"look again: interlock review {version.name}",
    )


def _replaced(name: str, old: str | None, new: str | None) -> str:
    if old and new:
        return f"the {name} {old} was replaced by {new}"
    return f"the {name} {new} came" if new else f"the {name} {old} is gone"


def sentence(said: Predicate) -> str:
    """`rejected by rita at …: why`."""
    return f"{TAKEN.get(said.decision, 'approved')} by {said.approver} at {said.time}: {said.reason}"


def stale(said: Predicate, found: Sequence[Head]) -> list[str]:
    """What of the evidence that an approval is bound to has been replaced since, a sentence each."""
    bound = (said.evaluation, said.standard, said.diff, said.loadtest)
    return replaced(found, *bound, since=said.time) if said.decision == "approve" else []


def replaced(found: Sequence[Head], *bound: str | None, since: str = "") -> list[str]:
    """Which of these documents are not the newest of their kind, of a diff also beside the same other version.

    `since`: only what was replaced later.
    """
    lines = []
    for mine in (one for one in found if one.digest in bound):
        new = [one for one in found if (one.kind, one.against) == (mine.kind, mine.against)][-1]
        if new != mine and (not since or parse_time(new.created_at) > parse_time(since)):
            lines.append(_replaced(mine.kind, mine.digest, new.digest))
    return lines


def ticked(checklist: Sequence[str], given: Sequence[str]) -> tuple[str, ...]:
    """The items of the checklist that `given` names by number or by how they begin.

    Raises:
        Usage: one of `given` names none of them, or several.
        Refused: an item is not named.
    """
    items, found = list(enumerate(checklist, 1)), set[int]()
    for word in given:
        hits = [number for number, item in items if word == str(number) or item.casefold().startswith(word.casefold())]
        if len(hits) != 1:
            there = "; ".join(f"{number} {item}" for number, item in items) or "empty"
            which = "several items" if hits else "no item"
            raise Usage(f"--checked {word!r} names {which} of the checklist: {there}", next="as in: --checked 1")
        found.update(hits)
    missing = [(number, item) for number, item in items if number not in found]
    if missing:
        raise Refused(
            "the checklist is not done: " + "; ".join(f"{number} {item}" for number, item in missing),
            next="look, then add " + " ".join(f"--checked {number}" for number, _ in missing),
        )
    return tuple(checklist)


def comment(project: Project, database: Database, actor: str, keys: Keys, name: str, text: str) -> Note:
    """Keep what a person of the trust root has to say about a version; it decides nothing.

    Raises:
        NotFound: no such version, or the private key does not lie here.
        Refused: nobody whom the trust root knows.
    """
    if not text.strip():
        raise Usage("a comment without words", next='--text "what you saw"')
    version, trust = Versions(database, PackageStore(project.packages)).named(name), trust_of(project)
    prove(actor, trust, keys)
    seen = look(database, version, read_decisions(project.approvals, version.package_digest, trust), trust)
    with audit.transaction(database) as connection:
        made = note(connection, "comment", actor, iso(SystemClock().now()), text, seen)
        after = {"package": version.package_digest, "about": made.about}
        audit.append(connection, actor, "comment", version.name, None, after, text)
    return made


def note(connection: Connection, kind: NoteKind, author: str, at: str, text: str, seen: Seen) -> Note:
    """Add a line to the thread, in the caller's write transaction; a worker tells of it."""
    keep(connection, seen, author)
    made = Note(uuid7_text(), seen.package, kind, author, at, text, seen.digest)
    connection.execute(insert(review_notes).values(msgspec.structs.asdict(made)))
    return made


def comments(database: Database, package_digest: str) -> list[Note]:
    """What people said about a version without deciding it, the oldest first."""
    mine = (review_notes.c.package_digest == package_digest) & (review_notes.c.kind == "comment")
    with database.read() as connection:
        rows = connection.execute(select(review_notes).where(mine).order_by(review_notes.c.id)).all()
    return [Note(**row._mapping) for row in rows]
