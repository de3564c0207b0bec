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
WHOLE = "put it back as it was from a backup, or make it again: interlock train"


class Package(msgspec.Struct, frozen=True):
    """A verified package: digest, manifest and the bytes of its files by path."""

    directory: Path
    digest: str
    manifest: Manifest
    files: Mapping[str, bytes]


def write(directory: Path, manifest: Manifest, files: Mapping[str, bytes]) -> str:
    """Write a package into an empty directory and return its digest; `manifest.files` is filled in here."""
    content = canonical(msgspec.structs.replace(manifest, files=entries(files)))
    write_files(directory, {**files, MANIFEST: content})
    return digest(content)


def entries(files: Mapping[str, bytes]) -> tuple[FileEntry, ...]:
    """The list of files that a manifest holds."""
    return tuple(FileEntry(path, len(data), digest(data)) for path, data in sorted(files.items()))


def write_files(directory: Path, files: Mapping[str, bytes]) -> None:
    """Write files into an empty directory, on disk before this returns."""
    for path, data in files.items():
        target = directory / path
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    sync_directory(directory)


def verify(directory: Path, expected: str | None = None) -> Package:
    """Read and verify a package; `expected` is the digest it must have.

    Raises:
        NotFound: there is no package.
        Tampered: a file is altered, missing, unlisted, a link or outside the package; or the format is unknown.
    """
    if not (directory / MANIFEST).exists():
        raise NotFound(f"no model package at {directory}")
    content = read_file(directory, MANIFEST)
    found = digest(content)
    if expected is not None and found != expected:
        raise Tampered(f"the package at {directory.name} has the digest {found}, not {expected}", next=WHOLE)
    manifest = _manifest(content)
    return Package(directory, found, manifest, read_listed(directory, manifest.files, MANIFEST))


def read_listed(directory: Path, listed: tuple[FileEntry, ...], index: str) -> dict[str, bytes]:
    """The bytes of all files in a directory by path, each as `index`, a file there too, lists it.

    Raises:
        Tampered: a file is altered, missing, unlisted, a link or outside the directory.
    """
    files = {}
    for entry in listed:
        data = read_file(directory, entry.path)
        if len(data) != entry.size or digest(data) != entry.digest:
            raise Tampered(f"{entry.path} in {directory.name} is not the file that {index} lists", next=WHOLE)
        files[entry.path] = data
    strangers = sorted(_walk(directory) - set(files) - {index})
    if strangers:
        raise Tampered(f"{directory.name} holds {strangers[0]}, which {index} does not list", next=WHOLE)
    return files


def read_manifest(directory: Path, expected: str | None = None) -> Manifest:
    """The manifest alone, its own digest verified; for those who do not load the model."""
    content = read_file(directory, MANIFEST)
    if expected is not None and digest(content) != expected:
        raise Tampered(f"the manifest at {directory.name} has the digest {digest(content)}, not {expected}", next=WHOLE)
    return _manifest(content)


def _manifest(content: bytes) -> Manifest:
    data = parse_canonical(content, MANIFEST)
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise Tampered(f"{MANIFEST} has an unknown format; this version reads format {FORMAT}")
    try:
        return msgspec.convert(data, Manifest)
    except msgspec.ValidationError as error:
        raise Tampered(f"{MANIFEST}: {error}") from error


def read_file(directory: Path, path: str) -> bytes:
    """A plain file of a directory.

    Raises:
        Tampered: it is missing, a link, no plain file, or the path leads outside.
    """
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
        raise Tampered(f"{path} is missing in {directory.name}", next=WHOLE) from None
    except OSError as error:
        raise InterlockError(f"{path} of {directory.name} cannot be read: {error.strerror}") from error


def _walk(directory: Path) -> set[str]:
    found = set()
    for folder, folders, names in os.walk(directory, followlinks=False):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found |= {Path(folder, name).relative_to(directory).as_posix() for name in names + links}
    return found
