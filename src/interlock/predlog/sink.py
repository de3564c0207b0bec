"""The port through which the recorder writes: `processes/` hands it one, so that doors need not know each other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import pyarrow as pa


class RowSink(Protocol):
    """Appends columnar rows to the tables of the schema `interlock`.

    Law: `append` is one transaction: all rows of all tables and all marks, or nothing. The recorder never hands in frames that
    lie before a mark that `marks()` gave, so every frame is written exactly once.
    """

    def marks(self) -> dict[str, int]:
        """How far each segment was written: segment id → end offset."""
        ...

    def stage(self, tables: Mapping[str, pa.Table]) -> Mapping[str, pa.Table]:
        """The same tables, prepared for `append` without holding what others wait for; nobody sees them yet. In any thread."""
        ...

    def append(self, tables: Mapping[str, pa.Table], marks: Mapping[str, int]) -> int:
        """Write rows by table name and column name; missing tables and columns are made. The snapshot id of the commit.

        `tables`: as they are, or of `stage`; after an error the same ones may be given again.
        """
        ...

    def attribute(self) -> None:
        """Find the predictions that feedback by unit is about; costs nothing where nothing waits for that."""
        ...

    def forget_marks(self, segments: set[str]) -> None:
        """Drop the marks of segments that are long gone from disk."""
        ...
