"""What was read from the journals and is not yet in the warehouse."""

from __future__ import annotations

import time
from collections import defaultdict
from datetime import timedelta

import pyarrow as pa

from interlock.predlog.record import Feedback, Feedbacks, Heartbeat, Prediction, Record, Schema
from interlock.predlog.rows import feedback_tables, heartbeat_table, prediction_tables

BATCH_ROWS = 20_000
"""A commit costs about 20 ms of CPU and 1.5 µs a row, so many rows share one."""


class Batch:
    """Records on their way into columns: `settle` after each piece of a journal, so memory follows the columns.

    `marks`: how far it goes in each segment, which is written with its rows. `since`: the monotonic time of its first record.
    """

    def __init__(self, window: timedelta) -> None:
        self.marks: dict[str, int] = {}
        self.since = 0.0
        self._window = window
        self._size = 0
        self._records: list[tuple[str, Prediction]] = []
        self._tables: defaultdict[str, list[pa.Table]] = defaultdict(list)
        self._feedback: list[tuple[int, Feedback]] = []
        self._beats: list[Heartbeat] = []

    def __bool__(self) -> bool:
        return bool(self.marks)

    @property
    def full(self) -> bool:
        """Whether it should be written before more is read."""
        return self._size >= BATCH_ROWS

    def add(self, gateway: str, segment: str, record: Record, position: int) -> None:
        """`position`: the offset in the segment behind the record."""
        if not self.marks:
            self.since = time.monotonic()
        self.marks[segment] = position
        if isinstance(record, Prediction):
            self._records.append((gateway, record))
            self._size += max(1, record.rows)
        elif isinstance(record, Feedbacks):
            self._feedback += enumerate(record.items, position - len(record.items))  # a frame is longer than that
            self._size += len(record.items)
        elif isinstance(record, Heartbeat):
            self._beats.append(record)
            self._size += 1

    def settle(self, schemas: dict[str, Schema]) -> None:
        """Turn the predictions into columns."""
        for name, table in prediction_tables(self._records, schemas).items():
            self._tables[name].append(table)
        self._records = []

    def tables(self) -> dict[str, pa.Table]:
        """What was settled, and all feedback and heartbeats, by the table into which it goes."""
        found = {name: pa.concat_tables(parts, promote_options="default") for name, parts in self._tables.items()}
        found |= feedback_tables(self._feedback, self._window)
        if self._beats:
            found["gateways"] = heartbeat_table(self._beats)
        return found
