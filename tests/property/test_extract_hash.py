"""The digest of an extract is that of its values: not of chunks or files; and of nothing less than its values."""

from __future__ import annotations

import math
import struct
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from interlock.warehouse.extracts import read_extract, store, value_digest

TYPES: dict[Any, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.int32(): st.integers(-(2**31), 2**31 - 1),
    pa.float64(): st.floats(allow_nan=True),
    pa.float32(): st.floats(width=32, allow_nan=True),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=8),
    pa.binary(): st.binary(max_size=8),
    pa.date32(): st.dates(),
    pa.time64("us"): st.times(),
    pa.timestamp("us", "UTC"): st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC)),
    pa.list_(pa.string()): st.lists(st.none() | st.text(max_size=3), max_size=3),
    pa.list_(pa.float64()): st.lists(st.floats(), max_size=3),
}


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    kinds = draw(st.lists(st.sampled_from(list(TYPES)), min_size=1, max_size=4))
    rows = draw(st.integers(0, 12))
    columns = [pa.array(draw(st.lists(st.none() | TYPES[kind], min_size=rows, max_size=rows)), kind) for kind in kinds]
    return pa.Table.from_arrays(columns, names=[f"c{i}" for i in range(len(columns))])


def rechunked(table: pa.Table, cuts: list[int]) -> pa.Table:
    """The same rows in other pieces: slices that share buffers and start at odd offsets, and empty ones."""
    ends = sorted(cut % (len(table) + 1) for cut in cuts)
    return pa.concat_tables(
        [table.slice(start, end - start) for start, end in zip([0, *ends], [*ends, len(table)], strict=True)]
    )


def same(one: Any, other: Any) -> bool:
    """Equal as values of an extract: NaN is one value, zero has a sign."""
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, float) and isinstance(other, float):
        return (math.isnan(one) and math.isnan(other)) or struct.pack("d", one) == struct.pack("d", other)
    return type(one) is type(other) and bool(one == other)


@given(tables(), st.lists(st.integers(0, 100), max_size=4))
def test_chunks_do_not_matter(table: pa.Table, cuts: list[int]) -> None:
    pieces = rechunked(table, cuts)
    assert value_digest(pieces) == value_digest(table)
    assert value_digest(pieces.combine_chunks()) == value_digest(table)


@given(tables(), st.data())
def test_any_other_value_is_another_digest(table: pa.Table, data: st.DataObject) -> None:
    column = data.draw(st.integers(0, table.num_columns - 1))
    values = table.column(column).to_pylist()
    kind = table.column(column).type
    row = data.draw(st.integers(0, len(values)))
    other = data.draw(st.none() | TYPES[kind])
    changed = [*values[:row], other, *values[row + 1 :]]
    swapped = table.set_column(column, table.column_names[column], pa.array(changed[: len(values)], kind))
    if row < len(values):
        before, after = (pa.array([value], kind)[0].as_py() for value in (values[row], other))
        assert (value_digest(swapped) == value_digest(table)) == same(before, after)


@given(tables())
def test_names_types_order_and_count_matter(table: pa.Table) -> None:
    digest = value_digest(table)
    assert value_digest(table.rename_columns([f"{name}x" for name in table.column_names])) != digest
    assert value_digest(table.append_column("more", pa.nulls(len(table), pa.int64()))) != digest
    assert value_digest(pa.concat_tables([table, table.slice(0, 1)])) != digest or len(table) == 0
    for index, name in enumerate(table.column_names):
        if table.column(index).type == pa.int32():
            wider = table.set_column(index, name, table.column(index).cast(pa.int64()))
            assert value_digest(wider) != digest


@given(text=st.lists(st.text(max_size=3), min_size=2, max_size=5), cut=st.integers(1, 4))
def test_text_does_not_flow_over_from_row_to_row(text: list[str], cut: int) -> None:
    joined = ["".join(text[:cut]), *text[cut:]] + [""] * (len(text) - 1 - len(text[cut:]))
    assert (value_digest(pa.table({"a": joined})) == value_digest(pa.table({"a": text}))) == (joined == text)


def test_what_is_stored_is_what_was_named(tmp_path: Path) -> None:
    @given(tables())
    def check(table: pa.Table) -> None:
        digest, path = store(table, tmp_path)
        assert path.name == f"{digest.removeprefix('sha256:')}.parquet"
        assert value_digest(read_extract(path, digest)) == digest

    check()
