from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, optimize, stats

from interlock.experiments.aggregates import Effect, Sums, absolute_effect, mean_sums, relative_effect, sums_of
from interlock.experiments.sequential import (
    Interval,
    always_valid,
    mixture_variance,
    reportable,
    running_p,
    sample_size,
    welch,
)


def effect_of(z: float, n: int, se: float = 0.02) -> Effect:
    return Effect(1.0, 1.0 + z * se, z * se, se, n // 2, n // 2)


def test_sums_give_means_and_variances() -> None:
    x = np.random.default_rng(0).normal(5, 2, 300)
    estimate = sums_of(x).estimate()
    assert estimate == pytest.approx((x.mean(), x.var(ddof=1) / 300))
    assert mean_sums(300, x.sum(), (x**2).sum()).estimate() == pytest.approx(estimate)


def test_ratios_have_the_spread_of_many_samples() -> None:
    """Σx / Σy over units with unequal numbers of rows, against its scatter over fresh samples."""
    rng = np.random.default_rng(1)
    ratios, errors = [], []
    for _ in range(400):
        rows = rng.integers(1, 10, 300).astype(float)
        estimate = sums_of(rows * 0.2 + rows * rng.normal(0, 0.1, 300), rows).estimate()
        assert estimate is not None
        ratios.append(estimate[0])
        errors.append(math.sqrt(estimate[1]))
    assert np.mean(ratios) == pytest.approx(0.2, abs=0.002)
    assert np.mean(errors) == pytest.approx(np.std(ratios), rel=0.1)


def test_effects_are_absolute_and_relative_to_the_size_of_control() -> None:
    rng = np.random.default_rng(2)
    control, treatment = sums_of(rng.normal(-2, 1, 500)), sums_of(rng.normal(-1, 1, 400))
    absolute, relative = absolute_effect(control, treatment), relative_effect(control, treatment)
    assert absolute is not None
    assert relative is not None
    assert absolute.effect == pytest.approx(absolute.treatment - absolute.control)
    assert absolute.se == pytest.approx(math.sqrt(1 / 500 + 1 / 400), rel=0.1)
    assert relative.effect == pytest.approx(absolute.effect / abs(absolute.control))
    quotients = rng.normal(-1, 1 / 20, 20_000) / rng.normal(-2, 1 / math.sqrt(500), 20_000)
    assert relative.se == pytest.approx(quotients.std(), rel=0.1)


def test_effects_without_data_or_denominator_are_none() -> None:
    some = sums_of(np.array([1.0, 2, 3]))
    assert absolute_effect(some, Sums()) is None
    assert absolute_effect(sums_of(np.array([1.0])), some) is None
    assert absolute_effect(some, sums_of(np.ones(5), np.zeros(5))) is None
    assert relative_effect(sums_of(np.array([-1.0, 1.0])), some) is None


@pytest.mark.parametrize(("z", "n"), [(0.0, 300), (1.5, 1000), (-3.0, 5000)])
def test_the_e_value_is_the_mixture_of_likelihood_ratios(z: float, n: int) -> None:
    """The mixture SPRT by numerical integration: increments of variance 1, a prior N(0, ρ²) on the drift."""
    rho2 = mixture_variance(0.05, 2000)
    total = z * math.sqrt(n)

    def weighted(drift: float) -> float:
        return math.exp(drift * total - n * drift**2 / 2) * float(stats.norm.pdf(drift, scale=math.sqrt(rho2)))

    mixed, _ = integrate.quad(weighted, -1, 1, points=[total / n], limit=200)
    assert always_valid(effect_of(z, n), 0.05, 2000).e == pytest.approx(mixed, rel=1e-6)


def test_numbers_worked_out_by_hand() -> None:
    """alpha = .05, N* = 2000, n = 2000: ρ² = (5.99146 + ln 6.99146) / 2000 = .003968077, r = 7.936155; z = 4."""
    assert mixture_variance(0.05, 2000) == pytest.approx(0.003968077, rel=1e-6)
    found = always_valid(effect_of(4, 2000, se=1.0), 0.05, 2000)
    assert found.e == pytest.approx(8.936155**-0.5 * math.exp(7.936155 * 16 / 17.87231), rel=1e-5)
    assert (found.low, found.high) == pytest.approx((4 - 3.035209, 4 + 3.035209), abs=1e-6)
    assert found.e is not None
    assert found.p == 1 / found.e


@pytest.mark.parametrize("z", [0.5, 2.5, 3.0, 3.03, 3.04, 4, 60])
def test_the_interval_leaves_out_zero_exactly_when_p_is_below_alpha(z: float) -> None:
    found = always_valid(effect_of(z, 2000), 0.05, 2000)
    assert (found.p < 0.05) == (found.low > 0)
    assert found.p > 0


def test_the_interval_is_narrowest_near_the_planned_units() -> None:
    def reach(variance: float) -> float:
        planned = mixture_variance(0.05, 1) / variance
        return always_valid(effect_of(0, 2000), 0.05, round(planned)).high

    best = optimize.minimize_scalar(reach, bounds=(1e-4, 1e-1), method="bounded")
    assert reach(mixture_variance(0.05, 2000)) == pytest.approx(best.fun, rel=0.01)


def test_the_interval_holds_under_continuous_peeking() -> None:
    """400 null experiments of skewed values, looked at every 10 units from 100 an arm on: at most alpha = 10 % ever
    err. Looked at in the same way, the fixed-horizon interval errs in more than a third of them.
    """
    rng = np.random.default_rng(3)
    runs, looks = 400, range(100, 1500, 10)
    always_wrong = fixed_wrong = 0
    for _ in range(runs):
        arms = [np.cumsum(np.stack([x, x**2]), axis=1) for x in rng.exponential(1, (2, 1500))]
        sums = [[mean_sums(n, *arm[:, n - 1].tolist()) for arm in arms] for n in looks]
        effects = [absolute_effect(*pair) for pair in sums]
        intervals = [always_valid(effect, 0.1, 1500) for effect in effects if effect is not None]
        always_wrong += any(interval.low > 0 or interval.high < 0 for interval in intervals)
        fixed_wrong += any(effect is not None and abs(effect.effect) > 1.645 * effect.se for effect in effects)
    assert always_wrong / runs <= 0.1
    assert fixed_wrong / runs > 1 / 3


def test_a_real_effect_is_found() -> None:
    rng = np.random.default_rng(4)
    found = always_valid_of(rng.normal(0, 1, 1000), rng.normal(0.3, 1, 1000))
    assert found.low > 0
    assert found.low < 0.3 < found.high


def always_valid_of(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> Interval:
    effect = absolute_effect(sums_of(a), sums_of(b))
    assert effect is not None
    return always_valid(effect, 0.05, 2000)


def test_without_variation_there_is_no_interval() -> None:
    with pytest.raises(ValueError, match="no interval"):
        always_valid(Effect(1, 1, 0, 0, 100, 100), 0.05, 1000)


def test_the_reported_p_never_rises() -> None:
    assert [running_p(None, 0.4), running_p(0.4, 0.7), running_p(0.4, 0.1)] == [0.4, 0.4, 0.1]


@pytest.mark.parametrize(
    ("units", "successes", "mean", "proportion"),
    [(99, 50, False, False), (100, 25, True, True), (100, 24, True, False), (200, 176, True, False)],
)
def test_the_gate_of_reporting(units: int, successes: int, mean: bool, proportion: bool) -> None:
    small, large = mean_sums(units, successes, successes), mean_sums(1000, 500, 500)
    for pair in ((small, large), (large, small)):
        assert reportable(*pair, "mean") is mean
        assert reportable(*pair, "ratio") is mean
        assert reportable(*pair, "proportion") is proportion


def test_welch_equals_scipys() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(1, 1, 40), rng.normal(1.5, 3, 25)
    found = welch(sums_of(a), sums_of(b), 0.1)
    reference = stats.ttest_ind(b, a, equal_var=False)
    interval = reference.confidence_interval(0.9)
    assert found is not None
    assert (found.low, found.high, found.p) == pytest.approx((interval.low, interval.high, reference.pvalue))
    assert welch(sums_of(np.ones(5)), sums_of(np.ones(5)), 0.1) is None
    assert welch(Sums(), sums_of(b), 0.1) is None


def test_the_sample_size_has_its_power() -> None:
    """16 / d² per arm is the rule of thumb; exactly 2 · (1.95996 + .84162)² · 2 / .25² = 502.3."""
    assert sample_size(1, 0.25) == 503
    assert sample_size(1, 0.25, share=0.2) == math.ceil(502.32 / 4 * (1 / 0.2 + 1 / 0.8))
    n = sample_size(2, -0.5, power=0.9) // 2
    rng = np.random.default_rng(6)
    a, b = rng.normal(0, 2, (4000, n)), rng.normal(-0.5, 2, (4000, n))
    found = np.mean(stats.ttest_ind(a, b, axis=1).pvalue < 0.05)
    assert found == pytest.approx(0.9, abs=0.015)
    with pytest.raises(ValueError, match="no sample size"):
        sample_size(1, 0)
