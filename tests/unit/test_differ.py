"""From a page of the log to what is compared: labels, scores and the check of the replay, by task."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from interlock.evaluation.diff import Changes
from interlock.evaluation.differ import Check, compared
from interlock.evaluation.replay import Answered
from interlock.evaluation.tally import Decisions, Tally
from interlock.model.signature import Input, Label, Signature

INPUTS = (Input("x", "float"),)


def page(codes: list[list[int]], numbers: list[Any], **columns: Any) -> Answered:
    rows = len(codes[0])
    given = {
        "label_text": pa.nulls(rows, pa.string()), "label_num": pa.nulls(rows, pa.float64()), "reason": [""] * rows,
        "worth": pa.nulls(rows, pa.float64()), "id": [f"id-{i}" for i in range(rows)], "row": [0] * rows, **columns,
    }  # fmt: skip
    sides = [np.array(one) for one in codes]
    return Answered(
        pa.table(given), np.zeros(rows, int), sides, [np.array(one) for one in numbers], np.zeros(rows, int)
    )


def counted(signature: Signature, found: Answered) -> tuple[Changes, Check]:
    decisions = Decisions(signature)
    tally, check = Tally(decisions, 1e-9, {}), Check(signature, 1e-9, decisions, np.array([True]))
    tally.add(compared(found, signature, 0))
    check.add(found)
    return tally.result(), check


@pytest.mark.parametrize("classes", [("a", "b", "c"), (3, 1, 2)])
def test_multiclass(classes: tuple[Label, ...]) -> None:
    signature = Signature("multiclass", INPUTS, classes)
    refused, nothing = Decisions(signature).code("refused"), [np.nan] * 3
    before = [[0.5, 0.3, 0.2], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], nothing]
    after = [[0.3, 0.5, 0.2], [0.1, 0.7, 0.2], [0.2, 0.2, 0.6], [0.9, 0.05, 0.05]]
    known = [classes[1], classes[1], None, classes[0]]
    name = "label_text" if isinstance(classes[0], str) else "label_num"
    labels = {name: pa.array(known, pa.string() if name == "label_text" else pa.float64())}
    logged = [classes[0], classes[1], classes[0], None]  # the third is not what the model says
    found = page(
        [[0, 1, 2, refused], [1, 1, 2, 0]], [before, after], **labels, out_label=logged,
        outcome=["answered", "answered", "answered", "refused"], out_probabilities=[*before[:3], None],
    )  # fmt: skip
    changes, check = counted(signature, found)
    said = [str(one) for one in classes]
    assert {(one.before, one.after): one.rows for one in changes.transitions if one.changed} == {
        (said[0], said[1]): 1,
        ("refused", said[0]): 1,
    }
    assert (changes.labels.labelled, changes.labels.helped, changes.labels.harmed, changes.labels.unknown) == (
        3,
        1,
        0,
        1,
    )
    assert changes.shift is not None
    assert changes.shift.rows == 3
    assert changes.shift.mean == pytest.approx((-0.2 - 0.1 + 0) / 3)  # of the label that A gives
    assert (check.compared, check.differing, check.examples) == (4, 1, ["id-2"])


def test_regression() -> None:
    signature = Signature("regression", INPUTS)
    found = page(
        [[0, 0, 0, 0], [0, 0, 0, 0]], [[[1.0], [2.0], [3.0], [5.0]], [[1.1], [2.0], [2.0], [5.0 + 1e-10]]],
        label_num=[1.05 + 1e-3, 2.0, 3.0, None], outcome=["answered"] * 4, out_value=[1.0, 2.0, 3.5, 5.0],
    )  # fmt: skip
    changes, check = counted(signature, found)
    rows = {(one.before, one.after): one.rows for one in changes.transitions}
    assert rows == {("value", "higher"): 1, ("value", "lower"): 1, ("value", "value"): 2}
    assert (changes.labels.helped, changes.labels.harmed, changes.labels.labelled) == (1, 1, 3)
    assert (check.compared, check.differing) == (4, 1)
