"""Candidate against champion on identical rows. Effect = candidate - champion, intervals are two-sided 95 %.

AUC: DeLong, DeLong & Clarke-Pearson (1988), by the midranks of Sun & Xu (2014). Accuracy: exact McNemar. Everything
else: paired bootstrap, or the delta method where many intervals are wanted (slices). Rows are stratified by label;
where they cluster (flights of one aeroplane) whole groups are drawn, and the AUC has Obuchowski's variance (1997).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Literal

import numpy as np
import scipy
from msgspec import Struct

from interlock.core.settings import Task
from interlock.evaluation import metrics
from interlock.evaluation.metrics import Array, Floats, RowTerms, checked
from interlock.evaluation.resampling import DRAWS, LEVEL, auc_influence, drawn_sums, standard_error

Method = Literal["delong", "mcnemar-exact", "bootstrap", "delta"]
_NOISE = 1e-12  # a smaller difference, relative to the metrics, is rounding: two builds of one model do not differ


class Paired(Struct, frozen=True, kw_only=True):
    """One metric of both versions and the difference, with its interval and two-sided p value against no difference."""

    metric: str
    candidate: float
    champion: float
    effect: float
    se: float
    low: float
    high: float
    p: float
    n: int
    method: Method


def compare(
    task: Task,
    y: Array,
    candidate: Array,
    champion: Array,
    threshold: float = 0.5,
    groups: Array | None = None,
    seed: int = 0,
    *,
    method: Literal["bootstrap", "delta"] = "bootstrap",
) -> list[Paired]:
    """Every metric that can be compared, in the order of the metrics; undefined ones are absent.

    Average precision and calibration error are not compared; nothing is with fewer than two rows, or two groups.
    With `groups` (one value a row) accuracy is bootstrapped too, because McNemar counts rows as independent.
    """
    y, candidate = checked(task, y, candidate)
    y, champion = checked(task, y, champion)
    found: list[Paired] = []
    if len(y if groups is None else np.unique(groups)) < 2:
        return found
    if task == "binary" and 2 <= y.sum() <= len(y) - 2:
        found.append(delong(y, candidate, champion, groups=groups))
    ours, theirs = (metrics.row_terms(task, y, output, threshold) for output in (candidate, champion))
    if task != "regression" and groups is None:
        del ours["accuracy"], theirs["accuracy"]
        found.append(mcnemar(y, metrics.labels(task, candidate, threshold), metrics.labels(task, champion, threshold)))
    strata = y if task != "regression" and groups is None else None
    if method == "bootstrap":
        found += bootstrap(ours, theirs, seed=seed, strata=strata, groups=groups)
    else:
        found += delta(ours, theirs, strata=strata, groups=groups)
    order = list(metrics.metrics_of(task))
    return sorted(found, key=lambda paired: order.index(paired.metric))


def delong(y: Array, a: Array, b: Array, *, groups: Array | None = None, level: float = LEVEL) -> Paired:
    """The difference of two AUCs on the same rows. y in {0, 1}, a and b scores [n].

    Raises:
        ValueError: fewer than two rows of a class.
    """
    positive = y == 1
    m, k = int(positive.sum()), int((~positive).sum())
    if m < 2 or k < 2:
        raise ValueError(f"DeLong needs two rows of each class, got {m} positives and {k} negatives")
    se = standard_error(auc_influence(y, a) - auc_influence(y, b), y, groups)
    return _normal("auc", metrics.auc(y, a), metrics.auc(y, b), se, len(y), "delong", level, bound=1)


def mcnemar(y: Array, label_a: Array, label_b: Array, *, level: float = LEVEL) -> Paired:
    """Accuracy on the same rows: exact McNemar, which asks only the rows where exactly one of the two is right.

    The interval is Clopper-Pearson on those rows, scaled to all rows: it leaves out zero exactly when p < 1 - level.
    """
    right_a, right_b = label_a == y, label_b == y
    gained, lost, n = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum()), len(y)
    changed = gained + lost
    a, b = float(right_a.mean()), float(right_b.mean())
    low, high, p = a - b, a - b, 1.0
    if changed:
        test = scipy.stats.binomtest(gained, changed)
        share = test.proportion_ci(level, method="exact")
        low, high = (float(2 * end - 1) * changed / n for end in (share.low, share.high))
        low, high, p = min(low, a - b), max(high, a - b), float(test.pvalue)  # the effect is an end where all agree
    se = math.sqrt(changed - (gained - lost) ** 2 / n) / n
    return _paired("accuracy", a, b, se, low, high, p, n, "mcnemar-exact")


def bootstrap(
    candidate: Mapping[str, RowTerms],
    champion: Mapping[str, RowTerms],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    strata: Array | None = None,
    groups: Array | None = None,
    level: float = LEVEL,
) -> list[Paired]:
    """Paired percentile bootstrap of metrics that are ratios of sums over rows (`metrics.row_terms` of both sides).

    A draw is a vector of row counts, so one product counts @ terms gives every sum of every metric: 2000 draws of
    60 000 rows take a second or two. Draws in which a metric is undefined are left out, and so is a metric that is
    undefined in half of them. strata and groups exclude each other.
    """
    parts = {id(part): part for terms in (*candidate.values(), *champion.values()) for part in terms}
    ends = np.cumsum([0, *(part.shape[1] for part in parts.values())])
    columns = {key: slice(start, end) for key, (start, end) in zip(parts, pairwise(ends), strict=True)}
    rows = np.hstack(list(parts.values()))
    n = len(rows)
    sums = drawn_sums(rows, strata=strata, groups=groups, draws=draws, seed=seed)

    def values(name: str, terms: RowTerms) -> Floats:
        return metrics.ratio_value(name, *(sums[:, columns[id(part)]] for part in terms))

    found = []
    for name in candidate:
        a, b = values(name, candidate[name]), values(name, champion[name])
        effects = (a - b)[np.isfinite(a - b)]
        effects[np.abs(effects) <= _NOISE * max(abs(a[0]), abs(b[0]))] = 0
        if not np.isfinite(a[0] - b[0]) or len(effects) <= draws / 2:
            continue
        low, high = np.quantile(effects[1:], [(1 - level) / 2, (1 + level) / 2])
        # Both tails hold the observed sample (the first row of the sums): p is never 0, and 1 where nothing differs.
        tail = min((effects <= 0).sum() + (effects[0] > 0), (effects >= 0).sum() + (effects[0] < 0))
        p = min(1.0, 2 * float(tail) / len(effects))
        se = float(effects[1:].std())
        found.append(_paired(name, float(a[0]), float(b[0]), se, float(low), float(high), p, n, "bootstrap"))
    return found


def delta(
    candidate: Mapping[str, RowTerms],
    champion: Mapping[str, RowTerms],
    *,
    strata: Array | None = None,
    groups: Array | None = None,
    level: float = LEVEL,
) -> list[Paired]:
    """What `bootstrap` gives, in one pass: normal intervals from each row's influence on the difference."""
    found = []
    for name in candidate:
        a, influence_a = _value_and_influence(name, candidate[name])
        b, influence_b = _value_and_influence(name, champion[name])
        if not math.isfinite(a - b):
            continue
        se = standard_error(influence_a - influence_b, strata, groups)
        found.append(_normal(name, a, b, se, len(influence_a), "delta", level))
    return found


def standard_errors(
    task: Task, y: Array, output: Array, threshold: float, groups: Array | None = None
) -> dict[str, float]:
    """Of one version's metrics, by name, in one pass: what the width of `resampling.intervals` tells."""
    y, output = checked(task, y, output)
    found = {}
    if task == "binary" and 2 <= y.sum() <= len(y) - 2:
        found["auc"] = standard_error(auc_influence(y, output), y, groups)
    for name, terms in metrics.row_terms(task, y, output, threshold).items():
        value, influence = _value_and_influence(name, terms)
        if math.isfinite(value):
            found[name] = standard_error(influence, None, groups)
    return found


def benjamini_hochberg(p_values: Sequence[float]) -> list[float]:
    """P values adjusted for the false discovery rate (Benjamini & Hochberg 1995), in the order given."""
    return [float(p) for p in scipy.stats.false_discovery_control(p_values)] if len(p_values) else []


def _value_and_influence(name: str, terms: RowTerms) -> tuple[float, Floats]:
    """The metric and each row's first-order contribution to it: (numerator - ratio · denominator) / Σ denominator."""
    numerator, denominator = terms.numerator.sum(axis=0), terms.denominator.sum(axis=0)
    value = float(metrics.ratio_value(name, numerator, denominator))
    scale = np.where(denominator > 0, denominator, np.inf)
    influence = ((terms.numerator - numerator / scale * terms.denominator) / scale).sum(axis=1)
    root = 2 * value if name == "rmse" and value > 0 else 1
    return value, influence / max(int((denominator > 0).sum()), 1) / root


def _normal(
    name: str, a: float, b: float, se: float, n: int, method: Method, level: float, bound: float = math.inf
) -> Paired:
    """Effect ± z · se, cut at ± bound. An effect of zero has p = 1; any other where nothing varies, p = 0."""
    effect, reach = a - b, NormalDist().inv_cdf((1 + level) / 2) * se
    p = 1.0 if abs(effect) <= _NOISE * max(abs(a), abs(b)) else 0.0
    if p == 0 and se > 0:
        p = math.erfc(abs(effect) / se / math.sqrt(2))
    return _paired(name, a, b, se, max(effect - reach, -bound), min(effect + reach, bound), p, n, method)


def _paired(
    name: str, a: float, b: float, se: float, low: float, high: float, p: float, n: int, method: Method
) -> Paired:
    return Paired(
        metric=name, candidate=a, champion=b, effect=a - b, se=se, low=low, high=high, p=p, n=n, method=method
    )
