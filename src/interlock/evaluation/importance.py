"""Permutation importance (Breiman 2001): how much worse the answers get when one raw input is shuffled among the rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from msgspec import Struct
from numpy.typing import NDArray

from interlock.core.errors import PredictionFailed
from interlock.core.settings import Task
from interlock.evaluation.metrics import Array, Metric, measure, metrics_of, shaped

MAX_ROWS = 2000
MAX_REPEATS = 5
MAX_ANSWERS = 60_000
"""Rows asked in all, so that this takes seconds."""
_MEASURED: dict[Task, tuple[str, ...]] = {
    "binary": ("auc", "log_loss"),
    "multiclass": ("log_loss",),
    "regression": ("rmse",),
}


class Drop(Struct, frozen=True):
    """One raw input: the mean over the repeats by which the metric gets worse, and their standard deviation.

    None where the model raised on shuffled rows. Inputs that tell the same share their worth, and each looks small.
    """

    input: str
    worse: float | None
    sd: float | None


class Importance(Struct, frozen=True):
    """By how much `metric` gets worse, the most important input first; over `rows` held-out rows, `repeats` times."""

    metric: str
    rows: int
    repeats: int
    inputs: tuple[Drop, ...]


def importance(
    predict: Callable[[list[Array]], NDArray[np.float64]],
    names: Sequence[str],
    arrays: list[Array],
    task: Task,
    y: Array,
    seed: int = 0,
) -> Importance:
    """Shuffle each input of a seeded sample of rows, and ask for all repeats at once.

    `predict`: numbers [rows, width] of raw rows, whose arrays come in the order of `names`.
    """
    import threadpoolctl  # here: who only reads reports does without it

    rng = np.random.default_rng(seed)
    count = min(len(y), MAX_ROWS, max(MAX_ANSWERS // len(names), 200))
    repeats = max(1, min(MAX_REPEATS, MAX_ANSWERS // (count * len(names))))
    rows = np.sort(rng.choice(len(y), count, replace=False))
    arrays, y = [values[rows] for values in arrays], y[rows]
    found = measure(task, y, shaped(task, predict(arrays)))
    metric = next(metrics_of(task)[name] for name in _MEASURED[task] if name in found)
    drops = []
    for at, name in enumerate(names):
        shuffled = [np.concatenate([values] * repeats) for values in arrays]
        shuffled[at] = np.concatenate([arrays[at][rng.permutation(count)] for _ in range(repeats)])
        try:
            with threadpoolctl.threadpool_limits(1):  # so few rows cost more when threads share them
                numbers = predict(shuffled)
        except PredictionFailed:
            drops.append(Drop(name, None, None))
            continue
        worse = [_worse(metric, task, y, part, found[metric.name]) for part in np.split(numbers, repeats)]
        drops.append(Drop(name, float(np.mean(worse)), float(np.std(worse))))
    drops.sort(key=lambda drop: np.inf if drop.worse is None else -drop.worse)
    return Importance(metric.name, count, repeats, tuple(drops))


def _worse(metric: Metric, task: Task, y: Array, numbers: Array, before: float) -> float:
    now = measure(task, y, shaped(task, numbers))[metric.name]
    return before - now if metric.direction == "higher" else now - before
