"""The one lock under which anything is written: most concurrent commits to a SQLite catalog fail. And who reads meanwhile."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from interlock.core.errors import Conflict
from interlock.core.files import locked

DRAIN_SECONDS = 0.1
"""For which whoever moves rows waits for readers, and new readers for it."""


class BeingRead(Conflict):
    """Somebody reads, so rows may not move."""

    code = "being_read"


class WriteLock:
    """A lock over processes and threads; nobody keeps it over half a second, because it is not fair.

    `waited`: seconds spent waiting for it since the start, a metric. `longest_hold`: seconds, since it was last set to 0.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.waited = 0.0
        self.longest_hold = 0.0

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold it.

        Raises:
            Conflict: somebody else keeps it for a minute.
        """
        with locked(self._path) as waited:
            self.waited += waited
            start = time.monotonic()
            try:
                yield
            finally:
                self.longest_hold = max(self.longest_hold, time.monotonic() - start)


class ReadLock:
    """Readers beside each other, or one who moves rows that are there already.

    DuckDB's SQLite scanner asks for a table's highest row id when it plans and reads up to it later, on another connection. A
    merge gives the catalog's rows new ids; between the two a reader would find no files, and an empty table.
    """

    def __init__(self, folder: Path) -> None:
        self._door, self._room = folder / "door.lock", folder / "read.lock"

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Read: waits only for who moves rows."""
        with ExitStack() as stack:
            with locked(self._door, shared=True):
                stack.enter_context(locked(self._room, shared=True))
            yield

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Move rows: nobody comes in, and those who read are waited for.

        Raises:
            BeingRead: one of them reads for longer than that.
        """
        with ExitStack() as stack:
            try:
                for path in (self._door, self._room):
                    stack.enter_context(locked(path, timeout=DRAIN_SECONDS))
            except Conflict as error:
                raise BeingRead("somebody reads the warehouse") from error
            yield
