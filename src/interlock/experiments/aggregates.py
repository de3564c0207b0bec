"""Per-arm sums over units of randomisation (never requests), and the effects that follow from them.

A unit contributes x, or for a ratio metric x and y (numerator and denominator, summed over its rows); for a mean y = 1.
So one formula serves all kinds: R = Σx / Σy, with the delta-method variance of a ratio of means, Var(x - R y) / (n ȳ²)
(Deng, Knoblich & Lu 2018), which for y = 1 is that of a mean. Sums add up: over hours, and phases of one salt.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from msgspec import Struct
from msgspec.structs import astuple


class Sums(Struct, frozen=True):
    """n units with Σx, Σx², Σy, Σy², Σxy."""

    n: int = 0
    x: float = 0.0
    xx: float = 0.0
    y: float = 0.0
    yy: float = 0.0
    xy: float = 0.0

    def __add__(self, other: Sums) -> Sums:
        """The sums of both sets of units."""
        return Sums(*(mine + theirs for mine, theirs in zip(astuple(self), astuple(other), strict=True)))

    def scaled(self, factor: float) -> Sums:
        """The sums of `factor` times as many units that are like these: for projections."""
        return Sums(round(self.n * factor), *(value * factor for value in astuple(self)[1:]))

    def estimate(self) -> tuple[float, float] | None:
        """Σx / Σy and its variance; None where undefined: fewer than two units, or a denominator of zero."""
        if self.n < 2 or self.y == 0:
            return None
        ratio = self.x / self.y
        # Σ(x - R y)², whose mean is zero by the choice of R; rounding may take it below.
        squares = max(self.xx - 2 * ratio * self.xy + ratio**2 * self.yy, 0.0)
        return ratio, squares * self.n / (self.n - 1) / self.y**2


def mean_sums(n: int, x: float, xx: float) -> Sums:
    """Sums of a metric with one value a unit; for a proportion the value is 0 or 1 and Σx² = Σx."""
    return Sums(n, x, xx, float(n), float(n), x)


def sums_of(x: npt.NDArray[Any], y: npt.NDArray[Any] | None = None) -> Sums:
    """Sums of one value a unit [n], or of numerators x and denominators y [n]."""
    x = np.asarray(x, dtype=np.float64)
    y = np.ones(len(x)) if y is None else np.asarray(y, dtype=np.float64)
    return Sums(len(x), float(x.sum()), float(x @ x), float(y.sum()), float(y @ y), float(x @ y))


class Effect(Struct, frozen=True):
    """Treatment against control: the two estimates, the difference (absolute or relative) and its standard error."""

    control: float
    treatment: float
    effect: float
    se: float
    n_control: int
    n_treatment: int


def absolute_effect(control: Sums, treatment: Sums) -> Effect | None:
    """treatment - control; None where either is undefined."""
    a, b = control.estimate(), treatment.estimate()
    if a is None or b is None:
        return None
    return Effect(a[0], b[0], b[0] - a[0], (a[1] + b[1]) ** 0.5, control.n, treatment.n)


def relative_effect(control: Sums, treatment: Sums) -> Effect | None:
    """(treatment - control) / |control| with its delta-method variance; None also for a control of zero."""
    a, b = control.estimate(), treatment.estimate()
    if a is None or b is None or a[0] == 0:
        return None
    se = (b[1] / a[0] ** 2 + b[0] ** 2 * a[1] / a[0] ** 4) ** 0.5
    return Effect(a[0], b[0], (b[0] - a[0]) / abs(a[0]), se, control.n, treatment.n)
