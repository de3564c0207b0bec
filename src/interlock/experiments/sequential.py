"""Intervals for an effect: always valid (look at any time, stop when you like), and for one planned look.

Always valid: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas (2024), asymptotic confidence sequences; the same as the
mixture SPRT (Johari et al. 2022) and the normal mixture of Howard et al. (2021). With z = effect / se, n units in both
arms and r = n ρ²: e = (1+r)^-½ exp(r z² / (2 (1+r))), p = min(1, 1/e), and the interval
effect ± se sqrt((1+r)/r · ln((1+r)/alpha²)), which leaves out zero exactly when e > 1/alpha.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Literal

import scipy
from msgspec import Struct

from interlock.experiments.aggregates import Effect, Sums, absolute_effect

MIN_UNITS = 100
MIN_OUTCOMES = 25
_MAX_LOG_E = 700.0  # exp of more is no float


class Interval(Struct, frozen=True):
    """An interval at level 1 - alpha, its p value against no effect, and for the always-valid one its e-value."""

    low: float
    high: float
    p: float
    e: float | None
    alpha: float


def mixture_variance(alpha: float, expected_units: int) -> float:
    """ρ² that makes the interval about narrowest when both arms together hold N* = expected_units units."""
    return (-2 * math.log(alpha) + math.log(1 - 2 * math.log(alpha))) / expected_units


def always_valid(effect: Effect, alpha: float, expected_units: int) -> Interval:
    """The interval that holds at all looks together with probability 1 - alpha. Report it once `reportable`.

    Raises:
        ValueError: a standard error of zero; nothing varies, so nothing can be said.
    """
    if effect.se <= 0:
        raise ValueError(f"an effect of {effect.effect} with a standard error of {effect.se} has no interval")
    r = (effect.n_control + effect.n_treatment) * mixture_variance(alpha, expected_units)
    z = effect.effect / effect.se
    e = math.exp(min(r * z**2 / (2 * (1 + r)) - math.log1p(r) / 2, _MAX_LOG_E))
    reach = effect.se * math.sqrt((1 + r) / r * math.log((1 + r) / alpha**2))
    return Interval(effect.effect - reach, effect.effect + reach, min(1.0, 1 / e), e, alpha)


def running_p(previous: float | None, p: float) -> float:
    """The always-valid p value to report: the smallest seen so far."""
    return p if previous is None else min(previous, p)


def reportable(control: Sums, treatment: Sums, kind: Literal["mean", "ratio", "proportion"]) -> bool:
    """Whether both arms are enough for the normal approximation: 100 units, 25 successes and failures of a rate."""
    for sums in (control, treatment):
        if sums.n < MIN_UNITS:
            return False
        if kind == "proportion" and min(sums.x, sums.n - sums.x) < MIN_OUTCOMES:
            return False
    return True


def welch(control: Sums, treatment: Sums, alpha: float) -> Interval | None:
    """The interval (Welch 1947) for ONE look, at the planned number of units; None where undefined or constant."""
    effect, a, b = absolute_effect(control, treatment), control.estimate(), treatment.estimate()
    if effect is None or a is None or b is None or effect.se == 0:
        return None
    freedom = effect.se**4 / (a[1] ** 2 / (control.n - 1) + b[1] ** 2 / (treatment.n - 1))
    reach = float(scipy.stats.t.ppf(1 - alpha / 2, freedom)) * effect.se
    p = float(2 * scipy.stats.t.sf(abs(effect.effect) / effect.se, freedom))
    return Interval(effect.effect - reach, effect.effect + reach, p, None, alpha)


def sample_size(deviation: float, effect: float, *, alpha: float = 0.05, power: float = 0.8, share: float = 0.5) -> int:
    """Units in both arms together for ONE look to find `effect` (absolute) with this power: the planner's N*.

    deviation: standard deviation between units (of a rate p: sqrt(p (1-p))). share: of units in the treatment.

    Raises:
        ValueError: an effect of zero, or a share outside (0, 1).
    """
    if effect == 0 or not 0 < share < 1:
        raise ValueError(f"no sample size for an effect of {effect} and a share of {share}")
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    return math.ceil((quantiles * deviation / effect) ** 2 * (1 / share + 1 / (1 - share)))
