"""Where a project's files are. One place, so that no path is spelled twice."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import msgspec

from interlock.core.errors import Misconfigured
from interlock.core.settings import Settings, load_settings


class Project(msgspec.Struct, frozen=True):
    """A directory with `interlock.toml`; the state of the embedded engines is in `.interlock/` beside it."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Project:
        """The project in `start` (default: `INTERLOCK_PROJECT`, else the current directory) or the nearest parent.

        Raises:
            Misconfigured: there is none.
        """
        here = (start or Path(os.environ.get("INTERLOCK_PROJECT") or Path.cwd())).resolve()
        for directory in (here, *here.parents):
            if (directory / "interlock.toml").is_file():
                return cls(directory)
        raise Misconfigured(f"no interlock.toml in {here} or above it", next="make a project: interlock init DIR")

    @property
    def config(self) -> Path:
        """`interlock.toml`."""
        return self.root / "interlock.toml"

    @property
    def state(self) -> Path:
        """`.interlock/`."""
        return self.root / ".interlock"

    @property
    def database(self) -> Path:
        """The control database."""
        return self.state / "control.db"

    @property
    def packages(self) -> Path:
        """Model packages, a directory each, named by the digest's hex."""
        return self.state / "packages"

    @property
    def approvals(self) -> Path:
        """Signed approvals, a directory per package."""
        return self.state / "approvals"

    @property
    def routes(self) -> Path:
        """Signed route documents, a directory per endpoint."""
        return self.state / "routes"

    @property
    def warehouse(self) -> Path:
        """Catalog and data of the embedded warehouse."""
        return self.state / "warehouse"

    @property
    def journals(self) -> Path:
        """The gateways' journals, a directory per gateway incarnation."""
        return self.state / "journals"

    @property
    def logs(self) -> Path:
        """One log per process; `logs/runs/` one per step attempt."""
        return self.state / "logs"

    @property
    def gateways(self) -> Path:
        """What each gateway slot remembers and acknowledges, a file each."""
        return self.state / "gateways"

    @property
    def work(self) -> Path:
        """Attempt folders of runs and other scratch that a crash may leave behind."""
        return self.state / "work"

    @property
    def locks(self) -> Path:
        """Lock files."""
        return self.state / "locks"

    @property
    def trust(self) -> Path:
        """The signed trust root."""
        return self.state / "trust.json"

    @property
    def sockets(self) -> Path:
        """A 0700 folder with a short name for Unix sockets, whose paths end at 107 bytes."""
        base = os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()
        name = hashlib.sha256(os.fsencode(self.root)).hexdigest()[:12]
        return Path(base) / f"interlock-{os.getuid()}-{name}"

    def make_sockets(self) -> Path:
        """Create the socket folder.

        Raises:
            Misconfigured: somebody else owns the name, or others may enter.
        """
        folder = self.sockets
        folder.mkdir(mode=0o700, exist_ok=True)
        stat = folder.lstat()
        if stat.st_uid != os.getuid() or stat.st_mode & 0o077 or folder.is_symlink():
            raise Misconfigured(f"{folder} is not a private folder of this user", next=f"remove {folder}")
        return folder

    def settings(self) -> Settings:
        """`interlock.toml` under the environment's overrides."""
        return load_settings(self.config)

    def root_fingerprint(self) -> str:
        """The root key's fingerprint that `interlock.toml` pins.

        Raises:
            Misconfigured: `init` has not been run here.
        """
        trust = self.settings().trust
        if trust is None:
            raise Misconfigured("interlock.toml names no [trust] root", next="run: interlock init .")
        return trust.root


def snake(name: str) -> str:
    """`flight-delay` → `flight_delay`: names of tables and environment variables."""
    return name.replace("-", "_")
