"""What a decision diff counts, over any decisions: sums add up, a side beside itself changes nothing, quantiles hold."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.evaluation.diff import Changes
from interlock.evaluation.tally import BARS, Compared, Decisions, Tally
from interlock.model.answers import derive, label_codes
from interlock.model.signature import Input, Signature

INPUTS = (Input("x", "float"),)
BINARY = Signature("binary", INPUTS, (False, True))
THREE = Signature("multiclass", INPUTS, ("error", "b", "c"))  # a class may be called as an outcome is
NUMBER = Signature("regression", INPUTS)
ALL = [BINARY, THREE, NUMBER]
finite = st.floats(0, 1, width=16)


def page(signature: Signature, rows: int, rng: np.random.Generator) -> Compared:
    names = Decisions(signature)
    codes = [rng.integers(0, len(names.names) - 2, rows) for _ in range(2)]
    scores = [np.where(rng.random(rows) < 0.9, rng.normal(size=rows), np.nan) for _ in range(2)]
    if signature.task == "regression":
        scores = [np.where(one < names.labels * 2, rng.normal(size=rows), np.nan) for one in codes]
    label = np.where(rng.random(rows) < 0.5, rng.integers(0, names.labels, rows).astype(float), np.nan)
    worth = np.where(rng.random(rows) < 0.7, rng.normal(size=rows), np.nan)
    ids = pa.array([f"{rng.integers(1 << 60):020}" for _ in range(rows)], pa.string())
    slices = [rng.integers(0, 4, rows)]
    return Compared(codes[0], codes[1], scores[0], scores[1], label, worth, slices, ids, rng.integers(0, 2, rows))


def counted(signature: Signature, pages: list[Compared]) -> Changes:
    tally = Tally(Decisions(signature), 1e-9, {"s": ["a", "b", "(missing)", "(other)"]}, "worth")
    for one in pages:
        tally.add(one)
    return tally.result()


def like_a(one: Compared) -> Compared:
    return one._replace(after=one.before, score_after=one.score_before)


@pytest.mark.parametrize("signature", ALL, ids=lambda one: one.task)
@settings(max_examples=30)
@given(sizes=st.lists(st.integers(1, 300), min_size=1, max_size=3), seed=st.integers(0, 2**32))
def test_counts_add_up(signature: Signature, sizes: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    pages = [page(signature, rows, rng) for rows in sizes]
    found = counted(signature, pages)
    changed, labels = found.changed.rows, found.labels
    assert found.rows == sum(sizes) == sum(one.rows for one in found.transitions) == sum(one.n for one in found.slices)
    assert changed == sum(one.rows for one in found.transitions if one.changed)
    assert changed == sum(one.changed for one in found.slices)
    assert labels.helped + labels.harmed + labels.unknown == changed
    assert min(labels.helped, labels.harmed, labels.unknown) >= 0
    assert (sum(one.helped for one in found.slices), sum(one.harmed for one in found.slices)) == (
        labels.helped,
        labels.harmed,
    )
    assert labels.labelled == sum(one.labelled for one in found.transitions)
    assert found.changed.low <= found.changed.share <= found.changed.high
    assert all(one.verdict == "too small" and one.p is None for one in found.slices if one.n < 100)
    assert found.value is not None
    assert found.value.known <= changed
    assert min(20, changed) >= len(found.examples) >= min(10, changed)
    assert len({(one.prediction_id, one.row) for one in found.examples}) == len(found.examples)
    if found.shift is not None:
        assert sum(found.shift.counts) == found.shift.rows
        assert len(found.shift.counts) == BARS


@pytest.mark.parametrize("signature", ALL, ids=lambda one: one.task)
@settings(max_examples=30)
@given(rows=st.integers(1, 300), seed=st.integers(0, 2**32))
def test_a_side_beside_itself_changes_nothing(signature: Signature, rows: int, seed: int) -> None:
    found = counted(signature, [like_a(page(signature, rows, np.random.default_rng(seed)))])
    assert (found.changed.rows, found.changed.share, found.examples) == (0, 0.0, ())
    assert (found.labels.helped, found.labels.harmed, found.labels.unknown, found.labels.p) == (0, 0, 0, 1.0)
    assert not any(one.changed for one in found.transitions)
    if found.shift is not None:
        assert set(found.shift.quantiles.values()) == {0.0}


@given(st.lists(st.tuples(finite, finite, finite), min_size=1, max_size=30), finite)
def test_labels_of_columns_are_those_of_rows(rows: list[tuple[float, float, float]], threshold: float) -> None:
    for signature in (BINARY, THREE):
        numbers = np.array([row[: signature.width] for row in rows])
        answer = derive(signature, numbers.ravel().tolist(), threshold)
        codes = label_codes(signature, numbers, threshold)
        assert [signature.classes[code] for code in codes] == answer.outputs["label"]


@given(st.lists(st.floats(-1e9, 1e9), min_size=1, max_size=500))
def test_quantiles_are_right_to_one_percent(moved: list[float]) -> None:
    zeros = np.zeros(len(moved))
    blank = np.full(len(moved), np.nan)
    codes = zeros.astype(int)
    ids = pa.array(["x"] * len(moved))
    found = counted(NUMBER, [Compared(codes, codes, zeros, np.array(moved), blank, blank, [codes], ids, codes)]).shift
    assert found is not None
    assert found.mean == pytest.approx(np.mean(moved), rel=1e-9, abs=1e-9)
    for name, value in found.quantiles.items():
        true = np.quantile(moved, float(name), method="inverted_cdf")
        assert value == pytest.approx(true, rel=0.0101, abs=2e-12)


def test_numbers_beside_their_formulas() -> None:
    """1000 rows, 60 changed; 25 helped, 10 harmed, all of them in the slice a."""
    before, after = np.zeros(1000, int), np.zeros(1000, int)
    after[:60] = 1
    label = np.full(1000, np.nan)
    label[:25], label[25:35] = 1.0, 0.0
    blank = np.full(1000, np.nan)
    slices = [np.repeat([0, 1], [100, 900])]
    ids = pa.array([f"{i:04}" for i in range(1000)])
    found = counted(BINARY, [Compared(before, after, blank, blank, label, blank, slices, ids, before)])
    z, n, share = 1.959963984540054, 1000, 0.06  # Wilson (1927)
    centre, reach = share + z * z / 2 / n, z * math.sqrt(share * (1 - share) / n + z * z / 4 / n / n)
    ends = (centre - reach) / (1 + z * z / n), (centre + reach) / (1 + z * z / n)
    assert (found.changed.low, found.changed.high) == pytest.approx(ends)
    assert (found.labels.net, found.labels.unknown) == (15, 25)
    assert found.labels.p == pytest.approx(2 * sum(math.comb(35, i) for i in range(11)) / 2**35)
    assert [(one.value, one.verdict) for one in found.slices] == [("a", "helped"), ("b", "less")]
    assert [one.prediction_id for one in found.examples] == ["0000", *(f"{i:04}" for i in range(1, 10))]
