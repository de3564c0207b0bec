"""What other thresholds would do: precision, recall, selection and cost over a grid, and where it is cheapest."""

from __future__ import annotations

import numpy as np
from msgspec import Struct

from interlock.core.settings import CostSettings
from interlock.evaluation.metrics import Array, checked
from interlock.evaluation.resampling import Interval, drawn_cells, percentiles


class Point(Struct, frozen=True):
    """One threshold. `selected`: share of rows at or above it; `precision`, `recall`: None where nothing is; `cost`: a row."""

    threshold: float
    selected: float
    precision: float | None
    recall: float | None
    cost: float | None


class Cheapest(Struct, frozen=True):
    """The threshold of the lowest cost, that cost a row, and what a row would cost less there than as deployed.

    The saving is a little too good, because the same rows chose the threshold.
    """

    threshold: float
    interval: Interval
    cost: float
    saving: float
    saving_interval: Interval


class Thresholds(Struct, frozen=True):
    """Points over the grid 0.01 to 0.99 and the deployed threshold; `costs` and `cheapest`: None without [evaluation.cost]."""

    points: tuple[Point, ...]
    costs: CostSettings | None = None
    cheapest: Cheapest | None = None


def thresholds(
    y: Array, score: Array, deployed: float, costs: CostSettings | None, groups: Array | None = None, seed: int = 0
) -> Thresholds:
    """The analysis of a binary model. `costs`: what a row of each outcome costs; a gain is negative.

    Raises:
        ValueError: as `metrics.measure`.
    """
    y, score = checked("binary", y, score)
    grid = np.union1d(np.arange(1, 100) / 100, deployed)
    width = len(grid) + 1
    cells = (y.astype(np.int64) * width + np.searchsorted(grid, score, side="right")).astype(np.int64)
    if costs is None:
        tables = np.bincount(cells, minlength=2 * width)[None, :] * 1.0
    else:
        tables = drawn_cells(cells, 2 * width, groups=groups, seed=seed)
    at_least = np.cumsum(tables.reshape(-1, 2, width)[:, :, ::-1], axis=2)[:, :, ::-1]  # rows from each grid point on
    (wrong, right), n = at_least[:, :, 1:].swapaxes(0, 1), at_least[:, :, 0].sum(axis=1)[:, None]
    negatives, positives = at_least[:, :, :1].swapaxes(0, 1)
    points = [
        Point(
            threshold=float(grid[at]),
            selected=float((wrong[0, at] + right[0, at]) / n[0, 0]),
            precision=_share(right[0, at], wrong[0, at] + right[0, at]),
            recall=_share(right[0, at], positives[0, 0]),
            cost=None,
        )
        for at in range(len(grid))
    ]
    if costs is None:
        return Thresholds(tuple(points))
    of_row = (costs.tp * right + costs.fp * wrong + costs.fn * (positives - right) + costs.tn * (negatives - wrong)) / n
    best, now = of_row.argmin(axis=1), int(np.searchsorted(grid, deployed))
    saved = of_row[:, now] - of_row[:, best[0]]
    cheapest = Cheapest(
        threshold=float(grid[best[0]]),
        interval=percentiles(grid[best[1:]]),
        cost=float(of_row[0, best[0]]),
        saving=float(saved[0]),
        saving_interval=percentiles(saved[1:]),
    )
    with_cost = zip(points, of_row[0].tolist(), strict=True)
    return Thresholds(
        tuple(Point(one.threshold, one.selected, one.precision, one.recall, cost) for one, cost in with_cost),
        costs,
        cheapest,
    )


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None
