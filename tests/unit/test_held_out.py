"""Which rows a version is judged by, and that a report needs no other."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pandas as pd
import pytest

from interlock.core.errors import InvalidData
from interlock.core.settings import SplitSettings
from interlock.evaluation.evaluate import MAX_VALUES, Choices, judge
from interlock.evaluation.held_out import held_out
from interlock.evaluation.report import Subject, decode, encode
from interlock.model.manifest import Author, Lineage, Manifest, Runtime
from interlock.model.signature import Input, Signature
from interlock.training.split import split
from interlock.training.table import parts_of, read_table

COLUMNS = {"id": "id", "event_time": "at", "label": "late"}


def rows(first: int, last: int) -> pd.DataFrame:
    """Rows whose ids and values do not depend on which others are there."""
    ids = np.arange(first, last)
    return pd.DataFrame(
        {
            "id": [f"r{one}" for one in ids],
            "at": pd.to_datetime(ids * 3600, unit="s", utc=True),
            "amount": np.sin(ids),
            "plan": np.where(ids % 3 == 0, "gold", "free"),
            "many": [f"v{one % 50}" if one % 7 else None for one in ids],
            "late": np.sin(ids) + np.cos(ids * 7) > 0,
        }
    )


def manifest(frame: pd.DataFrame) -> Manifest:
    table = read_table(frame, **COLUMNS)
    record = split(SplitSettings(), table.ids, table.times, None).record
    lineage = Lineage("run", "", "select", {}, 1, "sha256:e", record, "", "", "", {}, None, (), "id", "at", "late")
    inputs = (Input("amount", "float"), Input("plan", "category"), Input("many", "category", nullable=True))
    return Manifest(
        1, "churn", Signature("binary", inputs, (False, True)), Runtime("sklearn", "model/model.skops"), ("amount",),
        0.5, 1e-9, "3.11", {}, Author("ann", "k"), "2026-11-01T00:00:00.000000Z", lineage, (),
    )  # fmt: skip


def test_rows_that_the_other_version_was_trained_on_are_left_out() -> None:
    mine, theirs = rows(0, 1000), rows(0, 1200)
    found = held_out(manifest(mine), mine, manifest(theirs), theirs)
    other = parts_of(manifest(theirs), theirs)
    seen = {*other["train"].ids, *other["validation"].ids}
    everything = parts_of(manifest(mine), mine)["test"]
    assert not seen & set(found.table.ids)
    assert found.left_out == len(seen & set(everything.ids)) > 0
    assert len(found.table) + found.left_out == len(everything) == 200
    assert len(found.train) == 700


def test_ids_of_another_kind_leave_nothing_out() -> None:
    mine = rows(0, 1000)
    theirs = mine.assign(id="p" + mine["id"])
    assert held_out(manifest(mine), mine, manifest(theirs), theirs).left_out == 0


def test_there_may_be_none_left() -> None:
    mine, theirs = rows(0, 1000), rows(0, 2000)
    found = held_out(manifest(mine), mine, manifest(theirs), theirs)
    assert (len(found.table), found.left_out) == (0, 200)


def test_an_extract_that_is_not_the_versions_own_is_refused() -> None:
    with pytest.raises(InvalidData, match="does not give the split"):
        held_out(manifest(rows(0, 1000)), rows(0, 999))


def judged(choices: Choices, theirs: Any = None) -> Any:
    frame = rows(0, 2000)
    found = held_out(manifest(frame), frame)
    numbers = np.linspace(0.01, 0.99, len(found.table))[:, None]
    return judge(Subject("churn", 0, "sha256:p"), manifest(frame), found, numbers, theirs, choices)


def test_slices_default_to_categories_of_few_values() -> None:
    assert {one.column for one in judged(Choices(0.5)).slices} == {"plan"}


def test_missing_and_rare_values_are_slices_of_their_own() -> None:
    values = [one.value for one in judged(Choices(0.5, ("many",))).slices]
    assert "(missing)" in values
    assert "(other)" in values
    assert len(values) == MAX_VALUES + 1


def test_a_slice_of_an_absent_column_is_refused() -> None:
    with pytest.raises(InvalidData, match="no column colour"):
        judged(Choices(0.5, ("colour",)))


def test_a_report_comes_back_from_its_bytes() -> None:
    report = judged(Choices(0.4), np.full((400, 1), 0.3))
    assert decode(encode(report).decode()) == report
    assert report.against_metrics["brier"] > 0
    assert {one.metric for one in report.paired} >= {"auc", "accuracy", "brier"}
    assert report.rows.n == 400
    assert report.threshold == 0.4
    other = msgspec.structs.replace(report, threshold=0.5)
    assert encode(other) != encode(report)
