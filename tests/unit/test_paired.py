from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats
from sklearn.metrics import brier_score_loss, f1_score, roc_auc_score

from interlock.core.settings import Task
from interlock.evaluation.metrics import row_terms
from interlock.evaluation.paired import Paired, benjamini_hochberg, bootstrap, compare, delong, delta, mcnemar

Array = npt.NDArray[np.float64]


def two_models(n: int = 800, seed: int = 0, gain: float = 0.3) -> tuple[Array, Array, Array]:
    """Labels and the scores of two correlated models, the first better by `gain`."""
    rng = np.random.default_rng(seed)
    signal = rng.normal(size=n)
    y = (rng.random(n) < 1 / (1 + np.exp(-signal + 1))).astype(float)
    a = 1 / (1 + np.exp(-signal + 1 - 0.5 * rng.normal(size=n)))
    b = 1 / (1 + np.exp(-signal * (1 - gain) + 1 - 0.7 * rng.normal(size=n)))
    return y, a, b


def delong_by_definition(y: Array, scores: tuple[Array, Array]) -> tuple[Array, float]:
    """AUCs and the standard error of their difference from all pairs, as in the paper of 1988."""
    kernels = [np.sign(s[y == 1][:, None] - s[y == 0][None, :]) / 2 + 0.5 for s in scores]
    v10 = np.array([kernel.mean(axis=1) for kernel in kernels])
    v01 = np.array([kernel.mean(axis=0) for kernel in kernels])
    covariance = np.cov(v10) / v10.shape[1] + np.cov(v01) / v01.shape[1]
    contrast = np.array([1.0, -1.0])
    return np.array([kernel.mean() for kernel in kernels]), float(np.sqrt(contrast @ covariance @ contrast))


def test_delong_equals_its_definition_with_ties() -> None:
    y, a, b = two_models(300)
    a, b = np.round(a, 1), np.round(b, 2)
    found = delong(y, a, b)
    aucs, se = delong_by_definition(y, (a, b))
    assert (found.candidate, found.champion) == pytest.approx((roc_auc_score(y, a), roc_auc_score(y, b)))
    assert (found.effect, found.se) == pytest.approx((aucs[0] - aucs[1], se))
    assert (found.low, found.high) == pytest.approx((found.effect - 1.959964 * se, found.effect + 1.959964 * se))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(found.effect) / se))


def test_delong_with_every_row_its_own_group_is_nearly_delong_and_with_doubled_rows_is_honest() -> None:
    y, a, b = two_models()
    plain = delong(y, a, b)
    assert delong(y, a, b, groups=np.arange(len(y))).se == pytest.approx(plain.se, rel=0.01)
    y2, a2, b2 = (np.tile(values, 2) for values in (y, a, b))
    assert delong(y2, a2, b2).se == pytest.approx(plain.se / np.sqrt(2), rel=0.01)
    assert delong(y2, a2, b2, groups=np.tile(np.arange(len(y)), 2)).se == pytest.approx(plain.se, rel=0.01)


def test_delong_needs_two_rows_of_each_class() -> None:
    with pytest.raises(ValueError, match="1 positives"):
        delong(np.array([1.0, 0, 0]), np.array([0.1, 0.2, 0.3]), np.array([0.1, 0.2, 0.3]))


def test_mcnemar_is_the_exact_binomial_test_of_the_changed_rows() -> None:
    y = np.zeros(100)
    a, b = np.zeros(100), np.zeros(100)
    a[:5], b[3:20] = 1, 1  # rows 3 and 4 both wrong; 3 only a wrong, 15 only b wrong
    found = mcnemar(y, a, b)
    assert (found.candidate, found.champion, found.effect) == pytest.approx((0.95, 0.83, 0.12))
    assert found.p == pytest.approx(stats.binomtest(3, 18).pvalue)
    assert found.p == pytest.approx(0.0075378, abs=1e-6)
    assert found.low > 0


@pytest.mark.parametrize(("gained", "lost"), [(0, 5), (0, 6), (4, 14), (5, 15), (6, 14), (9, 9), (20, 7)])
def test_the_interval_of_mcnemar_agrees_with_its_test(gained: int, lost: int) -> None:
    y = np.zeros(60)
    a, b = np.zeros(60), np.zeros(60)
    b[:gained], a[gained : gained + lost] = 1, 1
    found = mcnemar(y, a, b)
    assert (found.p < 0.05) == (found.low > 0 or found.high < 0)
    assert found.low <= found.effect <= found.high


def test_the_bootstrap_equals_the_delta_method_and_the_textbook_for_a_mean() -> None:
    y, a, b = two_models(2000)
    ours, theirs = row_terms("binary", y, a, 0.4), row_terms("binary", y, b, 0.4)
    drawn = {paired.metric: paired for paired in bootstrap(ours, theirs, seed=1)}
    direct = {paired.metric: paired for paired in delta(ours, theirs)}
    assert drawn.keys() == direct.keys() == ours.keys()
    for name, paired in drawn.items():
        assert paired.effect == pytest.approx(direct[name].effect)
        assert paired.se == pytest.approx(direct[name].se, rel=0.08)
        assert (paired.low, paired.high) == pytest.approx((direct[name].low, direct[name].high), abs=0.25 * paired.se)
    difference = (a - y) ** 2 - (b - y) ** 2
    assert direct["brier"].se == pytest.approx(stats.sem(difference))
    assert drawn["brier"].effect == pytest.approx(brier_score_loss(y, a) - brier_score_loss(y, b))


def test_the_bootstraps_p_value_is_that_of_its_interval() -> None:
    y, a, b = two_models(2000, gain=0.02)
    drawn = compare("binary", y, a, b, 0.4)
    direct = {paired.metric: paired for paired in compare("binary", y, a, b, 0.4, method="delta")}
    assert any(0.05 < paired.p < 0.8 for paired in drawn if paired.method == "bootstrap")
    for paired in drawn:
        assert paired.p == pytest.approx(direct[paired.metric].p, abs=0.05)


def test_a_row_that_is_alone_in_its_stratum_still_counts() -> None:
    y, a, b = np.array([1.0, *[0] * 99]), np.full(100, 0.1), np.full(100, 0.2)
    found = {paired.metric: paired for paired in compare("binary", y, a, b, method="delta")}["brier"]
    own = (0.9**2 - 0.8**2 - found.effect) / 100
    assert found.se == pytest.approx(own)


def test_stratified_draws_keep_the_labels_and_agree_with_the_stratified_delta_method() -> None:
    y, a, b = two_models(1500)
    ours, theirs = row_terms("binary", y, a, 0.4), row_terms("binary", y, b, 0.4)
    for paired, direct in zip(bootstrap(ours, theirs, strata=y), delta(ours, theirs, strata=y), strict=True):
        assert paired.metric == direct.metric
        assert paired.se == pytest.approx(direct.se, rel=0.1)
    always = {"rate": row_terms("binary", y, np.ones(len(y)), 0.5)["precision"]}
    never_varies = bootstrap(always, {"rate": row_terms("binary", y, y, 0.5)["precision"]}, strata=y)[0]
    assert (never_varies.low, never_varies.high) == pytest.approx((y.mean() - 1, y.mean() - 1))


def test_whole_groups_are_drawn() -> None:
    y, a, b = two_models(400)
    y3, a3, b3 = (np.tile(values, 3) for values in (y, a, b))
    groups = np.tile(np.arange(400).astype(str), 3)
    once, thrice = delta_of(y, a, b), delta_of(y3, a3, b3, groups)
    assert thrice["brier"].se == pytest.approx(once["brier"].se, rel=0.01)
    for paired in bootstrap(row_terms("binary", y3, a3, 0.5), row_terms("binary", y3, b3, 0.5), groups=groups):
        assert paired.se == pytest.approx(thrice[paired.metric].se, rel=0.1)


def delta_of(y: Array, a: Array, b: Array, groups: npt.NDArray[np.str_] | None = None) -> dict[str, Paired]:
    found = delta(row_terms("binary", y, a, 0.5), row_terms("binary", y, b, 0.5), groups=groups)
    return {paired.metric: paired for paired in found}


def test_strata_and_groups_exclude_each_other() -> None:
    y, a, b = two_models(50)
    terms = row_terms("binary", y, a, 0.5), row_terms("binary", y, b, 0.5)
    with pytest.raises(ValueError, match="exclude"):
        bootstrap(*terms, strata=y, groups=np.arange(50) // 2)


def test_macro_f1_and_rmse_have_the_spread_of_many_samples() -> None:
    """The delta method's errors against the scatter of the effect over fresh samples of the same population."""
    rng = np.random.default_rng(5)
    cases: list[tuple[Task, str]] = [("multiclass", "macro_f1"), ("regression", "rmse"), ("regression", "r2")]
    for task, name in cases:
        effects, errors = [], []
        for _ in range(200):
            if task == "multiclass":
                y = rng.integers(0, 3, 400).astype(float)
                a, b = (rng.dirichlet([1, 1, 1], 400) + gain * np.eye(3)[y.astype(int)] for gain in (0.3, 0.2))
            else:
                y = rng.normal(size=400)
                a, b = y + rng.normal(size=400), y + 1.2 * rng.normal(size=400)
            found = next(p for p in compare(task, y, a, b, method="delta") if p.metric == name)
            effects.append(found.effect)
            errors.append(found.se)
        assert np.mean(errors) == pytest.approx(np.std(effects), rel=0.15), (task, name)


def test_compare_gives_each_metric_its_own_test_in_order() -> None:
    y, a, b = two_models()
    found = compare("binary", y, a, b, 0.4)
    assert [(paired.metric, paired.method) for paired in found] == [
        ("auc", "delong"),
        ("log_loss", "bootstrap"),
        ("brier", "bootstrap"),
        ("accuracy", "mcnemar-exact"),
        ("precision", "bootstrap"),
        ("recall", "bootstrap"),
        ("f1", "bootstrap"),
        ("positive_rate", "bootstrap"),
    ]
    f1 = next(paired for paired in found if paired.metric == "f1")
    assert (f1.candidate, f1.champion) == pytest.approx((f1_score(y, a >= 0.4), f1_score(y, b >= 0.4)))
    assert found == compare("binary", y, a, b, 0.4)
    assert found != compare("binary", y, a, b, 0.4, seed=1)


def test_with_groups_nothing_counts_rows_as_independent() -> None:
    y, a, b = two_models()
    found = compare("binary", y, a, b, groups=np.arange(len(y)) // 4)
    assert {paired.metric: paired.method for paired in found}["accuracy"] == "bootstrap"


def test_two_builds_of_one_model_do_not_differ() -> None:
    y, a, _ = two_models()
    for rebuilt, groups in itertools.product((a, a * (1 + 1e-15)), (None, np.arange(len(y)) // 4)):
        for paired in compare("binary", y, a, rebuilt, groups=groups):
            assert paired.p == 1, paired
            assert paired.effect == pytest.approx(0, abs=1e-12)
        for paired in compare("binary", y, a, rebuilt, groups=groups, method="delta"):
            assert paired.p == 1, paired


def test_what_cannot_be_compared_is_absent() -> None:
    score = np.linspace(0.1, 0.4, 40)
    found = {paired.metric for paired in compare("binary", np.zeros(40), score, score[::-1])}
    assert found == {"log_loss", "brier", "accuracy", "positive_rate"}
    assert compare("binary", np.array([1.0]), np.array([0.5]), np.array([0.4])) == []
    y, a, b = two_models()
    assert compare("binary", y, a, b, groups=np.zeros(len(y))) == []


def test_benjamini_hochberg_on_the_papers_example() -> None:
    """The 15 p values of Benjamini & Hochberg (1995), section 4.1: four are rejected at .05."""
    p = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344]
    p += [0.0459, 0.3240, 0.4262, 0.5719, 0.6528, 0.7590, 1.0000]
    adjusted = benjamini_hochberg(p)
    assert sum(value <= 0.05 for value in adjusted) == 4
    assert adjusted[3] == pytest.approx(0.0095 * 15 / 4)
    assert benjamini_hochberg([]) == []
