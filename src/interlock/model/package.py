"""Model packages on disk: written once, verified whole before anything in them is loaded or run.

`verify` reads every byte into memory and gives those bytes to the loaders, so that nothing can change between the check and
the use.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import msgspec

from interlock.core.errors import InterlockError, NotFound, Tampered
from interlock.core.files import sync_directory
from interlock.core.hashing import canonical, digest, parse_canonical
from interlock.model.manifest import FORMAT, FileEntry, Manifest

MANIFEST = "manifest.json"


class Package(msgspec.Struct, frozen=True):
    """A verified package: digest, manifest and the bytes of its files by path."""

    directory: Path
    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]


def write(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a package into an empty directory and return its digest; `manifest.files` is filled in here."""
    entries = tuple(FileEntry(path, len(data), digest(data)) for path, data in sorted(files.items()))
    content = canonical(msgspec.structs.replace(manifest, files=entries))
    for path, data in {**files, MANIFEST: content}.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_directory(directory)
    return digest(content)


def verify(directory: Path, expected: str | None = None) -> Package:
    """Read and verify a package; `expected` is the digest it must have.

    Raises:
        NotFound: there is no package.
        Tampered: a file is altered, missing, unlisted, a link or outside the package; or the format is unknown.
    """
    if not (directory / MANIFEST).exists():
        raise NotFound(f"no model package at {directory}")
    content = _read(directory, MANIFEST)
    found = digest(content)
    if expected is not None and found != expected:
        raise Tampered(f"the package at {directory.name} has the digest {found}, not {expected}")
    manifest = _manifest(content)
    files = {}
    for entry in manifest.files:
        data = _read(directory, entry.path)
        if len(data) != entry.size or digest(data) != entry.digest:
            raise Tampered(f"{entry.path} of package {found} is not the file that its manifest lists")
        files[entry.path] = data
    strangers = sorted(_walk(directory) - set(files) - {MANIFEST})
    if strangers:
        raise Tampered(f"package {found} holds {strangers[0]}, which its manifest does not list")
    return Package(directory, found, manifest, files)


def read_manifest(directory: Path, expected: str | None = None) -> Manifest:
    """The manifest alone, its own digest verified; for those who do not load the model."""
    content = _read(directory, MANIFEST)
    if expected is not None and digest(content) != expected:
        raise Tampered(f"the manifest at {directory.name} has the digest {digest(content)}, not {expected}")
    return _manifest(content)


def _manifest(content: bytes) -> Manifest:
    data = parse_canonical(content, MANIFEST)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Tampered(f"{MANIFEST} has an unknown format; this version reads format {FORMAT}")
    try:
        return msgspec.convert(data, Manifest)
    except msgspec.ValidationError as error:
        raise Tampered(f"{MANIFEST}: {error}") from error


def _read(directory: Path, path: str) -> bytes:
    parts = PurePosixPath(path).parts
    if not parts or PurePosixPath(path).is_absolute() or ".." in parts or str(PurePosixPath(path)) != path:
        raise Tampered(f"{path!r} is no path inside a package")
    current = directory
    try:
        for part in parts:
            current = current / part
            if current.is_symlink():
                raise Tampered(f"{path} is a link; packages hold plain files")
        if not stat.S_ISREG(current.lstat().st_mode):
            raise Tampered(f"{path} is no plain file")
        return current.read_bytes()
    except FileNotFoundError:
        raise Tampered(f"{path} is missing in the package at {directory.name}") from None
    except OSError as error:
        raise InterlockError(f"{path} of the package at {directory.name} cannot be read: {error.strerror}") from error


def _walk(directory: Path) -> set[str]:
    found = set()
    for folder, folders, names in os.walk(directory, followlinks=False):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found |= {Path(folder, name).relative_to(directory).as_posix() for name in names + links}
    return found
