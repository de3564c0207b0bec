"""Predicted and watched shares: intervals that hold what they promise, at all looks together."""

from __future__ import annotations

import numpy as np
import pytest
import scipy
from hypothesis import given
from hypothesis import strategies as st

from interlock.monitoring.proportions import design_effect, predicted, watched

counts = st.integers(1, 100_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
effects, alphas = st.floats(1.0, 50.0), st.floats(1e-6, 0.2)


@given(counts, effects, alphas)
def test_an_interval_holds_its_share_and_grows_with_doubt(found: tuple[int, int], effect: float, alpha: float) -> None:
    x, n = found
    for interval in (predicted, watched):
        one = interval(x, n, effect, alpha)
        assert 0 <= one.low <= one.share + 1e-9
        assert one.share - 1e-9 <= one.high <= 1
        wider = interval(x, n, effect * 2, alpha / 2)
        assert wider.low <= one.low + 1e-9
        assert one.high <= wider.high + 1e-9
    mirrored = watched(n - x, n, effect, alpha)
    assert mirrored.low == pytest.approx(1 - watched(x, n, effect, alpha).high, abs=1e-9)


def test_the_predicted_interval_is_that_of_clopper_and_pearson() -> None:
    known = scipy.stats.binomtest(7, 200).proportion_ci(0.95, method="exact")
    found = predicted(7, 200, 1.0, 0.1)  # half of alpha is for the other share
    assert (found.low, found.high) == pytest.approx((known.low, known.high))


@pytest.mark.parametrize("share", [0.002, 0.05, 0.4])
def test_however_often_one_looks_the_truth_is_rarely_left(share: float) -> None:
    """Half of alpha = 0.2 is the watched interval's; looks after every ten rows."""
    seen = (np.random.default_rng(2013).random((200, 1000)) < share).cumsum(axis=1)
    ends: dict[tuple[int, int], bool] = {}

    def left(x: int, n: int) -> bool:
        if (x, n) not in ends:
            one = watched(x, n, 1.0, 0.2)
            ends[x, n] = not one.low <= share <= one.high
        return ends[x, n]

    missed = sum(any(left(int(run[n - 1]), n) for n in range(10, 1001, 10)) for run in seen)
    assert missed <= 200 * 0.1


@given(st.lists(st.tuples(st.integers(1, 20), st.floats(0, 1)), min_size=2, max_size=50))
def test_the_design_effect_is_the_variance_over_clusters(clusters: list[tuple[int, float]]) -> None:
    n = np.array([size for size, _ in clusters])
    x = np.array([round(size * share) for size, share in clusters])
    found = design_effect(int(n.sum()), int(x.sum()), int((n * n).sum()), int((n * x).sum()), int((x * x).sum()))
    p = x.sum() / n.sum()
    if 0 < p < 1:
        assert found == pytest.approx(max(1.0, ((x - p * n) ** 2).sum() / (n.sum() * p * (1 - p))))
    else:
        assert found == pytest.approx((n * n).sum() / n.sum())  # nothing varies: as if all rows of a unit were one


def test_single_rows_have_no_design_effect() -> None:
    assert design_effect(1000, 50, 1000, 50, 50) == pytest.approx(1.0)
    assert design_effect(1000, 50, 100_000, 5_000, 5_000) == pytest.approx(100.0)  # ten units of a hundred, all or none
    assert design_effect(0, 0, 0, 0, 0) == 1.0
