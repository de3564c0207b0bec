"""Evaluation reports, kept for ever: canonical JSON under its digest, which an approval names."""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, select

from interlock.core.errors import NotFound
from interlock.core.hashing import digest
from interlock.core.ids import uuid7_text
from interlock.registry import documents
from interlock.store.database import Database
from interlock.store.tables import evaluations


class Evaluation(msgspec.Struct, frozen=True):
    """A stored report; `report` is the canonical JSON of an `evaluation.report.Report`."""

    id: str
    digest: str
    package_digest: str
    against_digest: str | None
    created_at: str
    report: str


def store(
    connection: Connection, report: bytes, package_digest: str, against_digest: str | None, created_at: str
) -> str:
    """Keep a report in the caller's write transaction; its digest. The same report twice is one."""
    found = digest(report)
    row = Evaluation(uuid7_text(), found, package_digest, against_digest, created_at, report.decode())
    documents.keep(connection, evaluations, row)
    return found


def read(database: Database, report_digest: str) -> Evaluation:
    """The report with that digest.

    Raises:
        NotFound: there is none.
        Tampered: the database holds other bytes under it.
    """
    query = select(evaluations).where(evaluations.c.digest == report_digest)
    found = documents.newest(database, query, Evaluation, "report")
    if found is None:
        raise NotFound(f"no evaluation {report_digest}")
    return found


def latest(database: Database, package_digest: str, against_digest: str | None = None) -> Evaluation:
    """The newest report of a package; `against_digest`: only those that compare it with that package.

    Raises:
        NotFound: it has none.
    """
    query = select(evaluations).where(evaluations.c.package_digest == package_digest)
    if against_digest is not None:
        query = query.where(evaluations.c.against_digest == against_digest)
    found = documents.newest(database, query, Evaluation, "report")
    if found is None:
        raise NotFound(f"package {package_digest} has no evaluation", next="make one: interlock evaluate MODEL:V")
    return found
