"""Checks of one window against the training reference or its own past, each against its own null.

Higher values are always worse. "too small" means that the window cannot tell, never that it is fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import scipy
from msgspec import Struct

PSI_FLOOR = 1e-4
THRESHOLD = 0.2
MIN_ROWS = 500
SPARSE = 10
CONFIDENCE = 0.999
SURGE_RATIO = 1.5
VOLUME_Z = 4.0
MIN_WEEKS = 4

Counts = npt.NDArray[Any] | Sequence[float]
Verdict = Literal["ok", "warn", "alert", "too small"]


class Check(Struct, frozen=True, kw_only=True):
    """One number against its threshold. n: rows (or windows) it rests on; value: None where there were none."""

    value: float | None
    threshold: float
    n: int
    verdict: Verdict
    detail: str


def psi(reference: Counts, window: Counts, threshold: float = THRESHOLD, min_rows: int = MIN_ROWS) -> Check:
    """Population stability index Σ (q - p) ln(q / p) over bins, of the shares p of the reference and q of the window.

    Both are counts of the same bins (the frozen ones of the profile: quantiles, or categories + "new", + missing).
    Shares below 1e-4 count as 1e-4. Alert above the threshold, warn above half of it. Without drift PSI / (1/n + 1/m)
    is chi-square with bins - 1 degrees of freedom (Yurdakul & Naranjo 2020), and nothing below its .999 quantile is
    told. That needs about ten rows a bin, so bins where fewer are expected (and fewer than 40 seen) are pooled.

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
        return Check(value=None, threshold=threshold, n=n, verdict="too small", detail=detail)
    if sparse.sum() > 1:
        before, now = (np.append(counts[~sparse], counts[sparse].sum()) for counts in (before, now))
        detail += f", {sparse.sum()} sparse ones pooled"
    p, q = np.maximum(before / m, PSI_FLOOR), np.maximum(now / n, PSI_FLOOR)
    null = float(scipy.stats.chi2.ppf(CONFIDENCE, len(p) - 1)) * (1 / n + 1 / m) if len(p) > 1 else 0.0
    value = float(((q - p) * np.log(q / p)).sum())
    return _graded(value, null, threshold, n, min_rows, detail)


def score_shift(
    reference: tuple[float, float, int],
    window: tuple[float, float, int],
    threshold: float = THRESHOLD,
    min_rows: int = MIN_ROWS,
) -> Check:
    """How far the mean score moved, in deviations of the reference; each side is (mean, standard deviation, rows).

    Alert and warn as for `psi`, with the .999 quantile of the two-sample z test.

    Raises:
        ValueError: a reference without rows or spread.
    """
    (mean, deviation, m), (now, spread, n) = reference, window
    if m <= 0 or deviation <= 0:
        raise ValueError(f"a score shift needs a reference with spread, got deviation {deviation} over {m} rows")
    if n == 0:
        return Check(value=None, threshold=threshold, n=0, verdict="too small", detail="score shift")
    null = float(scipy.stats.norm.ppf((1 + CONFIDENCE) / 2)) * math.sqrt(1 / m + (spread / deviation) ** 2 / n)
    value = abs(now - mean) / deviation
    return _graded(value, null, threshold, n, min_rows, "score shift")


def class_absent(reference_share: float, count: int, n: int) -> Check:
    """A class that should appear does not: none in n, where chance alone allows that with (1 - share)^n < 1e-3.

    value: -log10 of that chance, 0 if the class appeared; threshold 3.
    """
    value = 0.0 if count else n * abs(math.log10(1 - min(reference_share, 1 - PSI_FLOOR)))
    verdict: Verdict = "alert" if value > 3 else "ok"
    return Check(value=value, threshold=3.0, n=n, verdict=verdict, detail="class absent")


def class_surge(reference_share: float, count: int, n: int) -> Check:
    """Too much of a class: 1.5 times its share of the reference (at least 1e-4), and a binomial tail below 1e-3.

    value: the ratio of shares. A high ratio that chance allows is "too small".
    """
    share = max(reference_share, PSI_FLOOR)
    if n == 0:
        return Check(value=None, threshold=SURGE_RATIO, n=0, verdict="too small", detail="class surge")
    ratio = count / n / share
    by_chance = float(scipy.stats.binom.sf(count - 1, n, share)) >= 1 - CONFIDENCE
    verdict: Verdict = "ok" if ratio < SURGE_RATIO else "too small" if by_chance else "alert"
    return Check(value=ratio, threshold=SURGE_RATIO, n=n, verdict=verdict, detail="class surge")


def volume(past: Sequence[float], now: float) -> Check:
    """Too few, too many or no requests: |robust z| of a window against the same hour of the past weeks (at least 4).

    z = (now - median) / scale; scale = 1.4826 · MAD, at least sqrt(median) and 1: counts scatter as Poisson's or more.
    """
    if len(past) < MIN_WEEKS:
        return Check(value=None, threshold=VOLUME_Z, n=len(past), verdict="too small", detail="volume, robust z")
    middle = median(past)
    scale = max(1.4826 * median(abs(count - middle) for count in past), math.sqrt(middle), 1.0)
    value = abs(now - middle) / scale
    verdict: Verdict = "alert" if value >= VOLUME_Z else "ok"
    return Check(value=value, threshold=VOLUME_Z, n=len(past), verdict=verdict, detail="volume, robust z")


def _graded(value: float, null: float, threshold: float, n: int, min_rows: int, detail: str) -> Check:
    """Alert above the threshold, warn above half of it, neither below what no drift explains nor under `min_rows`."""
    alert, warn = max(threshold, null), max(threshold / 2, null)
    verdict: Verdict = "too small" if n < min_rows else "alert" if value > alert else "warn" if value > warn else "ok"
    return Check(value=value, threshold=alert, n=n, verdict=verdict, detail=detail)
