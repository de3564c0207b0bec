"""A project's state, made of a backup: checked to the last byte before anything is put in its place."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
from pathlib import Path, PurePosixPath
from typing import IO

import msgspec

from interlock.core.errors import Conflict, Misconfigured, Tampered
from interlock.core.files import sync_directory
from interlock.core.hashing import canonical, digest, parse_canonical
from interlock.core.ids import uuid7_text
from interlock.core.project import Project
from interlock.deploy.backup import FORMAT, MANIFEST, Kept, Manifest, Say
from interlock.release import audit
from interlock.store.database import Database

SEAL = len("sha256:") + 64
NEXT = "take another backup; this one was not finished, or altered since"


class _Format(msgspec.Struct):
    format: int


def restore(source: Path, target: Path, actor: str, say: Say) -> Manifest:
    """Make a project in `target`, which is empty or not there, of the backup `source`.

    Raises:
        NotFound, Tampered: no backup, or one that was not finished or altered.
        Misconfigured: a newer Interlock wrote it.
        Conflict: the target is not empty.
    """
    target = target.absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise Conflict(f"{target} is not empty, and a restore overwrites nothing", next="--to another directory")
    say("checking the seal")
    _check_seal(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    stage = target.with_name(f".{target.name}.{uuid7_text()}")
    try:
        manifest = _unpack(source, stage, say)
        database = Database(Project(stage).database)
        said = {"backup": digest(canonical(manifest)), "created_at": manifest.created_at}
        audit.append(database, actor, "restore", target.name, None, said)
        database.close()
        os.rename(stage, target)
    finally:
        shutil.rmtree(stage, ignore_errors=True)
    sync_directory(target.parent)
    return manifest


def _check_seal(source: Path) -> None:
    """The last bytes are the SHA-256 of all before them."""
    found = hashlib.sha256()
    try:
        with source.open("rb") as file:
            left = os.fstat(file.fileno()).st_size - SEAL
            while left > 0 and (data := file.read(min(left, 1 << 20))):
                found.update(data)
                left -= len(data)
            seal = file.read()
    except OSError as error:
        raise Conflict(f"{source} cannot be read: {error.strerror}") from error
    if seal != f"sha256:{found.hexdigest()}".encode():
        raise Tampered(f"{source.name} is no whole backup: its content is not what its seal says", next=NEXT)


def _unpack(source: Path, stage: Path, say: Say) -> Manifest:
    """Every file into `stage`, hashed on the way and held against the manifest."""
    found, text = [], b""
    try:
        with tarfile.open(source, "r:") as archive:
            for number, member in enumerate(archive):
                if number % 500 == 0:
                    say(f"  {number} files")
                content = archive.extractfile(member) if member.isfile() else None
                if (
                    content is None
                    or PurePosixPath(member.name).is_absolute()
                    or ".." in PurePosixPath(member.name).parts
                ):
                    raise Tampered(f"{source.name} holds {member.name}, which no backup does", next=NEXT)
                if member.name == MANIFEST:
                    text = content.read()
                else:
                    found.append(_put(content, stage, member))
    except tarfile.TarError as error:
        raise Tampered(f"{source.name} is no backup: {error}", next=NEXT) from error
    manifest = _manifest(text, source)
    if tuple(found) != manifest.files:
        raise Tampered(f"{source.name}: its files are not those of its manifest", next=NEXT)
    return manifest


def _put(content: IO[bytes], stage: Path, member: tarfile.TarInfo) -> Kept:
    path, found = stage / member.name, hashlib.sha256()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        while data := content.read(1 << 20):
            found.update(data)
            file.write(data)
        file.flush()
        os.fsync(file.fileno())
    return Kept(member.name, member.size, f"sha256:{found.hexdigest()}")


def _manifest(text: bytes, source: Path) -> Manifest:
    try:
        value = parse_canonical(text, f"the manifest of {source.name}")
        number = msgspec.convert(value, _Format).format
        if number > FORMAT:
            raise Misconfigured(
                f"{source.name} has format {number}; this version reads {FORMAT}", next="install a newer Interlock"
            )
        return msgspec.convert(value, Manifest)
    except msgspec.ValidationError as error:
        raise Tampered(f"{source.name} has no manifest that can be read: {error}", next=NEXT) from error
