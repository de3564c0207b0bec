"""A share that was predicted from one sample beside one that is watched: how far apart may chance put them?

Rows of a unit go together, so counts are divided by their design effect (Rao & Scott 1992). The predicted share has the
interval of Clopper & Pearson (1934), the watched one an interval that holds at all looks together: the beta-binomial mixture
of Robbins (1970). Each takes half of alpha, so that both hold with a chance of 1 - alpha (Boole).
"""

from __future__ import annotations

import math

import scipy
from msgspec import Struct

JEFFREYS = 0.5
"""Both parameters of the mixing beta distribution."""
TINY = 1e-300


class Share(Struct, frozen=True):
    """Of n rows, with its interval."""

    n: int
    share: float
    low: float
    high: float


def design_effect(n: int, x: int, nn: int, nx: int, xx: int) -> float:
    """Variance of x / n over clusters against that of single rows, at least 1; `nn`, `nx`, `xx`: Σn², Σnx, Σx² over clusters.

    Where all rows are alike nothing shows how they go together: then it is the most that it can be.
    """
    if not 0 < x < n:
        return max(1.0, nn / max(n, 1))
    p = x / n
    return max(1.0, (xx - 2 * p * nx + p * p * nn) / (n * p * (1 - p)))


def predicted(x: int, n: int, effect: float, alpha: float) -> Share:
    """The share x / n, looked at once."""
    beta, y, m = scipy.stats.beta, x / effect, n / effect
    low = float(beta.ppf(alpha / 4, y, m - y + 1)) if x else 0.0
    return Share(n, x / max(n, 1), low, float(beta.ppf(1 - alpha / 4, y + 1, m - y)) if x < n else 1.0)


def watched(x: int, n: int, effect: float, alpha: float) -> Share:
    """The share x / n, looked at as often as one likes: every p whose e-value is under 2 / alpha.

    ln e = ln B(½+x, ½+n-x) - ln B(½, ½) - x ln p - (n-x) ln(1-p). Under the true p, e is a martingale that begins at 1, so it
    ever reaches 2 / alpha with a chance of at most alpha / 2 (Ville).
    """
    y, m = x / effect, n / effect
    return (
        Share(n, x / n, _lowest(y, m, alpha / 2), 1.0 - _lowest(m - y, m, alpha / 2)) if n else Share(0, 0.0, 0.0, 1.0)
    )


def _lowest(x: float, n: float, alpha: float) -> float:
    betaln = scipy.special.betaln
    evidence = float(betaln(JEFFREYS + x, JEFFREYS + n - x) - betaln(JEFFREYS, JEFFREYS)) + math.log(alpha)
    if x >= n:
        return math.exp(evidence / n)

    def beyond(p: float) -> float:
        return evidence - x * math.log(p) - (n - x) * math.log1p(-p)

    return float(scipy.optimize.brentq(beyond, TINY, x / n)) if x > 0 and beyond(TINY) > 0 else 0.0
