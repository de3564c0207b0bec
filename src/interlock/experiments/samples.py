"""Sample-ratio mismatch: do the arms hold the shares of units that the weights promise? If not, nothing is decided.

Chi-square for a look by hand, and live the Dirichlet-multinomial e-process of Lindon & Malek (2022), which may be
looked at after every unit: under the promised shares it ever reaches 1/alpha with a chance of at most alpha.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import scipy
from msgspec import Struct

ALPHA = 0.001
CONCENTRATION = 100.0


class SampleRatio(Struct, frozen=True):
    """Units per arm against their expected number.

    stray: units in arms of weight 0, each an error by itself. p: chi-square. e: the e-process (1/e is a p value too).
    """

    units: dict[str, int]
    expected: dict[str, float]
    stray: int
    p: float
    e: float
    mismatch: bool


def sample_ratio(units: Mapping[str, int], weights: Mapping[str, float]) -> SampleRatio:
    """Tests the units seen per arm against the weights (any positive scale). A mismatch blocks every verdict.

    Raises:
        ValueError: units of an arm that has no weight entry, or no arm with a weight over 0.
    """
    live = [arm for arm, weight in weights.items() if weight > 0]
    if not live or units.keys() - weights.keys():
        raise ValueError(f"units of arms {sorted(units)} do not fit weights {dict(weights)}")
    counts = [units.get(arm, 0) for arm in live]
    total, weight_sum = sum(counts), sum(weights[arm] for arm in live)
    shares = [weights[arm] / weight_sum for arm in live]
    stray = sum(units.values()) - total
    p = 1.0
    if total and len(live) > 1:
        p = float(scipy.stats.chisquare(counts, [total * share for share in shares]).pvalue)
    e = e_value(counts, shares)
    expected = {arm: total * share for arm, share in zip(live, shares, strict=True)}
    return SampleRatio(dict(units), expected, stray, p, e, p < ALPHA or e >= 1 / ALPHA or stray > 0)


def e_value(counts: list[int], shares: list[float]) -> float:
    """Evidence against the shares: the Dirichlet-multinomial (prior k · shares, k = 100) over the multinomial.

    It depends on the counts alone, not on the order of arrival, and is 1 before the first unit.
    """
    prior = [CONCENTRATION * share for share in shares]
    log_e = scipy.special.gammaln(CONCENTRATION) - scipy.special.gammaln(CONCENTRATION + sum(counts))
    for count, share, a in zip(counts, shares, prior, strict=True):
        log_e += scipy.special.gammaln(a + count) - scipy.special.gammaln(a) - count * math.log(share)
    return math.exp(min(float(log_e), 700.0))
