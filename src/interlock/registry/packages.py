"""The model repository: immutable packages in a folder, each under the hex of its digest."""

from __future__ import annotations

import os
from pathlib import Path

from interlock.core.errors import NotFound
from interlock.core.files import sync_directory


def package_hex(digest: str) -> str:
    """The 64 hex digits of a package digest: its name on disk."""
    return digest.removeprefix("sha256:")


class PackageStore:
    """Packages by digest. Adding the same package twice is one package."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, digest: str) -> Path:
        """Where the package with that digest is, or would be."""
        return self.folder / package_hex(digest)

    def find(self, digest: str) -> Path:
        """The package's directory.

        Raises:
            NotFound: it is not in the repository.
        """
        path = self.path(digest)
        if not path.is_dir():
            raise NotFound(f"package {digest} is not in the repository")
        return path

    def publish(self, prepared: Path, digest: str) -> Path:
        """Move a written package into the repository by one rename; the folder must lie on the same file system."""
        target = self.path(digest)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not target.is_dir():
            os.rename(prepared, target)
            sync_directory(self.folder)
        return target
