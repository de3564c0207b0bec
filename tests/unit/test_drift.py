from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from interlock.monitoring.drift import class_absent, class_surge, psi, score_shift, volume


def test_psi_of_a_worked_example() -> None:
    """(.4-.5) ln(.4/.5) + (.3-.3) ln 1 + (.3-.2) ln(.3/.2) = .0223144 + .0405465."""
    found = psi([5000, 3000, 2000], [400, 300, 300])
    assert found.value == pytest.approx(0.0628609, abs=1e-6)
    assert (found.verdict, found.threshold, found.n, found.detail) == ("ok", 0.2, 1000, "psi, 3 bins")


@pytest.mark.parametrize(("moved", "verdict"), [(0, "ok"), (0.08, "ok"), (0.15, "warn"), (0.2, "alert")])
def test_psi_warns_at_half_of_its_threshold(moved: float, verdict: str) -> None:
    window = 10_000 * np.array([0.5 - moved, 0.25, 0.25 + moved])
    assert psi([5000, 2500, 2500], window).verdict == verdict


def test_psi_is_silent_under_500_rows_and_without_any() -> None:
    assert psi([500, 500], [499, 0]).verdict == "too small"
    assert psi([500, 500], [500, 0]).verdict == "alert"
    assert psi([500, 500], [0, 0]).value is None


def test_an_empty_bin_counts_as_the_floor() -> None:
    found = psi([9900, 100, 0], [9900, 0, 100])
    assert found.value == pytest.approx(2 * (0.01 - 1e-4) * np.log(0.01 / 1e-4))


def test_many_bins_raise_the_threshold_to_the_null_quantile() -> None:
    found = psi(np.ones(300) * 15, np.ones(300) * 10)
    assert found.threshold == pytest.approx(stats.chi2.ppf(0.999, 299) * (1 / 3000 + 1 / 4500))
    assert found.threshold > 0.2


@pytest.mark.parametrize(("bins", "rows"), [(11, 500), (60, 500), (200, 500), (200, 5000), (3000, 5000)])
def test_without_drift_psi_rarely_warns_however_many_bins(bins: int, rows: int) -> None:
    """1000 windows of the reference's own, very unequal shares: the null quantile lets through about one."""
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(bins))
    reference = rng.multinomial(50_000, shares)
    verdicts = [psi(reference, window).verdict for window in rng.multinomial(rows, shares, size=1000)]
    assert sum(verdict != "ok" for verdict in verdicts) <= 5


def test_sparse_bins_are_pooled_unless_one_of_them_grows() -> None:
    reference = [9000, *[10] * 100]
    quiet = psi(reference, [900, *[1] * 100])
    assert (quiet.verdict, quiet.detail) == ("ok", "psi, 101 bins, 100 sparse ones pooled")
    assert quiet.value == pytest.approx(0, abs=1e-12)
    assert psi(reference, [900, 100, *[0] * 99]).verdict == "alert"
    assert psi([10] * 1000, [1] * 1000).verdict == "too small"


def test_psi_needs_the_same_bins_and_a_reference() -> None:
    for reference, window in (([1, 2], [1, 2, 3]), ([0, 0], [1, 1])):
        with pytest.raises(ValueError, match="PSI"):
            psi(reference, window)


def test_a_score_shift_is_counted_in_deviations_of_the_reference() -> None:
    reference = (0.3, 0.1, 50_000)
    assert score_shift(reference, (0.27, 0.1, 5000)).verdict == "alert"
    warned = score_shift(reference, (0.315, 0.1, 5000))
    assert warned.verdict == "warn"
    assert warned.value == pytest.approx(0.15)
    assert score_shift(reference, (0.305, 0.1, 5000)).verdict == "ok"
    assert score_shift(reference, (0.9, 0.1, 499)).verdict == "too small"
    assert score_shift(reference, (0.0, 0.0, 0)).value is None
    with pytest.raises(ValueError, match="spread"):
        score_shift((0.3, 0.0, 100), reference)


def test_a_score_shift_that_noise_explains_is_no_alert() -> None:
    """3.29 deviations of the mean of 500 wide scores: sqrt(9 / 500) · 3.29 = .44."""
    noisy = score_shift((0.3, 0.1, 10**9), (0.34, 0.3, 500))
    assert noisy.verdict == "ok"
    assert noisy.threshold == pytest.approx(0.4415, abs=1e-3)


@pytest.mark.parametrize(("n", "verdict"), [(134, "ok"), (135, "alert")])
def test_a_class_of_5_percent_should_appear_in_135_rows(n: int, verdict: str) -> None:
    """.95^134 = .001036, .95^135 = .000984."""
    assert class_absent(0.05, 0, n).verdict == verdict
    assert class_absent(0.05, 1, n).verdict == "ok"


def test_classes_at_the_ends_of_the_scale() -> None:
    assert class_absent(0.0, 0, 10**6).verdict == "ok"
    assert class_absent(1.0, 0, 1).verdict == "alert"
    assert class_surge(1.0, 100, 100).verdict == "ok"
    assert class_surge(0.0, 1, 1000).verdict == "too small"
    assert class_surge(0.0, 5, 1000).verdict == "alert"
    assert class_surge(0.1, 0, 0).value is None


def test_too_much_of_a_class_needs_ratio_and_evidence() -> None:
    assert class_surge(0.2, 2800, 10_000).verdict == "ok"  # sure, but 1.4 times only
    assert class_surge(0.2, 3001, 10_000).verdict == "alert"
    assert class_surge(0.2, 33, 100).verdict == "too small"  # a binomial tail of .00155
    assert class_surge(0.2, 34, 100).verdict == "alert"  # .00074


def test_volume_stands_out_by_four_robust_deviations() -> None:
    past = [100, 104, 96, 110, 90, 5000]  # one odd week does not widen the band
    assert volume(past, 102).verdict == "ok"
    for count in (0, 300):
        assert volume(past, count).verdict == "alert"
    assert volume(past[:3], 0).verdict == "too small"


def test_equal_weeks_leave_room_for_chance() -> None:
    assert volume([100] * 8, 139).verdict == "ok"
    assert volume([100] * 8, 140).verdict == "alert"
    assert volume([0] * 8, 3).verdict == "ok"
