"""Evidence beside the evaluation: canonical documents under their digests, which an approval names. Kept for ever."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec
from sqlalchemy import Connection, or_, select

from interlock.core.errors import Corrupt, NotFound, Refused
from interlock.core.hashing import digest
from interlock.core.ids import uuid7_text
from interlock.registry import documents
from interlock.store.database import Database
from interlock.store.tables import evidence

T = TypeVar("T")
Kind = Literal["diff", "loadtest", "skew", "standard", "seen"]
"""`seen`: what lay before a reviewer, `release.reviews.Seen`."""


class Evidence(msgspec.Struct, frozen=True):
    """A stored document; `document` is canonical JSON, whose form its kind decides."""

    id: str
    kind: Kind
    digest: str
    package_digest: str
    against_digest: str | None
    """The other package, where two are compared."""
    created_at: str
    created_by: str
    document: str


def store(
    connection: Connection,
    kind: Kind,
    document: bytes,
    package_digest: str,
    against_digest: str | None,
    created_at: str,
    created_by: str,
) -> str:
    """Keep a document in the caller's write transaction; its digest. The same document twice is one."""
    found = digest(document)
    row = Evidence(uuid7_text(), kind, found, package_digest, against_digest, created_at, created_by, document.decode())
    documents.keep(connection, evidence, row)
    return found


def read(database: Database, document_digest: str) -> Evidence:
    """The document with that digest.

    Raises:
        NotFound: there is none.
        Tampered: the database holds other bytes under it.
    """
    query = select(evidence).where(evidence.c.digest == document_digest)
    found = documents.newest(database, query, Evidence, "document")
    if found is None:
        raise NotFound(f"no evidence {document_digest}", next="see what there is: interlock review MODEL:V")
    return found


def about(database: Database, document_digest: str, kind: Kind, package_digest: str) -> Evidence:
    """A document that somebody named.

    Raises:
        NotFound, Tampered: as `read`. Refused: it is of another kind, or about another package.
    """
    found = read(database, document_digest)
    if (found.kind, found.package_digest) != (kind, package_digest):
        raise Refused(
            f"{document_digest} is a {found.kind} of package {found.package_digest}, not a {kind} of this version"
        )
    return found


def latest(database: Database, kind: Kind, package_digest: str, against_digest: str | None = None) -> Evidence | None:
    """The newest document of a kind about a package (`against_digest`: beside that other one); None = there is none.

    Beside itself, which is about parameters, only where that is asked for.

    Raises:
        Tampered: the database holds other bytes under its digest.
    """
    query = select(evidence).where(evidence.c.kind == kind, evidence.c.package_digest == package_digest)
    other = evidence.c.against_digest
    query = query.where(
        other == against_digest if against_digest is not None else or_(other.is_(None), other != package_digest)
    )
    return documents.newest(database, query, Evidence, "document")


def decode(found: Evidence, form: type[T]) -> T:
    """Read a document as the struct that its kind has.

    Raises:
        Corrupt: it has another format.
    """
    try:
        return msgspec.json.decode(found.document, type=form)
    except msgspec.ValidationError as error:
        raise Corrupt(f"{found.kind} {found.digest} has a form that this version does not read: {error}") from error
