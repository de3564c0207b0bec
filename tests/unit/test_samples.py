from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from interlock.experiments.samples import ALPHA, CONCENTRATION, e_value, sample_ratio


def test_the_e_value_is_the_dirichlet_multinomial_over_the_multinomial() -> None:
    counts, shares = [30, 45, 25], [0.3, 0.3, 0.4]
    mixture = stats.dirichlet_multinomial([CONCENTRATION * share for share in shares], 100)
    expected = mixture.pmf(counts) / stats.multinomial(100, shares).pmf(counts)
    assert e_value(counts, shares) == pytest.approx(expected)
    assert e_value([0, 0], [0.5, 0.5]) == pytest.approx(1)


def test_the_e_value_of_one_unit_is_one() -> None:
    """The prior's mean is the promised share, so one unit says nothing: k θ / k / θ."""
    assert e_value([1, 0], [0.8, 0.2]) == pytest.approx(1)


def test_promised_shares_pass_and_others_do_not() -> None:
    good = sample_ratio({"champion": 8021, "challenger": 1979}, {"champion": 80, "challenger": 20})
    assert not good.mismatch
    assert good.expected == pytest.approx({"champion": 8000, "challenger": 2000})
    assert good.p == pytest.approx(stats.chisquare([8021, 1979], [8000, 2000]).pvalue)
    assert sample_ratio({"champion": 8200, "challenger": 1800}, {"champion": 0.8, "challenger": 0.2}).mismatch


def test_a_published_mismatch() -> None:
    """821 588 against 815 482 users of a 50/50 split (Kohavi, Tang & Xu 2020, ch. 3): p = 1.8e-6."""
    found = sample_ratio({"control": 821_588, "treatment": 815_482}, {"control": 1, "treatment": 1})
    assert found.p == pytest.approx(1.8e-6, rel=0.02)
    assert found.mismatch


def test_a_unit_in_an_arm_of_weight_zero_is_an_error() -> None:
    found = sample_ratio({"champion": 100, "retired": 1}, {"champion": 1, "retired": 0})
    assert (found.stray, found.p, found.mismatch) == (1, 1.0, True)


def test_no_unit_yet_is_no_mismatch_but_unknown_arms_are_misuse() -> None:
    assert not sample_ratio({}, {"a": 1, "b": 1}).mismatch
    for units, weights in (({"c": 1}, {"a": 1.0}), ({}, {"a": 0.0})):
        with pytest.raises(ValueError, match="weights"):
            sample_ratio(units, weights)


def test_a_hopeless_split_has_a_finite_e_value() -> None:
    assert math.isfinite(sample_ratio({"a": 10**7, "b": 0}, {"a": 1, "b": 1}).e)


def test_under_continuous_peeking_the_e_process_rarely_errs_and_finds_a_loss_of_units() -> None:
    """2000 null runs of 2000 units, looked at every 50 units: it ever reaches 1/alpha in at most alpha of them (at .05,
    because .001 has too few events), where the chi-square at that level errs four times as often. An arm that loses a
    tenth of its units is found at .001."""
    rng = np.random.default_rng(0)
    null = np.cumsum(rng.random((2000, 2000)) < 0.5, axis=1, dtype=np.int64)
    n = np.arange(1, 2001)
    highest = np.array([max(e_path(run, n, 0.5)) for run in null])
    assert np.mean(highest >= math.log(1 / 0.05)) <= 0.05
    z = (null - n / 2) / np.sqrt(n / 4)
    assert np.mean((np.abs(z[:, 49::50]) > 1.96).any(axis=1)) > 0.2
    lossy = np.cumsum(rng.random(20_000) < 0.45 / 0.95, dtype=np.int64)
    assert max(e_path(lossy, np.arange(1, 20_001), 0.5)) > math.log(1 / ALPHA)


def e_path(ones: npt.NDArray[np.int64], n: npt.NDArray[np.int64], share: float) -> list[float]:
    """log e after every 50th unit, by the function under test."""
    steps = range(49, len(n), 50)
    return [math.log(e_value([int(ones[i]), int(n[i] - ones[i])], [share, 1 - share])) for i in steps]
