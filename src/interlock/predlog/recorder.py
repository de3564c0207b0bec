"""Journals → warehouse, exactly once: rows and the position they came from are one transaction.

On restart the marks say where to go on. A segment is deleted when it is sealed and wholly written; its mark stays seven days.
A sealed segment with a broken frame is put aside in `quarantine/`, never skipped silently.
"""

from __future__ import annotations

import gc
import math
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from interlock.core.errors import Corrupt, InterlockError
from interlock.core.spare import SpareTime
from interlock.predlog.batch import Batch
from interlock.predlog.journal import HEADER, SegmentReader, segments
from interlock.predlog.record import Schema
from interlock.predlog.rows import WINDOW
from interlock.predlog.sink import RowSink

if TYPE_CHECKING:
    import pyarrow as pa

T = TypeVar("T")

PIECE_BYTES = 1 << 20
"""Of a journal, read and turned into columns at once: some ten milliseconds of work."""
BATCH_SECONDS = 1.0
PAUSE_SECONDS = 0.2
"""Between two looks at the journals. A look costs as much as reading thirty records, so it waits until there are some."""
LATE_SECONDS = 10.0
"""So long the recorder leaves answers all the time they want; if it has not read everything by then, it takes its share."""
ATTRIBUTE_SHARE = 0.1
"""Of the time, at the most, feedback by unit is attributed: it looks at the log of a whole window."""
KEEP_MARKS_MS = 7 * 24 * 3600 * 1000


class Backlog(msgspec.Struct, frozen=True):
    """What is on disk and not yet in the warehouse."""

    segments: int
    bytes: int
    quarantined: int


class Recorder:
    """Moves records of every journal under `folder` into `sink`; one at a time (the process holds a lock)."""

    def __init__(
        self,
        folder: Path,
        sink: RowSink,
        say: Callable[[str], None],
        *,
        window: timedelta = WINDOW,
        spare: SpareTime | None = None,
    ) -> None:
        """`window`: so long before its `at` lies the prediction, at the most, that feedback by unit is about.

        `spare`: where it reads and stages while it is not late; None: in the caller's thread.
        """
        self.folder = folder
        self.sink = sink
        self.say = say
        self.window = window
        self.rows = 0
        self._spare = spare
        self._marks = sink.marks()
        self._schemas: dict[str, Schema] = {}
        self._open: dict[Path, SegmentReader] = {}
        self._batch = Batch(window)
        self._staged: tuple[Mapping[str, pa.Table], dict[str, int]] | None = None
        self._attribute_at = 0.0
        self._all_read_at = time.monotonic()

    def run(self, stop: threading.Event, until: float = math.inf) -> None:
        """Work until `stop`, then write what is there; or until the monotonic time `until`, to go on with another sink.

        A sink that fails is tried again; nothing is dropped.
        """
        pause = PAUSE_SECONDS
        while not stop.is_set() and time.monotonic() < until:
            try:
                if self.step():
                    continue
                pause = PAUSE_SECONDS
            except InterlockError as error:
                self.say(f"cannot write to the warehouse, will try again: {error.message}")
                pause = min(pause * 2, 10.0)
            stop.wait(pause)
        if stop.is_set():
            self.step(flush=True)

    def step(self, *, flush: bool = False) -> bool:
        """Read what is new, and commit when the batch is large or old enough; whether there is more to read at once.

        `flush`: read all that there is now, and commit it.
        """
        gc.disable()  # a batch is thousands of lists and no cycle: looking for some would double the time
        try:
            if self._staged is not None:  # it could not be written the last time
                self._commit()
            while (more := self._gather()) and flush:
                self._commit()
            if self._batch and (more or flush or time.monotonic() - self._batch.since >= BATCH_SECONDS):
                self._commit()
        finally:
            gc.enable()
        self._attribute()
        self._tidy()
        return more

    def _attribute(self) -> None:
        began = time.monotonic()
        if began >= self._attribute_at:
            self.sink.attribute()
            self._attribute_at = began + (time.monotonic() - began) / ATTRIBUTE_SHARE

    def _gather(self) -> bool:
        """Read pieces of all journals in turn, up to their ends of now, or until the batch is full: whether it is."""
        behind = True
        while behind:
            behind = False
            for path in segments(self.folder):
                if self._batch.full:
                    return True
                behind |= self._read(path)
        self._all_read_at = time.monotonic()
        return False

    def _read(self, path: Path) -> bool:
        """A piece of a journal; whether there was more than that. What comes meanwhile does not count, or it would never rest."""
        try:
            return self._in_spare_time(partial(self._piece, path))
        except Corrupt as error:
            self._quarantine(path, error)
        except FileNotFoundError:
            pass  # its gateway's folder was tidied away between the listing and now
        return False

    def _in_spare_time(self, work: Callable[[], T]) -> T:
        late = time.monotonic() - self._all_read_at > LATE_SECONDS
        return work() if late or self._spare is None else self._spare.call(work)

    def _piece(self, path: Path) -> bool:
        reader = self._reader(path)
        began, end = reader.position, reader.size()
        try:
            for record, position in reader.records(PIECE_BYTES):
                if isinstance(record, Schema):
                    self._schemas[record.package_digest] = record
                self._batch.add(reader.gateway, reader.segment, record, position)
        finally:
            self._batch.settle(self._schemas)
        return began < reader.position < end

    def _reader(self, path: Path) -> SegmentReader:
        """Opened at the mark; what lies before it is read for its schemas only."""
        reader = self._open.get(path)
        if reader is None:
            reader = SegmentReader(path)
            mark = self._marks.get(reader.segment, HEADER.size)
            while reader.position < mark:
                before = reader.position
                for record, position in reader.records():
                    if isinstance(record, Schema):
                        self._schemas[record.package_digest] = record
                    if position >= mark:
                        reader.position = position
                        break
                if reader.position == before:
                    raise Corrupt(f"segment {reader.segment} ends before byte {mark}, which was already written")
            self._open[path] = reader
        return reader

    def _commit(self) -> None:
        """The last part in our own thread: it holds the warehouse's lock, for which others wait."""
        if self._staged is None:
            self._staged = self._in_spare_time(lambda: self.sink.stage(self._batch.tables())), self._batch.marks
            self._batch = Batch(self.window)
        tables, marks = self._staged
        if tables:
            self.sink.append(tables, marks)
            self.rows += sum(map(len, tables.values()))
        self._marks |= marks
        self._staged = None

    def _tidy(self) -> None:
        """Delete segments that are sealed and wholly written, and folders of gateways that have none left."""
        for path, reader in list(self._open.items()):
            if reader.segment in self._batch.marks or not reader.sealed():
                continue
            self._read(path)  # what came between the last look and the sealing
            if path in self._open and self._marks.get(reader.segment, HEADER.size) >= reader.position:
                reader.close()
                del self._open[path]
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()

    def _quarantine(self, path: Path, error: Corrupt) -> None:
        if self._batch:
            self._commit()
        target = self.folder.parent / "quarantine" / path.name
        target.parent.mkdir(exist_ok=True)
        reader = self._open.pop(path, None)
        if reader is not None:
            reader.close()
        os.replace(path, target)
        self.say(f"{error.message}; kept as {target.name} in quarantine, look at: interlock doctor")

    def forget_old_marks(self) -> None:
        """Drop marks of segments that are gone from disk since seven days; their ids tell their age."""
        there = {path.stem for path in segments(self.folder)}
        limit = time.time_ns() // 1_000_000 - KEEP_MARKS_MS
        old = {segment for segment in self._marks if segment not in there and uuid.UUID(segment).int >> 80 < limit}
        if old:
            self.sink.forget_marks(old)
            for segment in old:
                del self._marks[segment]


def backlog(folder: Path, marks: dict[str, int]) -> Backlog:
    """What waits in the journals under `folder`."""
    waiting = count = 0
    for path in segments(folder):
        behind = path.stat().st_size - marks.get(path.stem, HEADER.size)
        waiting += max(0, behind)
        count += behind > 0
    return Backlog(count, waiting, len(list((folder.parent / "quarantine").glob("*.seg"))))
