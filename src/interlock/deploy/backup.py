"""A copy of a project's state in one file, made while everything runs.

In which order it is taken makes it whole:

* Under the warehouse's lock its catalog is copied and the journals' segments are held by hard links: nothing is recorded,
  and so no segment deleted, between the two. What the catalog's marks do not cover is in the journals, which are read later.
* Data files never change, and those that the copied catalog names are deleted an hour after nobody needs them, at the earliest.
* Signed files and the trail are taken again until they agree: somebody may be between the one and the other.

The archive is a plain tar file: the files by their paths, the manifest, and behind the end its own SHA-256.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import sqlite3
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO

import msgspec

from interlock import __version__
from interlock.core.clock import SystemClock, iso
from interlock.core.errors import Conflict
from interlock.core.files import locked, sync_directory
from interlock.core.hashing import canonical, digest_file
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.release import acts
from interlock.store.database import Database, copy_database, revision_of

FORMAT = 1
MANIFEST = "backup.json"
SIGNED = ("gateways", "approvals", "routes", "trust", "trust.json", "tokens.dsse.json", "audit.head")
"""What was seen comes before what it was seen of, and older revisions before the newest: neither is ever ahead."""
FIXED = ("packages", "quarantine", "logs/runs", "warehouse/extracts")
AGREE_SECONDS = 5.0
NAMED = """
select distinct schema.path, part.path, file.path,
    schema.path_is_relative and part.path_is_relative and file.path_is_relative
from (
    select table_id, path, path_is_relative from ducklake_data_file
    union all select table_id, path, path_is_relative from ducklake_delete_file
) as file
join (select distinct table_id, schema_id, path, path_is_relative from ducklake_table) as part using (table_id)
join (select distinct schema_id, path, path_is_relative from ducklake_schema) as schema using (schema_id)
"""
"""Every data file that a snapshot of the catalog needs."""
Say = Callable[[str], None]


class Kept(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of the archive, by its path from the project's root."""

    path: str
    size: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a backup holds; the last member of the archive."""

    format: int
    created_at: str
    interlock: str
    migration: str
    root: str
    """Fingerprint of the root key: whoever restores compares it with the one they know."""
    files: tuple[Kept, ...]


def backup(project: Project, target: Path, say: Say) -> Manifest:
    """Write the state to a new file; it appears whole or not at all.

    Raises:
        Conflict: the file exists.
        Tampered, Corrupt: the state is damaged, and a copy of it would be too.
    """
    if target.exists():
        raise Conflict(f"{target} exists, and a backup overwrites nothing", next="choose another name")
    hidden = target.with_name(f".{target.name}.{uuid7_text()}")
    try:
        with locked(project.locks / "backup", timeout=0, holder="another backup"), _staged(project, say) as stage:
            manifest = _write(hidden, stage, say)
        with hidden.open("ab") as file:
            file.write(digest_file(hidden).encode())
            file.flush()
            os.fsync(file.fileno())
        os.link(hidden, target)
    except FileExistsError:
        raise Conflict(f"{target} was made by somebody else meanwhile", next="choose another name") from None
    finally:
        hidden.unlink(missing_ok=True)
    sync_directory(target.absolute().parent)
    return manifest


def _write(hidden: Path, stage: Project, say: Say) -> Manifest:
    paths = sorted(path for path in stage.root.rglob("*") if path.is_file())
    with tarfile.open(hidden, "w") as archive:
        files = []
        for number, path in enumerate(paths):
            if number % 500 == 0:
                say(f"  {number} of {len(paths)} files")
            files.append(_add(archive, str(path.relative_to(stage.root)), path))
        now, migration = iso(SystemClock().now()), revision_of(stage.database) or ""
        manifest = Manifest(FORMAT, now, __version__, migration, stage.root_fingerprint(), tuple(files))
        text = canonical(manifest)
        member = tarfile.TarInfo(MANIFEST)
        member.size = len(text)
        archive.addfile(member, BytesIO(text))
    return manifest


@contextmanager
def _staged(project: Project, say: Say) -> Iterator[Project]:
    """The state in a folder of its own: links to what never changes, copies of what does. Gone afterwards."""
    for left in project.work.glob("backup-*"):  # by one that was killed: we hold the lock
        shutil.rmtree(left)
    stage = Project(project.work / f"backup-{uuid7_text()}")
    stage.state.mkdir(parents=True)
    try:
        shutil.copyfile(project.config, stage.config)
        say("warehouse and journals")
        _warehouse(project, stage)
        say("packages, signed files and the control database")
        for name in FIXED:
            _link(project.state / name, stage.state / name)
        if (project.state / "jobs.db").exists():
            copy_database(project.state / "jobs.db", stage.state / "jobs.db")
        _agreeing(project, stage)
        yield stage
    finally:
        shutil.rmtree(stage.root)


def _warehouse(project: Project, stage: Project) -> None:
    """Catalog and journals at one moment, then the files that the catalog names."""
    catalog = stage.warehouse / "catalog.sqlite"
    if not (project.warehouse / catalog.name).exists():
        _link(project.journals, stage.journals)
        return
    (stage.warehouse / "data").mkdir(parents=True)
    with locked(project.warehouse / "write.lock", holder="interlock backup"):
        copy_database(project.warehouse / catalog.name, catalog)
        _link(project.journals, stage.journals)
    with closing(sqlite3.connect(catalog)) as connection:
        named = connection.execute(NAMED).fetchall()
    for *parts, relative in named:
        path = Path("data", *parts)
        if not relative:
            raise Conflict(f"a file of the warehouse lies outside of it: {path}", next="move it there, then try again")
        _hold(project.warehouse / path, stage.warehouse / path)


def _agreeing(project: Project, stage: Project) -> None:
    """Signed files and the control database at a moment at which they tell the same; if there is none, as they are."""
    end = time.monotonic() + AGREE_SECONDS
    while True:
        for name in SIGNED:
            _link(project.state / name, stage.state / name)
        copy_database(project.database, stage.database)
        database = Database(stage.database)
        differences = acts.differences(stage, database)
        database.close()
        if not differences or time.monotonic() >= end:
            return
        time.sleep(0.1)
        for path in (stage.database, *(stage.state / name for name in SIGNED)):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def _link(source: Path, target: Path) -> None:
    """Hold a file, or all files of a folder; what goes away meanwhile, or is only being written, is left out."""
    paths = (
        [source] if source.is_file() else sorted(source.rglob("[!.]*"), reverse=True)
    )  # `current` before the revisions
    for path in paths:
        if path.is_file() and not path.is_symlink():
            try:
                _hold(path, target if path == source else target / path.relative_to(source))
            except FileNotFoundError:
                continue


def _hold(path: Path, target: Path) -> None:
    """A hard link: whoever deletes or replaces the file leaves us what it was. On another disk it is copied."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(path, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        shutil.copyfile(path, target)


class _Hashed:
    """What is read of a file is hashed on the way."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.hash = hashlib.sha256()

    def read(self, size: int) -> bytes:
        data = self._file.read(size)
        self.hash.update(data)
        return data


def _add(archive: tarfile.TarFile, name: str, path: Path) -> Kept:
    """A file as long as it is now: a segment of the journals may still grow."""
    with path.open("rb") as file:
        member = tarfile.TarInfo(name)
        member.size = os.fstat(file.fileno()).st_size
        hashed = _Hashed(file)
        archive.addfile(member, hashed)  # type: ignore[arg-type] # it is only read
    return Kept(name, member.size, f"sha256:{hashed.hash.hexdigest()}")
