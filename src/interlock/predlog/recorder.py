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
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import msgspec
import pyarrow as pa

from interlock.core.errors import Corrupt, InterlockError
from interlock.predlog.journal import HEADER, SegmentReader, segments
from interlock.predlog.record import Feedback, Feedbacks, Heartbeat, Prediction, Schema
from interlock.predlog.rows import WINDOW, feedback_tables, heartbeat_table, prediction_tables
from interlock.predlog.sink import RowSink

BATCH_RECORDS, BATCH_ROWS = 5000, 20_000
"""A commit costs about 45 ms of CPU and 3 µs a row, so many rows share one; memory follows the records."""
BATCH_SECONDS = 1.0
PAUSE_SECONDS = 0.2
"""Between two looks at the journals. A look costs as much as reading thirty records, so it waits until there are some."""
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

    def __init__(self, folder: Path, sink: RowSink, say: Callable[[str], None], *, window: timedelta = WINDOW) -> None:
        """`window`: so long before its `at` lies the prediction, at the most, that feedback by unit is about."""
        self.folder = folder
        self.sink = sink
        self.say = say
        self.window = window
        self.rows = 0
        self._marks = sink.marks()
        self._schemas: dict[str, Schema] = {}
        self._open: dict[Path, SegmentReader] = {}
        self._since = self._attribute_at = 0.0
        self._new_batch()

    def _new_batch(self) -> None:
        self._predictions: list[tuple[str, Prediction]] = []
        self._feedback: list[tuple[int, Feedback]] = []
        self._beats: list[Heartbeat] = []
        self._pending: dict[str, int] = {}
        self._size = self._count = 0

    def run(self, stop: threading.Event, until: float = math.inf) -> None:
        """Work until `stop` or the monotonic time `until`, then write what is there.

        A sink that fails is tried again; nothing is dropped.
        """
        pause = PAUSE_SECONDS
        while not stop.is_set() and time.monotonic() < until:
            try:
                self.step()
                pause = PAUSE_SECONDS
            except InterlockError as error:
                self.say(f"cannot write to the warehouse, will try again: {error.message}")
                pause = min(pause * 2, 10.0)
            stop.wait(pause)
        self.step(flush=True)

    def step(self, *, flush: bool = False) -> None:
        """Read what is new, and commit when the batch is large or old enough."""
        gc.disable()  # a batch is two hundred thousand lists and no cycle: looking for some would double the time
        try:
            for path in segments(self.folder):
                self._read(path, whole=flush)
            due = self._full() or (self._pending and time.monotonic() - self._since >= BATCH_SECONDS)
            if due or (flush and self._pending):
                self._commit()
        finally:
            gc.enable()
        self._attribute()
        self._tidy()

    def _attribute(self) -> None:
        began = time.monotonic()
        if began >= self._attribute_at:
            self.sink.attribute()
            self._attribute_at = began + (time.monotonic() - began) / ATTRIBUTE_SHARE

    def _read(self, path: Path, *, whole: bool) -> bool:
        try:
            reader = self._reader(path)
            began = reader.position
            while whole or not self._full():
                before = reader.position
                for record, position in reader.records():
                    self._take(reader, record, position)
                    if self._full():
                        self._commit()
                if reader.position == before:
                    break
        except Corrupt as error:
            self._quarantine(path, error)
            return True
        except FileNotFoundError:
            return False  # its gateway's folder was tidied away between the listing and now
        return reader.position > began

    def _full(self) -> bool:
        return self._count >= BATCH_RECORDS or self._size >= BATCH_ROWS

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

    def _take(self, reader: SegmentReader, record: object, position: int) -> None:
        if not self._pending:
            self._since = time.monotonic()
        self._count += 1
        self._pending[reader.segment] = position
        if isinstance(record, Prediction):
            self._predictions.append((reader.gateway, record))
            self._size += max(1, record.rows)
        elif isinstance(record, Feedbacks):
            self._feedback += enumerate(record.items, position - len(record.items))  # a frame is longer than that
            self._size += len(record.items)
        elif isinstance(record, Heartbeat):
            self._beats.append(record)
        elif isinstance(record, Schema):
            self._schemas[record.package_digest] = record

    def _commit(self) -> None:
        tables: dict[str, pa.Table] = prediction_tables(self._predictions, self._schemas)
        tables |= feedback_tables(self._feedback, self.window)
        if self._beats:
            tables["gateways"] = heartbeat_table(self._beats)
        if tables:
            self.sink.append(tables, self._pending)
            self.rows += self._size
        self._marks |= self._pending
        self._new_batch()

    def _tidy(self) -> None:
        """Delete segments that are sealed and wholly written, and folders of gateways that have none left."""
        for path, reader in list(self._open.items()):
            if reader.segment in self._pending or not reader.sealed():
                continue
            if self._read(path, whole=False) or path not in self._open:
                continue  # something came between the last look and the sealing
            if self._marks.get(reader.segment, HEADER.size) >= reader.position:
                reader.close()
                del self._open[path]
                path.unlink()
                if not any(path.parent.iterdir()):
                    path.parent.rmdir()

    def _quarantine(self, path: Path, error: Corrupt) -> None:
        if self._pending:
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
