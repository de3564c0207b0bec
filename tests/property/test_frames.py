"""Rows keep their values as a frame and back, and in the warehouse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_columns import Table, arrays_of, tables

from interlock.core.clock import FIRST_US, LAST_US
from interlock.core.errors import InvalidData
from interlock.model.columns import EXACT, NAT, check, pack, split, to_lists
from interlock.model.frames import from_frame, to_frame
from interlock.model.signature import Input
from interlock.predlog.record import Field, Prediction, Schema
from interlock.predlog.rows import prediction_tables


@given(tables())
def test_a_frame_gives_the_same_arrays(table: Table) -> None:
    arrays = arrays_of(table)
    frame = to_frame(table.inputs, arrays)
    for values, again in zip(arrays, from_frame(table.inputs, frame), strict=True):
        assert again.dtype == values.dtype
        np.testing.assert_array_equal(again, values)


@given(tables())
def test_the_types_of_a_frame_do_not_hang_on_its_values(table: Table) -> None:
    arrays = arrays_of(table)
    first = to_frame(table.inputs, [values[:1] for values in arrays])
    assert dict(first.dtypes) == dict(to_frame(table.inputs, arrays).dtypes)


@given(tables())
def test_a_feature_function_may_write_into_its_frame(table: Table) -> None:
    arrays = arrays_of(table)
    frame = to_frame(table.inputs, arrays)
    for name in frame:
        frame.loc[0, name] = frame.loc[len(frame) - 1, name]
    assert to_lists(table.inputs, arrays) == table.lists


@pytest.mark.parametrize(
    ("spec", "values", "said"),
    [
        (Input("a", "float"), [None], "not nullable"),
        (Input("a", "float"), [np.inf], "infinite"),
        (Input("a", "int"), [1.5], "fractions"),
        (Input("a", "int", nullable=True), [EXACT * 4, None], "2\\^53"),
        (Input("a", "bool"), [2], "true and false"),
        (Input("a", "string"), [b"x"], "bytes"),
        (Input("a", "timestamp"), pd.to_datetime(["2026-01-01"]), "zone"),
        (Input("a", "timestamp"), pd.DatetimeIndex([np.datetime64(LAST_US + 1, "us")], tz="UTC"), "years 1 to 9999"),
        (Input("a", "timestamp"), pd.DatetimeIndex([np.datetime64(FIRST_US - 1, "us")], tz="UTC"), "years 1 to 9999"),
        (Input("b", "float"), [1.0], "no column b"),
    ],
)
def test_an_extract_that_does_not_fit_is_refused_by_name(spec: Input, values: Any, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        from_frame((spec,), pd.DataFrame({"a": values}))


@pytest.mark.parametrize("zone", ["UTC", "America/New_York", "Asia/Kolkata", "Pacific/Kiritimati", "Etc/GMT+12"])
def test_the_first_and_the_last_time_have_a_local_one_everywhere(zone: str) -> None:
    frame = to_frame((Input("t", "timestamp", zone=zone),), [np.array([FIRST_US, LAST_US])])
    assert frame["t"].dt.minute.between(0, 59).all()
    assert [int(instant.asm8.view("i8")) for instant in frame["t"]] == [FIRST_US, LAST_US]


def test_missing_times_are_not_a_time_in_a_frame() -> None:
    spec = Input("t", "timestamp", nullable=True, zone="America/New_York")
    frame = to_frame((spec,), [np.array([1_782_907_200_000_000, NAT])])
    assert frame["t"].dt.hour.tolist()[0] == 8
    assert frame["t"].isna().tolist() == [False, True]


@given(tables(), st.data())
def test_buffers_and_lists_are_logged_alike(first: Table, data: st.DataObject) -> None:
    """What a gateway logs as buffers is in the warehouse what the lists say; where LOG_INPUTS leaves a column out, null."""
    fields = tuple(Field(f"c{i}", spec.type, spec.nullable) for i, spec in enumerate(first.inputs))
    schema = Schema("sha256:0", fields, ())
    checked = [check(spec, column, len(column)) for spec, column in zip(first.inputs, first.lists, strict=True)]
    out = data.draw(st.sets(st.integers(0, len(fields) - 1)))

    def table(*kept: list[Any]) -> Any:
        records = [record(len(checked[0]), columns) for columns in kept]
        return prediction_tables([(one.prediction_id, one) for one in records], {"sha256:0": schema})

    def some(columns: list[Any]) -> list[Any]:
        return [None if i in out else column for i, column in enumerate(columns)]

    packed = pack(first.signature, checked)
    apart: list[Any] = split(packed[0], len(fields)) if first.signature.numeric else packed  # type: ignore[arg-type]  # bytes
    assert table(packed, packed) == table(checked, checked)
    assert table(packed, some(apart)) == table(checked, some(checked))
    assert table(packed, []) == table(checked, [])


def record(rows: int, inputs: list[Any]) -> Prediction:
    same = "01890000-0000-7000-8000-000000000000"
    return Prediction(
        same, "r", "e", 1, 1, "u", "client", "", 1, "champion", 1.0, "m", 1, "sha256:0", 1, "answered", "", 1, 1, 1,
        rows, inputs, [],
    )  # fmt: skip
