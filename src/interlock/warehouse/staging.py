"""Rows of the log as Parquet files that nobody sees before they are committed: what takes long is done without a lock."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from interlock.core.files import sync_directory
from interlock.core.ids import uuid7

if TYPE_CHECKING:
    import pyarrow as pa


class Staged(dict[str, "pa.Table"]):
    """Tables by name, and the files that hold those of them that go in as a file.

    A file becomes the engine's with the commit; without one it is an orphan, which maintenance deletes an hour later.
    """

    def __init__(self, tables: Mapping[str, pa.Table], folders: Mapping[str, Path]) -> None:
        """`folders`: by table, where a file of it is kept.

        Raises:
            OSError: a file cannot be written.
        """
        super().__init__(tables)
        self.files: dict[str, Path] = {}
        try:
            for name, folder in folders.items():
                path = folder / f"staged-{uuid7()}.parquet"
                _write(self[name], path)
                self.files[name] = path
        except BaseException:  # a full disk should not get fuller with every try
            _remove(self.files.values())
            raise

    def mend(self) -> None:
        """Write again what waited so long that it was deleted. Under the lock, so that this is the last time."""
        for name, path in self.files.items():
            if not path.exists():
                _write(self[name], path)


def _write(table: pa.Table, path: Path) -> None:
    """On disk after this, also when the machine goes down: the engine forces its marks there, and only these."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    texts = [
        field.name for field in table.schema if pa.types.is_string(field.type) or pa.types.is_dictionary(field.type)
    ]
    # A range without a word about NaN, which is above all numbers, would hide rows from whoever asks for more than its end.
    ranges = [
        field.name for field in table.schema if not (pa.types.is_floating(field.type) or pa.types.is_nested(field.type))
    ]
    try:
        pq.write_table(table, path, use_dictionary=texts, write_statistics=ranges, store_schema=False)
        with path.open("rb") as file:
            os.fsync(file.fileno())
        sync_directory(path.parent)
    except BaseException:
        _remove([path])
        raise


def _remove(paths: Iterable[Path]) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            path.unlink()
