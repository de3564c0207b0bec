"""The law of `warehouse.port.Warehouse.stage`: rows that wait are seen by nobody, are written once and lose nothing."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from tests.warehouses import rows

from interlock.core.errors import InvalidData
from interlock.core.ids import uuid7
from interlock.warehouse.port import Warehouse

COUNT = "select count(*), count(distinct prediction_id) from interlock.predictions_e"


def batch(number: int, **more: pa.Array | list[object]) -> dict[str, pa.Table]:
    ids = pa.array([uuid7().bytes for _ in range(number)], pa.uuid())
    return {"predictions_e": pa.table({"prediction_id": ids, "role": ["live"] * number} | more)}


def test_what_is_staged_is_seen_once_it_is_appended(warehouse: Warehouse, again: Callable[[], Warehouse]) -> None:
    first, second = (warehouse.stage(batch(n)) for n in (10, 20))
    assert warehouse.tables() == []
    other = again()
    other.append(second, {"s": 2})
    assert rows(warehouse, COUNT) == [(20, 20)]
    then = warehouse.append(first, {"s": 3})
    assert [rows(one, COUNT) for one in (warehouse, other)] == [[(30, 30)]] * 2
    assert warehouse.append(warehouse.stage({}), {}) == then
    assert warehouse.marks() == {"s": 3}


def test_what_is_given_again_after_an_error_is_there_once(warehouse: Warehouse) -> None:
    warehouse.append(batch(1, in_x=[1.0]), {"s": 1})
    good, bad = batch(5, in_x=[2.0] * 5), batch(5, in_x=["2"] * 5)
    staged = warehouse.stage(good | {"predictions_f": bad["predictions_e"], "other": pa.table({"a": [1, 2]})})
    wrong = warehouse.stage({"predictions_f": good["predictions_e"], "predictions_e": bad["predictions_e"]})
    with pytest.raises(InvalidData, match="input 'x'"):
        warehouse.append(wrong, {"s": 2})
    assert warehouse.marks() == {"s": 1}
    warehouse.append(staged, {"s": 3})
    assert rows(warehouse, COUNT) == [(6, 6)]
    assert rows(warehouse, "select count(*) from interlock.predictions_f where in_x = '2'") == [(5,)]
    assert rows(warehouse, "select sum(a) from interlock.other") == [(3,)]


def test_what_waited_too_long_is_written_again(warehouse: Warehouse) -> None:
    """Maintenance deletes files that nobody has committed for an hour; whoever holds them may still come."""
    warehouse.append(batch(3), {"s": 1})
    staged, never = (warehouse.stage(batch(10)) for _ in range(2))
    assert warehouse.maintain().deleted_files == 0
    assert warehouse.maintain(grace=timedelta(0)).deleted_files >= 2
    warehouse.append(staged, {"s": 2})
    assert rows(warehouse, COUNT) == [(13, 13)]
    assert len(never["predictions_e"]) == 10


def test_every_value_comes_back_and_is_found(warehouse: Warehouse) -> None:
    """Also NaN, which is above all numbers: a file that says up to where its numbers go must not hide it."""
    nan, inf, far = float("nan"), float("inf"), datetime(9999, 12, 31, tzinfo=UTC)
    columns = {
        "in_float": pa.array([nan, 0.1, None, -0.0]),
        "in_more": pa.array([inf, -inf, nan, 5e-324]),
        "in_int": pa.array([None, 2**63 - 1, -(2**63), 0], pa.int64()),
        "in_bool": pa.array([True, None, False, True]),
        "in_text": pa.array(["ä", "x" * 5000, "", None]),
        "in_category": pa.array(["a", "b", None, "a"]).dictionary_encode(),
        "in_time": pa.array([far, datetime(1, 1, 1, tzinfo=UTC), None, far], pa.timestamp("us", "UTC")),
        "in_nothing": pa.nulls(4, pa.string()),
        "out_floats": pa.array([[0.5, nan], [], None, [1.0]], pa.list_(pa.float64())),
        "rules": pa.array([["one", "two"], [], [], None], pa.list_(pa.string())),
    }
    tables = batch(4, row=pa.array(range(4), pa.int32()), **columns)
    for number in range(3):
        warehouse.append(tables, {"s": number + 1})
    for _ in range(2):
        found = warehouse.query(f'select {", ".join(columns)} from interlock.predictions_e order by "row" limit 12')
        expected = pa.concat_tables([tables["predictions_e"]] * 3).sort_by("row").select(list(columns))
        assert repr(found.to_pydict()) == repr(expected.cast(found.schema).to_pydict())
        for where, count in (
            ("in_float > 100", 1), ("in_float = 'nan'::double", 1), ("in_float < 1", 2), ("in_more >= 'inf'::double", 2),
            ("in_int > 5", 1), ("in_text > 'x'", 2), ("in_category = 'a'", 2), ("in_time > '3000-01-01'", 2),
            ("in_nothing is null", 4), ("list_contains(rules, 'two')", 1), ("in_bool", 2),
        ):  # fmt: skip
            assert rows(warehouse, f"select count(*) from interlock.predictions_e where {where}") == [(3 * count,)], (
                where
            )
        ends = "select min(in_float), isnan(max(in_float)), min(in_int), max(in_int) from interlock.predictions_e"
        assert rows(warehouse, ends) == [(-0.0, True, -(2**63), 2**63 - 1)]
        warehouse.maintain(grace=timedelta(0))
