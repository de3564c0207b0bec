"""Rows keep their values on every way: checked, packed, unpacked, as lists, as a frame and back."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import InvalidData, InvalidRequest
from interlock.model import oip
from interlock.model.columns import EXACT, NAT, check, pack, split, to_lists, unpack
from interlock.model.frames import from_frame, to_frame
from interlock.model.signature import Input, Signature
from interlock.predlog.record import Field, Prediction, Schema
from interlock.predlog.rows import prediction_tables

TIMES = st.integers(-(10**15), 4 * 10**15)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "int": st.integers(-(2**63) + 1, 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "category": st.sampled_from(["", "a", "ß", "b c"]),
    "timestamp": TIMES,
}


class Table(NamedTuple):
    inputs: tuple[Input, ...]
    lists: list[list[Any]]

    @property
    def signature(self) -> Signature:
        return Signature("regression", self.inputs)


@st.composite
def tables(draw: st.DrawFn) -> Table:
    rows = draw(st.integers(1, 6))
    inputs, lists = [], []
    kinds = draw(st.just(["float"]) | st.just(list(VALUES)))  # numbers alone travel as one buffer
    for at, kind in enumerate(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=6))):
        nullable = draw(st.booleans())
        values = st.integers(-EXACT, EXACT) if kind == "int" and nullable else VALUES[kind]
        column = draw(st.lists(st.none() | values if nullable else values, min_size=rows, max_size=rows))
        zone = draw(st.sampled_from(["UTC", "America/New_York"]))
        inputs.append(Input(f"{kind}_{at}", kind, nullable=nullable, zone=zone))  # type: ignore[arg-type]  # a key of VALUES
        lists.append(column)
    return Table(tuple(inputs), lists)


def arrays_of(table: Table) -> list[Any]:
    rows = len(table.lists[0])
    columns = [check(spec, list(column), rows) for spec, column in zip(table.inputs, table.lists, strict=True)]
    return unpack(table.signature, pack(table.signature, columns))


@given(tables())
def test_raw_values_come_back_from_the_wire(table: Table) -> None:
    assert to_lists(table.inputs, arrays_of(table)) == table.lists


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


@given(tables())
def test_open_inference_requests_carry_the_same_values(table: Table) -> None:
    signature = table.signature
    body = oip.encode({"inputs": oip.write_inputs(signature, table.lists)})
    rows, columns = oip.read_columns(signature, oip.decode(body))
    assert rows == len(table.lists[0])
    assert to_lists(table.inputs, unpack(signature, pack(signature, columns))) == table.lists


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
        (Input("b", "float"), [1.0], "no column b"),
    ],
)
def test_an_extract_that_does_not_fit_is_refused_by_name(spec: Input, values: Any, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        from_frame((spec,), pd.DataFrame({"a": values}))


@pytest.mark.parametrize(
    ("spec", "value"),
    [
        (Input("a", "float"), "1"),
        (Input("a", "float"), True),
        (Input("a", "float"), float("nan")),
        (Input("a", "float"), None),
        (Input("a", "int"), 1.5),
        (Input("a", "int"), 2**63),
        (Input("a", "int", nullable=True), EXACT + 1),
        (Input("a", "int"), True),
        (Input("a", "bool"), 1),
        (Input("a", "string"), 1),
        (Input("a", "category", unseen="refuse", categories=("x",)), "y"),
        (Input("a", "timestamp"), "2026-01-01T00:00:00"),
        (Input("a", "timestamp"), "soon"),
    ],
)
def test_a_wrong_value_is_refused_by_the_name_of_its_input(spec: Input, value: Any) -> None:
    with pytest.raises(InvalidRequest, match="input 'a'"):
        check(spec, [value], 1, iso=True)


def test_missing_times_are_not_a_time() -> None:
    spec = Input("t", "timestamp", nullable=True, zone="America/New_York")
    signature = Signature("regression", (spec,))
    arrays = unpack(signature, pack(signature, [check(spec, ["2026-07-01T08:00:00-04:00", None], 2, iso=True)]))
    assert arrays[0].tolist() == [1_782_907_200_000_000, NAT]
    frame = to_frame((spec,), arrays)
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
