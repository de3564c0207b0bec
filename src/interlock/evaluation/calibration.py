"""Whether what a model says comes true: reliability by bin, and how far numbers were off."""

from __future__ import annotations

import math

import numpy as np
from msgspec import Struct

from interlock.core.settings import Task
from interlock.evaluation.metrics import Array, checked, score_bins
from interlock.evaluation.resampling import Z

QUANTILES = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)


class Bin(Struct, frozen=True):
    """Rows with about the same answer: their number, the mean answer `said`, and the mean truth `seen` with its 95 %
    interval, rows taken as independent.
    """

    n: int
    said: float
    seen: float
    low: float
    high: float


def reliability(task: Task, y: Array, output: Array) -> list[Bin]:
    """Ten bins of equal frequency, as the calibration error has them.

    Binary: the score against the share of positives. Multiclass: the probability of the label given against the share of
    right ones. Both have Wilson's interval (1927). Regression: the value against the mean truth, with a normal interval.
    """
    y, output = checked(task, y, output)
    said, seen = (output.max(axis=1), (output.argmax(axis=1) == y) * 1.0) if task == "multiclass" else (output, y)
    bins = []
    codes = score_bins(said)
    for code in np.unique(codes):
        part = seen[codes == code]
        n, mean = len(part), float(part.mean())
        if task == "regression":
            low, high = mean - Z * part.std() / math.sqrt(n), mean + Z * part.std() / math.sqrt(n)
        else:
            low, high = wilson(mean, n)
        bins.append(Bin(n, float(said[codes == code].mean()), mean, float(low), float(high)))
    return bins


def wilson(share: float, n: int) -> tuple[float, float]:
    """The 95 % interval of a share of n rows (Wilson 1927)."""
    middle = (share + Z**2 / (2 * n)) / (1 + Z**2 / n)
    reach = Z / (1 + Z**2 / n) * math.sqrt(share * (1 - share) / n + Z**2 / (4 * n * n))
    return max(middle - reach, 0.0), min(middle + reach, 1.0)


def residual_quantiles(y: Array, output: Array) -> dict[str, float]:
    """Quantiles of answer - truth, by their share as text."""
    return {
        f"{share:g}": float(value) for share, value in zip(QUANTILES, np.quantile(output - y, QUANTILES), strict=True)
    }
