"""Rows keep their values on every way of the online wing: checked, packed, unpacked, as lists."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import FIRST_US, LAST_US
from interlock.core.errors import InvalidRequest
from interlock.model import oip
from interlock.model.columns import EXACT, MANY, NAT, check, pack, pack_arrays, to_lists, unpack
from interlock.model.signature import Input, Signature

TIMES = st.sampled_from([FIRST_US, LAST_US]) | st.integers(FIRST_US, LAST_US) | st.integers(-(10**15), 4 * 10**15)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "float": st.floats(allow_nan=False, allow_infinity=False),
    "int": st.integers(-(2**63) + 1, 2**63 - 1),
    "bool": st.booleans(),
    "string": st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    "category": st.sampled_from(["", "a", "ß", "b c"]),
    "timestamp": TIMES,
}


GOOD = {"float": 1.0, "int": 1, "bool": True, "string": "a", "category": "x", "timestamp": 0}
SPECS = [
    Input("a", kind, nullable=nullable)  # type: ignore[arg-type]  # a key of VALUES
    for kind in VALUES
    for nullable in (False, True)
] + [Input("a", "category", unseen="refuse", categories=("", "a", "x"))]


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
def test_arrays_travel_as_the_lists_do(table: Table) -> None:
    rows = len(table.lists[0])
    checked = [check(spec, list(column), rows) for spec, column in zip(table.inputs, table.lists, strict=True)]
    assert pack_arrays(table.signature, arrays_of(table)) == pack(table.signature, checked)


@given(tables())
def test_open_inference_requests_carry_the_same_values(table: Table) -> None:
    signature = table.signature
    body = oip.encode({"inputs": oip.write_inputs(signature, table.lists)})
    rows, columns = oip.read_columns(signature, oip.decode(body))
    assert rows == len(table.lists[0])
    assert to_lists(table.inputs, unpack(signature, pack(signature, columns))) == table.lists


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
        (Input("a", "timestamp"), FIRST_US - 1),
        (Input("a", "timestamp"), LAST_US + 1),
        (Input("a", "timestamp"), 2**63 - 1),
        (Input("a", "timestamp"), "0001-01-01T00:00:00+01:00"),
        (Input("a", "timestamp"), "9999-12-31T23:59:59-01:00"),
        (Input("a", "float"), 10**400),
    ],
)
@pytest.mark.parametrize("before", [0, 2 * MANY])
def test_a_wrong_value_is_refused_by_the_name_of_its_input(spec: Input, value: Any, before: int) -> None:
    with pytest.raises(InvalidRequest, match="input 'a': expected"):
        check(spec, [GOOD[spec.type]] * before + [value], before + 1, iso=True)


@given(st.data())
def test_many_values_are_checked_like_each_alone(data: st.DataObject) -> None:
    spec = data.draw(st.sampled_from(SPECS))
    odd: list[Any] = [
        None,
        True,
        1.5,
        -0.0,
        2**53,
        2**53 + 1,
        2**63,
        10**400,
        math.inf,
        math.nan,
        "x",
        "7",
        [],
        LAST_US,
        LAST_US + 1,
    ]
    values = data.draw(st.lists(st.just(GOOD[spec.type]) | VALUES[spec.type], min_size=MANY + 1, max_size=2 * MANY))
    values += data.draw(st.lists(st.sampled_from([*odd, *values]), max_size=3))
    alone = [outcome(spec, [value]) for value in values]
    refused = [one for one in alone if isinstance(one, str)]
    together = outcome(spec, values)
    assert together in refused if refused else together == [one[0] for one in alone]


def outcome(spec: Input, values: list[Any]) -> list[str] | str:
    """The checked values, NaN and -0.0 told apart; or what is said of one that is wrong."""
    try:
        return [repr(one) for one in check(spec, list(values), len(values))]
    except InvalidRequest as error:
        return error.message


def test_missing_times_are_not_a_time() -> None:
    spec = Input("t", "timestamp", nullable=True, zone="America/New_York")
    signature = Signature("regression", (spec,))
    arrays = unpack(signature, pack(signature, [check(spec, ["2026-07-01T08:00:00-04:00", None], 2, iso=True)]))
    assert arrays[0].tolist() == [1_782_907_200_000_000, NAT]
