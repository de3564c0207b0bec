"""How numbers would scatter over other samples: rows drawn with replacement, within strata, or as whole groups where they
cluster; and the influence of each row, where a formula gives it in one pass.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
import scipy
from msgspec import Struct

from interlock.core.settings import Task
from interlock.evaluation import metrics
from interlock.evaluation.metrics import Array, Floats, checked

LEVEL = 0.95
DRAWS = 2000
_BLOCK = 32  # draws that are multiplied at once
Z = 1.959963984540054
"""The normal quantile of that level."""


class Interval(Struct, frozen=True):
    """Two-sided 95 % interval of a number, and how it was made."""

    low: float
    high: float
    method: Literal["bootstrap", "delong", "delta"]


def intervals(
    task: Task, y: Array, output: Array, threshold: float = 0.5, groups: Array | None = None, seed: int = 0
) -> dict[str, Interval]:
    """Of the metrics of one version, by name; empty with fewer than two rows, or two groups.

    Bootstrap of 2000 draws of rows, or of groups; AUC by DeLong, average precision by its influence function. The
    calibration error has none: a resample adds error of its own, and near zero no interval from it is honest.
    """
    y, output = checked(task, y, output)
    if len(y if groups is None else np.unique(groups)) < 2:
        return {}
    found = {}
    terms = metrics.row_terms(task, y, output, threshold)
    columns = [part for ratio in terms.values() for part in ratio]
    sums = drawn_sums(np.hstack(columns), groups=groups, seed=seed)
    parts = iter(np.split(sums, np.cumsum([column.shape[1] for column in columns])[:-1], axis=1))
    for name in terms:
        drawn = metrics.ratio_value(name, next(parts), next(parts))
        known = drawn[1:][np.isfinite(drawn[1:])]
        if np.isfinite(drawn[0]) and len(known) > DRAWS / 2:
            found[name] = percentiles(known)
    if task == "binary" and 2 <= y.sum() <= len(y) - 2:
        se = standard_error(auc_influence(y, output), y, groups)
        found["auc"] = _normal(metrics.auc(y, output), se, "delong")
        se = standard_error(precision_influence(y, output), None, groups)
        found["average_precision"] = _normal(metrics.average_precision(y, output), se, "delta")
    return {name: found[name] for name in metrics.metrics_of(task) if name in found}


def _normal(value: float, se: float, method: Literal["delong", "delta"]) -> Interval:
    return Interval(max(value - Z * se, 0.0), min(value + Z * se, 1.0), method)


def percentiles(drawn: Array) -> Interval:
    """The 95 % in the middle of what the draws gave."""
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high), "bootstrap")


def drawn_sums(
    rows: Floats, *, strata: Array | None = None, groups: Array | None = None, draws: int = DRAWS, seed: int = 0
) -> Floats:
    """Sums [1 + draws, k] of `rows` [n, k]: the observed ones, then those of every draw. A draw is a vector of row
    counts, so one product gives all sums of all numbers.

    Raises:
        ValueError: not one stratum a row (rows are groups where there are groups).
    """
    if groups is not None:
        codes = _numbers(groups)
        rows = np.stack([np.bincount(codes, column) for column in rows.T], axis=1)
    return np.vstack([rows.sum(axis=0), *_drawn(rows, strata, draws, seed)])


def drawn_cells(cells: Array, count: int, *, groups: Array | None = None, seed: int = 0) -> Floats:
    """Counts [1 + draws, count] of rows by cell (0 to count - 1): the observed ones, then those of every draw.

    Without groups a draw of cell counts is multinomial, which needs no draw of rows.
    """
    if groups is None:
        seen = np.bincount(cells, minlength=count)
        drawn = np.random.default_rng(seed).multinomial(len(cells), seen / len(cells), DRAWS)
        return np.vstack([seen, drawn]).astype(np.float64)
    codes = _numbers(groups)
    wide = (int(codes.max()) + 1, count)
    table: Floats = np.bincount(codes * count + cells, minlength=wide[0] * count).reshape(wide).astype(np.float64)
    return drawn_sums(table, seed=seed)


def _drawn(rows: Floats, strata: Array | None, draws: int, seed: int) -> Iterator[Floats]:
    """Blocks [draws, k] of sums over rows drawn with replacement within each stratum."""
    codes = np.zeros(len(rows), dtype=np.int64) if strata is None else _numbers(strata)
    if len(codes) != len(rows):
        raise ValueError(f"{len(codes)} strata for {len(rows)} rows or groups: strata and groups exclude each other")
    rows = rows[np.argsort(codes, kind="stable")]
    sizes = np.bincount(codes)
    rng = np.random.default_rng(seed)
    counts = np.empty((_BLOCK, len(rows)))
    for start in range(0, draws, _BLOCK):
        block = counts[: draws - start]
        for count in block:
            drawn = [np.bincount(rng.integers(0, size, size, dtype=np.int32), minlength=size) for size in sizes]
            np.concatenate(drawn, out=count)
        yield block @ rows


def _numbers(values: Array) -> Array:
    """Each row's number among the distinct values."""
    return np.unique(values, return_inverse=True)[1]


def auc_influence(y: Array, score: Array) -> Floats:
    """What each row adds to the AUC beyond the mean of its class: the structural components of DeLong (1988)."""
    positive = y == 1
    m, k = int(positive.sum()), int((~positive).sum())
    ranks = scipy.stats.rankdata(score)
    influence = np.zeros(len(y))
    influence[positive] = (ranks[positive] - scipy.stats.rankdata(score[positive])) / k / m
    influence[~positive] = (1 - (ranks[~positive] - scipy.stats.rankdata(score[~positive])) / m) / k
    for rows in (positive, ~positive):
        influence[rows] -= influence[rows].mean()
    return influence


def precision_influence(y: Array, score: Array) -> Floats:
    """What one more of each row would add to the average precision: its derivative by the row's weight."""
    order = np.argsort(-score, kind="stable")
    truth, ranked = y[order], score[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(y) - 1)  # the last row of each distinct score
    block = np.searchsorted(ends, np.arange(len(y)))
    hits, total, positives = np.cumsum(truth)[ends][block], ends[block] + 1, truth.sum()
    below = np.stack([truth / total, truth * hits / total**2])
    below = np.cumsum(below[:, ::-1], axis=1)[:, ::-1][:, np.append(0, ends[:-1] + 1)][:, block]  # own and lower scores
    precision = hits / total
    influence = np.empty(len(y))
    average = float((truth * precision).sum() / positives)
    influence[order] = (truth * (precision + below[0] - average) - below[1]) / positives
    return influence


def standard_error(influence: Floats, strata: Array | None, groups: Array | None) -> float:
    """Of a sum of row influences: whole groups independent, or else rows independent within strata (means removed)."""
    if groups is not None:
        sums = np.bincount(_numbers(groups), influence)
        return math.sqrt(len(sums) / max(len(sums) - 1, 1) * float((sums**2).sum()))
    codes = np.zeros(len(influence), dtype=np.int64) if strata is None else _numbers(strata)
    count = np.bincount(codes)
    mean = np.where(count > 1, np.bincount(codes, influence) / count, 0)  # one row alone tells nothing of its spread
    centred = influence - mean[codes]
    return math.sqrt(float((np.bincount(codes, centred**2) * count / np.maximum(count - 1, 1)).sum()))
