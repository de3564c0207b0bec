"""The population stability index: how far the spread of a column moved between two sets of rows, in the same bins."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy
from msgspec import Struct

FLOOR = 1e-4
SPARSE = 10
CONFIDENCE = 0.999

Counts = npt.NDArray[Any] | Sequence[float]


class Stability(Struct, frozen=True):
    """`value`: None where no bin has rows enough. `null`: what chance alone stays below, 999 times of 1000. `n`: new rows."""

    value: float | None
    null: float
    n: int
    detail: str


def psi(reference: Counts, window: Counts) -> Stability:
    """Population stability index Σ (q - p) ln(q / p) over bins, of the shares p of the reference and q of the window.

    Both are counts of the same bins (the frozen ones of the profile: quantiles, or categories + "new", + missing).
    Shares below 1e-4 count as 1e-4. Without drift PSI / (1/n + 1/m) is chi-square with bins - 1 degrees of freedom
    (Yurdakul & Naranjo 2020), and its .999 quantile is the null. That needs about ten rows a bin, so bins where fewer
    are expected (and fewer than 40 seen) are pooled.

    Raises:
        ValueError: other numbers of bins, or an empty reference.
    """
    before, now = np.asarray(reference, dtype=np.float64), np.asarray(window, dtype=np.float64)
    m, n = float(before.sum()), int(now.sum())
    if before.shape != now.shape or m <= 0:
        raise ValueError(f"a PSI needs the same bins and a reference, got {len(before)} and {len(now)} bins, {m} rows")
    detail = f"psi, {len(before)} bins"
    seen = before + now > 0
    before, now = before[seen], now[seen]
    sparse = (before * min(1, n / m) < SPARSE) & (now * min(1, m / max(n, 1)) < 4 * SPARSE)
    if sparse.all():
        return Stability(None, 0.0, n, detail)
    if sparse.sum() > 1:
        before, now = (np.append(counts[~sparse], counts[sparse].sum()) for counts in (before, now))
        detail += f", {sparse.sum()} sparse ones pooled"
    p, q = np.maximum(before / m, FLOOR), np.maximum(now / n, FLOOR)
    null = float(scipy.stats.chi2.ppf(CONFIDENCE, len(p) - 1)) * (1 / n + 1 / m) if len(p) > 1 else 0.0
    return Stability(float(((q - p) * np.log(q / p)).sum()), null, n, detail)
