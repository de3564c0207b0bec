"""The phases of an experiment, and how what they say is put together.

A change of shares starts a phase; the salt stays, so a bucket keeps its arm unless the change moved it. A unit belongs to
the phase and arm of its first exposure. Where its bucket was moved to another arm later it is left out: its rows would mix
two arms, and the months before the move with those after it. Which buckets move does not depend on any outcome, so those
that stay are as random as before. Phases are compared within themselves; their effects are combined by inverse variance.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby

from msgspec import Struct

from interlock.core.assignment import BUCKETS, owner_table, share
from interlock.experiments.aggregates import Sums, mean_sums
from interlock.experiments.samples import ALPHA, SampleRatio
from interlock.experiments.sequential import MIN_UNITS
from interlock.registry.routes import Arm, RouteDocument

FEW = 5
"""Chi-square needs about so many expected units in every arm; below, 1/e is the p value, which holds for any number."""


class Phase(Struct, frozen=True):
    """A span of route revisions with the same arms and shares."""

    number: int
    arms: tuple[Arm, ...]
    salt: str
    last_revision: int

    @property
    def weights(self) -> dict[str, float]:
        """Buckets by arm."""
        return {arm.name: float(share(arm.ranges)) for arm in self.arms}

    @property
    def owners(self) -> list[str]:
        """The arm of every bucket."""
        return owner_table({arm.name: arm.ranges for arm in self.arms})


class Kept(Struct, frozen=True):
    """Buckets [low, high) that `arm` has owned without a break from `phase` to the last one."""

    phase: int
    arm: str
    low: int
    high: int


def phases_of(routes: Iterable[RouteDocument], experiment: str) -> list[Phase]:
    """The phases of an experiment out of the endpoint's revisions, in order.

    They end where an arm of the first phase gets no units any more or serves another version: what follows is no comparison.
    """
    phases: dict[int, Phase] = {}
    first: dict[str, str] = {}
    for route in routes:
        if route.experiment.id != experiment:
            continue
        packages = {arm.name: arm.package_digest for arm in route.arms if arm.ranges}
        first = first or packages
        if not first.items() <= packages.items():
            break
        number = route.experiment.phase
        phases[number] = Phase(number, route.arms, route.experiment.salt, route.revision)
    return list(phases.values())


def kept_buckets(phases: Sequence[Phase]) -> list[Kept]:
    """For every phase, the buckets that have not changed arms since; all of them for the last phase."""
    found = []
    kept: list[str] = phases[-1].owners
    for phase in reversed(phases):
        kept = [then if then == now else "" for then, now in zip(phase.owners, kept, strict=True)]
        for arm, run in groupby(range(BUCKETS), key=kept.__getitem__):
            buckets = list(run)
            if arm:
                found.append(Kept(phase.number, arm, buckets[0], buckets[-1] + 1))
    return found


def combined_sums(pairs: Sequence[tuple[Sums, Sums]]) -> tuple[Sums, Sums]:
    """One pair (control, treatment) that says what the pairs of all phases say together.

    Phases with 100 units in both arms count by the inverse variance of their effect, the same weight for both arms; where
    there is at most one, the phase with the most units in its smaller arm stands alone. Sums of a combination are those of
    a mean with its estimate and variance.
    """
    weighed = []
    for control, treatment in pairs:
        a, b = control.estimate(), treatment.estimate()
        if a and b and a[1] + b[1] > 0 and min(control.n, treatment.n) >= MIN_UNITS:
            weighed.append((1 / (a[1] + b[1]), (control.n, *a), (treatment.n, *b)))
    if len(weighed) < 2:
        return max(pairs, key=lambda pair: (min(pair[0].n, pair[1].n), pair[0].n + pair[1].n), default=(Sums(), Sums()))
    total = math.fsum(weight for weight, _, _ in weighed)
    return (
        _combination([(weight / total, *control) for weight, control, _ in weighed]),
        _combination([(weight / total, *treatment) for weight, _, treatment in weighed]),
    )


def _combination(parts: list[tuple[float, int, float, float]]) -> Sums:
    """Of (weight, units, estimate, variance)."""
    n = sum(units for _, units, _, _ in parts)
    mean = math.fsum(weight * estimate for weight, _, estimate, _ in parts)
    variance = math.fsum(weight**2 * one for weight, _, _, one in parts)
    return mean_sums(n, n * mean, n * mean**2 + n * (n - 1) * variance)


def combined_ratio(ratios: Sequence[SampleRatio]) -> SampleRatio:
    """The sample-ratio check over phases, each of which brings units of its own.

    p: the smallest one times their number (Bonferroni). e: the product, as e-values of separate units multiply.
    """
    units: dict[str, int] = {}
    expected: dict[str, float] = {}
    for one in ratios:
        for arm, count in one.units.items():
            units[arm] = units.get(arm, 0) + count
        for arm, number in one.expected.items():
            expected[arm] = expected.get(arm, 0.0) + number
    stray = sum(one.stray for one in ratios)
    p = min([1.0, *(len(ratios) * _p_value(one) for one in ratios)])
    e = math.prod(one.e for one in ratios)
    return SampleRatio(units, expected, stray, p, min(e, 1e300), p < ALPHA or e >= 1 / ALPHA or stray > 0)


def _p_value(one: SampleRatio) -> float:
    return one.p if min(one.expected.values()) >= FEW else min(1.0, 1 / one.e)
