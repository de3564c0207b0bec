"""News of reviews by webhook and mail: what waits for somebody, told once by a worker, until each channel has taken it."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from sqlalchemy import exists, insert, select, update

from interlock.core.clock import SystemClock, iso
from interlock.core.ids import uuid7_text
from interlock.core.notify import deliver, mail, post
from interlock.core.project import Project
from interlock.core.settings import Settings
from interlock.jobs.records import CHANNELS, Channel
from interlock.registry.approvals import read_decisions
from interlock.registry.packages import PackageStore, package_hex
from interlock.registry.versions import Versions
from interlock.release.reviews import Note, heads
from interlock.release.users import trust_of
from interlock.release.waiting import may_sign
from interlock.store.database import Database
from interlock.store.tables import evaluations, review_notes
from interlock.store.tables import versions as versions_table

log = logging.getLogger("interlock.release")
SAY = {
    "ready": "{name} by {author} is ready for a review",
    "comment": "{author} commented on {name}: {text}",
    "changes": "{author} requested changes of {name}: {text}",
    "signature": "{author} approved {name}, and more people must: {text}",
    "override": "{author} signed that {name} goes past the gate: {text}. It is to be reviewed afterwards",
}


def tell(project: Project, database: Database, settings: Settings) -> bool:
    """Tell what is untold; whether everything was taken. A channel that is not set up counts as told."""
    _notice(project, database)
    query = select(review_notes).where(review_notes.c.untold.is_not(None)).order_by(review_notes.c.id)
    with database.read() as connection:
        rows = connection.execute(query).all()
    waiting = [(Note(**row._mapping), [one for one in CHANNELS if one in row.untold.split()]) for row in rows]
    to = settings.review

    def send(channel: Channel, note: Note) -> None:
        if channel == "webhook" and to.webhook:
            post(to.webhook, document(project, database, note, settings), "[review] webhook")
        if channel == "mail" and to.mail:
            body = document(project, database, note, settings)
            lines = (body["text"], "", body["first_check"], "", f"who may sign: {', '.join(body['who'])}")
            mail(settings.mail, to.mail, f"{body['name']}: a review", "\n".join(lines))

    def told(note: Note, left: list[Channel]) -> None:
        with database.write() as connection:
            same = review_notes.c.id == note.id
            connection.execute(update(review_notes).where(same).values(untold=" ".join(left) or None))

    return deliver(waiting, send, told, lambda note: f"of the review note {note.id}", log)


def document(project: Project, database: Database, note: Note, settings: Settings) -> dict[str, Any]:
    """The news as programs get it: the note's columns, the version, a sentence, what to type, and whom it concerns."""
    versions, trust = Versions(database, PackageStore(project.packages)).all(), trust_of(project)
    version = next(one for one in versions if one.package_digest == note.package_digest)
    decisions = read_decisions(project.approvals, note.package_digest, trust)
    who = may_sign(version, decisions, heads(database, note.package_digest), trust, SystemClock().now())
    return {
        "event": f"review_{note.kind}",
        **msgspec.to_builtins(note),
        "name": version.name,
        "label": version.label,
        "text": SAY[note.kind].format(name=version.name, author=note.author, text=note.text),
        "first_check": f"interlock review {version.name}",
        "who": who,
        "owner": settings.endpoint.owner,
        "playbook": settings.endpoint.playbook,
    }


def _notice(project: Project, database: Database) -> None:
    """Make a note of each version that has got its first evaluation; of one that was decided on before, nobody is told."""
    package = versions_table.c.package_digest
    judged = exists().where(evaluations.c.package_digest == package)
    noted = exists().where(review_notes.c.package_digest == package, review_notes.c.kind == "ready")
    new = select(package, versions_table.c.author).where(judged, ~noted)
    with database.read() as connection:
        rows = connection.execute(new).all()
    for found, author in rows:
        decided = any((project.approvals / package_hex(found)).glob("*.dsse.json"))
        note = Note(uuid7_text(), found, "ready", author, iso(SystemClock().now()), "", None)
        values = msgspec.structs.asdict(note) | ({"untold": None} if decided else {})
        with database.write() as connection:
            connection.execute(insert(review_notes).values(values))
