"""What nothing names any more: packages that were never approved, and extracts that no kept package came from.

Kept is whatever a route revision, an approval, a row of the prediction log or the evaluation of a kept package names, the newest
version of each model (the next one is numbered after it), and everything that is younger than asked.
"""

from __future__ import annotations

import os
import shutil
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from sqlalchemy import Connection, delete, select

from interlock.core.clock import Clock, SystemClock
from interlock.core.errors import NotFound
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.core.trust import TrustRoot
from interlock.jobs.records import OPEN
from interlock.model.package import read_manifest
from interlock.registry.approvals import read_decisions
from interlock.registry.packages import PackageStore
from interlock.registry.routes import RouteStore
from interlock.registry.versions import Versions
from interlock.release import audit
from interlock.release.users import trust_of
from interlock.store.database import Database
from interlock.store.tables import evaluations, evidence, extracts, runs
from interlock.warehouse.ducklake import DuckLakeWarehouse, open_warehouse
from interlock.warehouse.port import Warehouse
from interlock.warehouse.session import quoted

LOGGED = "select distinct package_digest from interlock.TABLE where package_digest <> ''"


class Garbage(msgspec.Struct, frozen=True):
    """What can go, or went."""

    packages: tuple[str, ...]
    extracts: tuple[str, ...]
    bytes: int


def collect(project: Project, actor: str, keep: timedelta, *, remove: bool, clock: Clock | None = None) -> Garbage:
    """Find what can go and is older than `keep`; and `remove` it, with an entry in the trail.

    Raises:
        Tampered: a signed file does not verify: what it named cannot be known, so nothing goes.
    """
    before = (clock or SystemClock()).now() - keep
    database, trust, warehouse = Database(project.database), trust_of(project), _warehouse(project)
    named = _routed(project, trust) | _logged(warehouse)
    versions = Versions(database, PackageStore(project.packages))
    with audit.transaction(database) as connection:  # nobody approves or registers meanwhile
        packages = _packages(project, versions, trust, named, _compared(connection), before)
        files = _extracts(project, connection, packages, before)
        size = sum(map(_size, (*packages, *files.values())))
        found = Garbage(tuple(f"sha256:{path.name}" for path in packages), tuple(files), size)
        if remove and (packages or files):
            connection.execute(delete(extracts).where(extracts.c.digest.in_(list(files))))
            what, why = msgspec.to_builtins(found), f"named by nothing, and older than {keep.days} days"
            audit.append(connection, actor, "gc", project.root.name, what, None, why)
            for path in (*packages, *files.values()):
                _remove(path, project.work)
    if warehouse is not None:
        for digest in files if remove else ():
            warehouse.unpin(f"extract {digest}")
        warehouse.close()
    database.close()
    return found


def _warehouse(project: Project) -> DuckLakeWarehouse | None:
    try:
        return open_warehouse(project.warehouse)
    except NotFound:
        return None


def _compared(connection: Connection) -> list[tuple[str, str | None]]:
    """Package and what it was compared with, of every evaluation and every other evidence."""
    return [
        (row.package_digest, row.against_digest)
        for table in (evaluations, evidence)
        for row in connection.execute(select(table.c.package_digest, table.c.against_digest))
    ]


def _extracts(project: Project, connection: Connection, gone: list[Path], before: datetime) -> dict[str, Path]:
    """The extracts that can go; none while a run is under way, for it may have made or found one."""
    if connection.execute(select(runs.c.id).where(runs.c.state.in_(OPEN)).limit(1)).first() is not None:
        return {}
    kept = [path for path in project.packages.glob("[!.]*") if path not in gone]
    lineages = {read_manifest(path, f"sha256:{path.name}").lineage.extract_digest for path in kept}
    rows = connection.execute(select(extracts.c.digest, extracts.c.path)).all()
    files = {digest: project.root / path for digest, path in rows if digest not in lineages}
    return {digest: path for digest, path in files.items() if _older(path, before)}


def _routed(project: Project, trust: TrustRoot) -> set[str]:
    """Every package that a revision of any endpoint names."""
    store = RouteStore(project.routes)
    routes = [
        store.read(endpoint, trust, revision, past=True)
        for endpoint in store.endpoints()
        for revision in range(1, store.current(endpoint) + 1)
    ]
    return {
        one.package_digest
        for route in routes
        for one in (*route.arms, *route.shadows, *((route.standby,) if route.standby else ()))
    }


def _logged(warehouse: Warehouse | None) -> set[str]:
    """Every package that gave a recorded answer. One whose answers are not recorded yet is named by a route."""
    tables = [one.name for one in warehouse.tables()] if warehouse else []
    names = [quoted(name.removeprefix("interlock.")) for name in tables if name.startswith("interlock.predictions_")]
    found = [warehouse.query(LOGGED.replace("TABLE", name)) for name in names] if warehouse else []
    return {digest for table in found for digest in table.column(0).to_pylist()}


def _packages(
    project: Project,
    versions: Versions,
    trust: TrustRoot,
    named: set[str],
    compared: list[tuple[str, str | None]],
    before: datetime,
) -> list[Path]:
    """The packages that can go."""
    newest = {one.model: one.package_digest for one in versions.all()}  # in their order
    gone = {
        f"sha256:{path.name}": path
        for path in sorted(project.packages.glob("[!.]*"))
        if f"sha256:{path.name}" not in named | set(newest.values())
        and _older(path, before)
        and not any(
            one.predicate.decision == "approve"
            for one in read_decisions(project.approvals, f"sha256:{path.name}", trust)
        )
    }
    while needed := [against for package, against in compared if package not in gone and against in gone]:
        for digest in needed:
            gone.pop(str(digest), None)
    return list(gone.values())


def _older(path: Path, before: datetime) -> bool:
    return path.exists() and path.stat().st_mtime < before.timestamp()


def _size(path: Path) -> int:
    return sum(file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file())


def _remove(path: Path, work: Path) -> None:
    """By one rename, so that nobody finds half a package."""
    work.mkdir(exist_ok=True)
    aside = work / f"gone-{uuid7_text()}"
    os.rename(path, aside)
    shutil.rmtree(aside) if aside.is_dir() else aside.unlink()
