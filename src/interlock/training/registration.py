"""The one moment in which a version comes into being: number, label and evaluation in one transaction."""

from __future__ import annotations

from typing import Any

import msgspec
from sqlalchemy import select, update

from interlock.evaluation.report import Report, encode
from interlock.model.package import verify
from interlock.registry import evaluations
from interlock.registry.packages import PackageStore
from interlock.registry.versions import Version, Versions
from interlock.release import audit
from interlock.store.database import Database
from interlock.store.tables import runs
from interlock.store.tables import versions as versions_table


def register_version(database: Database, packages: PackageStore, report: Report, run: str) -> Version:
    """Register the published package of a report. Doing it again for the same run changes nothing.

    Raises:
        Tampered: the package is not what was evaluated.
    """
    digest = report.subject.package_digest
    manifest = verify(packages.find(digest), digest).manifest
    versions = Versions(database, packages)
    with audit.transaction(database) as connection:
        known = connection.scalar(select(versions_table.c.version).where(versions_table.c.run_id == run))
        version = versions.register(connection, manifest, digest)
        subject = msgspec.structs.replace(report.subject, version=version.version)
        content = encode(msgspec.structs.replace(report, subject=subject))
        against = report.against.package_digest if report.against else None
        judged = evaluations.store(connection, content, digest, against, report.created)
        connection.execute(update(runs).where(runs.c.id == run).values(version=version.version))
        if known is None:
            after: dict[str, Any] = {"label": version.label, "package": digest, "evaluation": judged, "run": run}
            if manifest.lineage.origin:
                after["origin"] = manifest.lineage.origin
            audit.append(connection, version.author, "register", version.name, None, after)
    return version
