"""Splits: every row in one part, the same rows always in the same part, nothing across a boundary."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from interlock.core.clock import parse_time, to_us
from interlock.core.errors import InvalidData
from interlock.core.settings import SplitSettings
from interlock.training.split import PARTS, Split, settings_of, split
from interlock.training.table import classes_of, read_table

KINDS = ["time", "group", "random"]


def rows(n: int, seed: int = 0) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    ids = np.array([f"id-{i}" for i in range(n)], object)
    return ids, rng.integers(0, n, n) * 1_000_000, np.array([f"g{i}" for i in rng.integers(0, n // 3 + 1, n)], object)


def settings(kind: Any, **more: Any) -> SplitSettings:
    return SplitSettings(kind=kind, group="g" if kind == "group" else "", **more)


def ids_of(found: Split, ids: Any) -> dict[str, set[str]]:
    return {name: set(ids[found.parts[name]]) for name in PARTS}


@given(st.sampled_from(KINDS), st.integers(60, 300), st.integers(0, 5))
def test_every_row_is_in_one_part_whatever_their_order(kind: str, n: int, seed: int) -> None:
    ids, times, groups = rows(n, seed)
    try:
        found = split(settings(kind, seed=seed), ids, times, groups)
    except InvalidData:  # few groups: a part may be empty
        reject()
    assert sorted(np.concatenate(list(found.parts.values())).tolist()) == list(range(n))
    order = np.random.default_rng(seed).permutation(n)
    again = split(settings_of(found.record), ids[order], times[order], groups[order])
    assert ids_of(again, ids[order]) == ids_of(found, ids)
    assert again.record == found.record


@given(st.integers(30, 300), st.integers(0, 9))
def test_by_time_the_parts_follow_each_other(n: int, seed: int) -> None:
    ids, times, groups = rows(n, seed)
    found = split(settings("time"), ids, times, groups)
    train, validation, test = (times[found.parts[name]] for name in PARTS)
    assert train.max() < validation.min()
    assert validation.max() < test.min()
    assert to_us(parse_time(found.record.boundaries["test"])) == test.min()
    assert len(test) >= round(0.2 * n)


@pytest.mark.parametrize(
    ("counts", "rows"),
    [([10, 10, 10, 70], [20, 10, 70]), ([40, 30, 30], [40, 30, 30])],
    ids=str,
)
def test_equal_times_stay_together(counts: list[int], rows: list[int]) -> None:
    times = np.repeat(np.arange(len(counts)), counts)
    found = split(settings("time"), np.array([f"{i}" for i in range(100)], object), times, None)
    assert found.record.rows == dict(zip(PARTS, rows, strict=True))


def test_a_group_is_never_parted() -> None:
    ids, times, groups = rows(500)
    found = split(settings("group"), ids, times, groups)
    names = {name: set(groups[found.parts[name]]) for name in PARTS}
    assert not names["train"] & names["test"]
    assert not names["train"] & names["validation"]
    assert not names["validation"] & names["test"]


@pytest.mark.parametrize("kind", ["group", "random"])
def test_a_row_stays_in_its_part_while_the_table_grows(kind: str) -> None:
    ids, times, groups = rows(900)
    small = ids_of(split(settings(kind), ids[:300], times[:300], groups[:300]), ids[:300])
    large = ids_of(split(settings(kind), ids, times, groups), ids)
    assert all(small[name] <= large[name] for name in PARTS)


@pytest.mark.parametrize("kind", KINDS)
def test_the_fractions_hold(kind: str) -> None:
    ids, times, groups = rows(6000)
    found = split(settings(kind, validation=0.25, test=0.25), ids, times, groups)
    shares = {name: count / 6000 for name, count in found.record.rows.items()}
    assert shares == pytest.approx({"train": 0.5, "validation": 0.25, "test": 0.25}, abs=0.03)


def test_other_seeds_part_other_rows() -> None:
    ids, times, groups = rows(300)
    first, second = (split(settings("random", seed=seed), ids, times, groups) for seed in (1, 2))
    assert first.record.digest != second.record.digest


def test_too_few_rows_are_a_clear_error() -> None:
    with pytest.raises(InvalidData, match="leaves no row for train"):
        split(settings("time"), np.array(["a", "b"], object), np.array([1, 2]), None)


FRAME = pd.DataFrame(
    {
        "id": [1, 2, 3],
        "at": pd.to_datetime(["2026-01-01", "2026-01-02", "2026-01-03"], utc=True),
        "late": [True, False, True],
        "plane": ["N1", None, "N1"],
    }
)


def test_a_table_knows_ids_times_labels_and_groups() -> None:
    table = read_table(FRAME, id="id", event_time="at", label="late", group="plane")
    assert table.ids.tolist() == ["1", "2", "3"]
    assert table.times.tolist() == [to_us(parse_time(f"2026-01-0{day}T00:00:00Z")) for day in (1, 2, 3)]
    assert table.groups is not None
    assert table.groups.tolist() == ["N1", "2", "N1"]
    assert table.take(np.array([2])).labels.tolist() == [True]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"id": [1, 1, 3]}, "not unique"),
        ({"id": [1, None, 3]}, "id id is null in 1 of 3"),
        ({"late": [True, None, None]}, "label late is null in 2 of 3"),
        ({"at": ["soon"] * 3}, "input 'at'"),
    ],
)
def test_a_table_that_is_not_what_was_declared_is_refused(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        read_table(FRAME.assign(**changed), id="id", event_time="at", label="late")


def test_a_missing_column_and_an_empty_extract_are_refused() -> None:
    with pytest.raises(InvalidData, match="no column when"):
        read_table(FRAME, id="id", event_time="when", label="late")
    with pytest.raises(InvalidData, match="no rows"):
        read_table(FRAME.iloc[:0], id="id", event_time="at", label="late")


@pytest.mark.parametrize(
    ("labels", "positive", "classes"),
    [
        ([True, False], None, (False, True)),
        ([1, 0, 1], None, (0, 1)),
        (["stay", "churn"], None, ("churn", "stay")),
        (["stay", "churn"], "churn", ("stay", "churn")),
        ([0, 1], 0, (1, 0)),
    ],
)
def test_the_positive_class_comes_last(labels: list[Any], positive: Any, classes: tuple[Any, ...]) -> None:
    found = classes_of("binary", pd.Series(labels), positive)
    assert found == classes
    assert [type(one) for one in found] == [type(one) for one in classes]


@pytest.mark.parametrize(
    ("labels", "positive", "said"),
    [([1, 2, 3], None, "3 values"), ([1, 1], None, "1 values"), ([1, 2], 5, "positive = 5")],
)
def test_labels_that_do_not_fit_the_task_are_refused(labels: list[Any], positive: Any, said: str) -> None:
    with pytest.raises(InvalidData, match=said):
        classes_of("binary", pd.Series(labels), positive)
