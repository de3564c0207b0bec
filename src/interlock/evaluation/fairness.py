"""Whether a sensitive column decides who gets what: selection rates and error rates of its groups, with intervals."""

from __future__ import annotations

from typing import Literal

import numpy as np
from msgspec import Struct

from interlock.evaluation.metrics import Array, Floats, checked, labels
from interlock.evaluation.resampling import Interval, drawn_cells, percentiles
from interlock.evaluation.slices import MIN_POSITIVES, MIN_ROWS


class Group(Struct, frozen=True):
    """One value of the column. `selected`: share labelled positive; `recall`, `false_alarms`: that share of the positives
    and of the negatives, None where there are none. "too small" groups are in no comparison, and never count as passed.
    """

    value: str
    n: int
    positives: int
    selected: float
    recall: float | None
    false_alarms: float | None
    verdict: Literal["too small", "measured"]


class Estimate(Struct, frozen=True):
    """A number over the measured groups, with its interval."""

    value: float
    interval: Interval


class Fairness(Struct, frozen=True):
    """`selection_ratio`: lowest by highest selection rate (1 = alike; demographic parity). `equalised_odds`: the larger of
    the gaps in recall and in false alarms (0 = alike; Hardt, Price & Srebro 2016). None with fewer than two measured groups.
    """

    column: str
    groups: tuple[Group, ...]
    selection_ratio: Estimate | None
    equalised_odds: Estimate | None


def fairness(
    column: str, texts: Array, y: Array, score: Array, threshold: float, groups: Array | None = None, seed: int = 0
) -> Fairness:
    """The labels of a binary model at the deployed threshold, by the values of a column (one text a row).

    A group is too small with fewer than 100 rows, 20 positives or 20 negatives.

    Raises:
        ValueError: as `metrics.measure`.
    """
    y, score = checked("binary", y, score)
    values, codes = np.unique(texts, return_inverse=True)
    cells = (codes * 4 + y * 2 + labels("binary", score, threshold)).astype(np.int64)
    tables = drawn_cells(cells, 4 * len(values), groups=groups, seed=seed)
    tables = tables.reshape(-1, len(values), 4)  # true negatives, false alarms, misses, hits
    n, positives = tables[0].sum(axis=1), tables[0, :, 2:].sum(axis=1)
    selected, recall, false_alarms = _rates(tables)
    enough = (n >= MIN_ROWS) & (positives >= MIN_POSITIVES) & (n - positives >= MIN_POSITIVES)
    found = tuple(
        Group(
            value=str(value),
            n=int(n[at]),
            positives=int(positives[at]),
            selected=float(selected[0, at]),
            recall=_known(recall[0, at]),
            false_alarms=_known(false_alarms[0, at]),
            verdict="measured" if enough[at] else "too small",
        )
        for at, value in enumerate(values)
    )
    if enough.sum() < 2:
        return Fairness(column, found, None, None)
    selected, recall, false_alarms = (rates[:, enough] for rates in (selected, recall, false_alarms))
    highest = selected.max(axis=1)
    ratio = np.divide(selected.min(axis=1), highest, out=np.ones(len(highest)), where=highest > 0)
    gaps = np.maximum(np.ptp(recall, axis=1), np.ptp(false_alarms, axis=1))
    return Fairness(column, found, _estimate(ratio), _estimate(gaps))


def _rates(tables: Floats) -> tuple[Floats, Floats, Floats]:
    """Selection rate, recall and false alarm rate [draws, groups]; NaN where nothing can be said."""
    no, false_alarm, missed, hit = np.moveaxis(tables, 2, 0)

    def share(part: Floats, whole: Floats) -> Floats:
        known: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
        return known

    return share(false_alarm + hit, tables.sum(axis=2)), share(hit, hit + missed), share(false_alarm, false_alarm + no)


def _estimate(values: Floats) -> Estimate:
    return Estimate(float(values[0]), percentiles(values[1:][np.isfinite(values[1:])]))


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
