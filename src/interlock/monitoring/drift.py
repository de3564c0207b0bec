"""Checks of one window against the training reference or its own past, each against its own null.

Higher values are always worse. "too small" means that the window cannot tell, never that it is fine.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import median
from typing import Literal

import scipy
from msgspec import Struct

from interlock.model import psi as stability
from interlock.model.psi import CONFIDENCE, FLOOR, Counts

THRESHOLD = 0.2
MIN_ROWS = 500
SURGE_RATIO = 1.5
VOLUME_Z = 4.0
MIN_WEEKS = 4

Verdict = Literal["ok", "warn", "alert", "too small"]


class Check(Struct, frozen=True, kw_only=True):
    """One number against its threshold. n: rows (or windows) it rests on; value: None where there were none."""

    value: float | None
    threshold: float
    n: int
    verdict: Verdict
    detail: str


def psi(reference: Counts, window: Counts, threshold: float = THRESHOLD, min_rows: int = MIN_ROWS) -> Check:
    """The population stability index of a window (`model.psi`): alert above the threshold, warn above half of it, and
    nothing below what chance explains is told.

    Raises:
        ValueError: other numbers of bins, or an empty reference.
    """
    found = stability.psi(reference, window)
    if found.value is None:
        return Check(value=None, threshold=threshold, n=found.n, verdict="too small", detail=found.detail)
    return _graded(found.value, found.null, threshold, found.n, min_rows, found.detail)


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
    value = 0.0 if count else n * abs(math.log10(1 - min(reference_share, 1 - FLOOR)))
    verdict: Verdict = "alert" if value > 3 else "ok"
    return Check(value=value, threshold=3.0, n=n, verdict=verdict, detail="class absent")


def class_surge(reference_share: float, count: int, n: int) -> Check:
    """Too much of a class: 1.5 times its share of the reference (at least 1e-4), and a binomial tail below 1e-3.

    value: the ratio of shares. A high ratio that chance allows is "too small".
    """
    share = max(reference_share, FLOOR)
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
