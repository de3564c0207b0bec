"""The one lock under which anything is written. The SQLite catalog is not safe without it: most concurrent commits fail."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from interlock.core.files import locked


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
