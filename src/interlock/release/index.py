"""The database's index of route documents: the files are the truth, this makes them searchable."""

from __future__ import annotations

from sqlalchemy import func, select
from sqlalchemy.dialects.sqlite import insert

from interlock.core.project import Project
from interlock.core.trust import read_trust
from interlock.registry.routes import RouteStore
from interlock.store.database import Database
from interlock.store.tables import routes


def index_routes(project: Project, database: Database) -> int:
    """Add the revisions that are on disk and not yet in the database; how many there were.

    Raises:
        Tampered, NotApproved: a document does not verify; those before it are indexed.
    """
    store, added = RouteStore(project.routes), 0
    fingerprint = project.root_fingerprint()
    for endpoint in store.endpoints():
        with database.read() as connection:
            known = connection.scalar(select(func.max(routes.c.revision)).where(routes.c.endpoint == endpoint)) or 0
        for revision in range(known + 1, store.current(endpoint) + 1):
            route = store.read(endpoint, read_trust(project.trust, fingerprint), revision, past=True)
            row = {
                "endpoint": endpoint,
                "revision": revision,
                "digest": store.digest_of(endpoint, revision),
                "author": route.author,
                "reason": route.reason,
                "time": route.time,
            }
            with database.write() as connection:
                connection.execute(insert(routes).values(row).on_conflict_do_nothing())
            added += 1
    return added
