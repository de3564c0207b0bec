"""The parts of an evaluation report, each against a published number or scikit-learn."""

from __future__ import annotations

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from sklearn.inspection import permutation_importance
from sklearn.linear_model import LinearRegression

from interlock.core.errors import Corrupt, PredictionFailed
from interlock.core.settings import CostSettings
from interlock.evaluation.calibration import reliability, residual_quantiles, wilson
from interlock.evaluation.confusion import MAX_CLASSES, MAX_ROWS, confusion, disagreements
from interlock.evaluation.fairness import fairness
from interlock.evaluation.importance import importance
from interlock.evaluation.metrics import average_precision, measure
from interlock.evaluation.report import Report, decode
from interlock.evaluation.resampling import drawn_cells, intervals, precision_influence
from interlock.evaluation.shift import shifts
from interlock.evaluation.thresholds import thresholds
from interlock.model import profile
from interlock.model.signature import Input, Signature

Array = npt.NDArray[np.float64]


def scored(n: int = 1500, seed: int = 0) -> tuple[Array, Array]:
    """Labels and a score that is nearly calibrated, coarse so that some are equal."""
    rng = np.random.default_rng(seed)
    score = np.round(rng.beta(2, 4, n), 2)
    return (rng.random(n) < score).astype(float), score


def ratings() -> tuple[Array, Array]:
    """The 109 tomographies of Hanley & McNeil (1982), rated from 1 to 5."""
    counts = ([33, 6, 6, 11, 2], [3, 2, 2, 11, 33])
    y = np.repeat([0.0, 1.0], [58, 51])
    return y, np.concatenate([np.repeat(np.arange(1.0, 6), one) for one in counts])


class TestIntervals:
    def test_auc_is_the_published_one(self) -> None:
        """Stata's manual, `roctab`: area 0.8932, 95 % 0.83295 to 0.95339."""
        y, rating = ratings()
        found = intervals("binary", y, rating / 5)["auc"]
        assert measure("binary", y, rating / 5)["auc"] == pytest.approx(0.8932, abs=5e-5)
        assert (found.low, found.high) == pytest.approx((0.83295, 0.95339), abs=2e-5)
        assert found.method == "delong"

    def test_average_precisions_influence_is_its_derivative(self) -> None:
        y, score = scored(120)
        influence, step = precision_influence(y, score), 1e-6
        assert influence.sum() == pytest.approx(0, abs=1e-12)
        for row in range(0, 120, 7):
            weights = np.ones(120)
            weights[row] += step
            moved = sk.average_precision_score(y, score, sample_weight=weights) - average_precision(y, score)
            assert influence[row] == pytest.approx(moved / step, abs=1e-6)

    def test_the_bootstrap_agrees_with_theory(self) -> None:
        y, score = scored(4000)
        found = intervals("binary", y, score, 0.4)
        right = (score >= 0.4) == y
        reach = 1.96 * np.sqrt(right.mean() * (1 - right.mean()) / len(y))
        assert found["accuracy"].low == pytest.approx(right.mean() - reach, abs=2e-3)
        assert found["accuracy"].high == pytest.approx(right.mean() + reach, abs=2e-3)
        values = measure("binary", y, score, 0.4)
        assert found.keys() == values.keys() - {"ece"}
        for name, one in found.items():
            assert one.low <= values[name] <= one.high, name

    def test_rows_that_cluster_widen_them_and_a_seed_repeats_them(self) -> None:
        y, score = scored(400)
        once = intervals("binary", y, score)
        y4, score4 = np.tile(y, 4), np.tile(score, 4)
        grouped = intervals("binary", y4, score4, groups=np.tile(np.arange(400), 4))
        plain = intervals("binary", y4, score4)
        for name in ("auc", "average_precision", "brier"):
            width = once[name].high - once[name].low
            assert grouped[name].high - grouped[name].low == pytest.approx(width, rel=0.12), name
            assert plain[name].high - plain[name].low < 0.6 * width
        assert intervals("binary", y, score) == once
        assert intervals("binary", y, score, seed=1) != once

    @pytest.mark.parametrize(("task", "names"), [("regression", {"rmse", "mae", "r2", "bias"}),
                                                 ("multiclass", {"accuracy", "macro_f1", "log_loss"})])  # fmt: skip
    def test_other_tasks_have_theirs(self, task: str, names: set[str]) -> None:
        rng = np.random.default_rng(0)
        y = rng.integers(0, 3, 300).astype(float)
        output = rng.dirichlet([1, 1, 1], 300) if task == "multiclass" else y + rng.normal(0, 1, 300)
        assert intervals(task, y, output).keys() == names  # type: ignore[arg-type]  # a Task, widened by parametrize

    def test_one_row_has_none(self) -> None:
        assert intervals("binary", np.ones(1), np.ones(1)) == {}

    def test_cells_scatter_alike_by_row_and_by_groups_of_one_row(self) -> None:
        cells = np.random.default_rng(0).choice(4, 600, p=[0.1, 0.2, 0.3, 0.4])
        rows, groups = drawn_cells(cells, 4), drawn_cells(cells, 4, groups=np.arange(600))
        assert (rows[0] == groups[0]).all()
        assert (rows.sum(axis=1) == 600).all()
        assert rows.std(axis=0) == pytest.approx(groups.std(axis=0), rel=0.1)


class TestCalibration:
    def test_bins_are_those_of_scikit_learn(self) -> None:
        y, score = scored()
        seen, said = calibration_curve(y, score, n_bins=10, strategy="quantile")
        found = reliability("binary", y, score)
        assert [one.seen for one in found] == pytest.approx(seen)
        assert [one.said for one in found] == pytest.approx(said)
        assert sum(one.n for one in found) == len(y)
        assert sum(one.n * abs(one.seen - one.said) for one in found) / len(y) == pytest.approx(
            measure("binary", y, score)["ece"]
        )

    def test_wilsons_interval_is_the_published_one(self) -> None:
        """Newcombe (1998), table I: 81 of 263, and 0 of 20."""
        assert wilson(81 / 263, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
        assert wilson(0, 20) == pytest.approx((0, 0.1611), abs=5e-5)

    def test_several_classes_are_judged_by_the_label_given(self) -> None:
        y, said = (
            np.array([0.0, 1, 2, 2]),
            np.array([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.1, 0.1, 0.8]]),
        )
        (one,) = reliability("multiclass", y, said)
        assert (one.n, one.said, one.seen) == pytest.approx((4, 0.8, 0.75))

    def test_regression_has_means_and_residuals(self) -> None:
        y = np.arange(100.0)
        found = reliability("regression", y, y + 1)
        assert [one.said - one.seen for one in found] == pytest.approx([1] * 10)
        assert residual_quantiles(y, y + 1)["0.5"] == 1


class TestThresholds:
    def test_points_are_those_of_scikit_learn(self) -> None:
        y, score = scored()
        found = thresholds(y, score, 0.335, None)
        assert (len(found.points), found.costs, found.cheapest) == (100, None, None)
        for one in found.points[::9]:
            label = score >= one.threshold
            assert one.selected == pytest.approx(label.mean())
            assert one.recall == pytest.approx(sk.recall_score(y, label))
            assert one.precision == (pytest.approx(sk.precision_score(y, label)) if label.any() else None)

    def test_the_cheapest_of_a_calibrated_score_is_elkans(self) -> None:
        """Elkan (2001): (c10 - c00) / (c10 - c00 + c01 - c11), on scores k/100 of which exactly k in 100 are positive."""
        score = np.repeat(np.arange(101) / 100, 100)
        y = np.concatenate([np.repeat([1.0, 0.0], [k, 100 - k]) for k in range(101)])
        costs = CostSettings(tp=-1, fp=2, fn=5, tn=0)
        found = thresholds(y, score, 0.5, costs)
        assert found.cheapest is not None
        best = found.cheapest
        assert best.threshold == pytest.approx(2 / (2 + 5 + 1))
        assert best.interval.low <= best.threshold <= best.interval.high
        assert best.cost == min(one.cost for one in found.points if one.cost is not None)
        deployed = next(one.cost for one in found.points if one.threshold == 0.5)
        false = (score >= 0.5) & (y == 0)
        by_hand = (2 * false.sum() - ((score >= 0.5) & (y == 1)).sum() + 5 * ((score < 0.5) & (y == 1)).sum()) / len(y)
        assert deployed == pytest.approx(by_hand)
        assert best.saving == pytest.approx(by_hand - best.cost)
        assert best.saving_interval.low > 0

    def test_groups_widen_the_saving(self) -> None:
        y, score = scored(500)
        y6, score6 = np.tile(y, 6), np.tile(score, 6)
        costs = CostSettings(fp=1, fn=3)
        alone, grouped = (
            thresholds(y6, score6, 0.6, costs, groups).cheapest for groups in (None, np.tile(np.arange(500), 6))
        )
        assert alone is not None
        assert grouped is not None
        assert alone.saving == pytest.approx(grouped.saving)
        narrow, wide = (one.saving_interval.high - one.saving_interval.low for one in (alone, grouped))
        assert wide == pytest.approx(narrow * np.sqrt(6), rel=0.25)


class TestConfusion:
    def test_counts_are_those_of_scikit_learn(self) -> None:
        y, score = scored()
        found = confusion("binary", ("no", "yes"), y, score, 1 - score, 0.3)
        assert found is not None
        assert found.counts == tuple(map(tuple, sk.confusion_matrix(y, score >= 0.3).tolist()))
        assert found.champion == tuple(map(tuple, sk.confusion_matrix(y, 1 - score >= 0.3).tolist()))
        assert confusion("regression", (), y, score, None, 0.5) is None

    def test_rare_classes_beyond_thirty_are_one(self) -> None:
        rng = np.random.default_rng(0)
        y = np.concatenate([np.arange(50), np.repeat(np.arange(29), 3)]).astype(float)
        found = confusion(
            "multiclass", [f"c{at}" for at in range(50)], y, rng.dirichlet(np.ones(50), len(y)), None, 0.5
        )
        assert found is not None
        assert len(found.classes) == MAX_CLASSES
        assert found.classes[:29] == tuple(f"c{at}" for at in range(29))
        assert found.classes[-1] == "(other)"
        assert [sum(row) for row in found.counts] == [4] * 29 + [21]

    def test_the_rows_furthest_apart_come_first_and_equal_ones_never(self) -> None:
        y, score = scored(200)
        other = score.copy()
        other[[5, 9]] += [0.2, -0.3]
        ids = np.array([f"r{at}" for at in range(200)])
        found = disagreements("binary", ("no", "yes"), ids, y, score, other, 0.5)
        assert [one.id for one in found] == ["r9", "r5"]
        assert [one.apart for one in found] == pytest.approx([0.3, 0.2])
        assert (found[0].number, found[0].champion_number) == (score[9], other[9])
        assert found[0].label == ("yes" if y[9] else "no")
        assert len(disagreements("binary", ("no", "yes"), ids, y, score, 1 - score**2, 0.5)) == MAX_ROWS

    def test_several_classes_differ_by_total_variation(self) -> None:
        ours, theirs = np.array([[0.7, 0.2, 0.1]]), np.array([[0.1, 0.2, 0.7]])
        (one,) = disagreements("multiclass", "abc", np.array(["x"]), np.array([2.0]), ours, theirs, 0.5)
        assert (one.said, one.champion_said, one.label) == ("a", "c", "c")
        assert one.apart == pytest.approx(0.6)
        assert (one.number, one.champion_number) == (0.7, 0.7)


class TestImportance:
    def test_it_is_that_of_scikit_learn(self) -> None:
        rng = np.random.default_rng(0)
        x = rng.normal(size=(1500, 3))
        y = x @ [3.0, 1.0, 0.0] + rng.normal(0, 0.5, 1500)
        model = LinearRegression().fit(x, y)
        found = importance(
            lambda arrays: model.predict(np.column_stack(arrays))[:, None], "abc", list(x.T), "regression", y
        )
        theirs = permutation_importance(model, x, y, scoring="neg_root_mean_squared_error", n_repeats=5, random_state=1)
        assert (found.metric, found.rows, found.repeats) == ("rmse", 1500, 5)
        assert [one.input for one in found.inputs][:2] == ["a", "b"]
        ours = {one.input: one.worse for one in found.inputs}
        assert [ours[name] for name in "abc"] == pytest.approx(theirs.importances_mean, rel=0.05, abs=1e-3)

    def test_a_model_that_raises_on_shuffled_rows_is_told(self) -> None:
        y, score = scored(400)

        def predict(arrays: list[Array]) -> Array:
            if not np.array_equal(arrays[0][: len(arrays[1])], arrays[1]) and len(arrays[0]) > 400:
                raise PredictionFailed("the two never differ")
            return arrays[0][:, None]

        found = importance(predict, ("a", "twin"), [score, score], "binary", y)
        assert {one.worse for one in found.inputs} == {None}
        assert found.metric == "auc"


class TestFairness:
    def test_error_rates_are_the_published_ones(self) -> None:
        """ProPublica (2016) on COMPAS: false alarms 44.85 and 23.45 %, misses 27.99 and 47.72 %, Black and white."""
        counts = {"black": (990, 805, 532, 1369), "white": (1139, 349, 461, 505)}  # no, false alarm, missed, hit
        cells = [(group, y, label, n) for group, four in counts.items()
                 for (y, label), n in zip(((0, 0), (0, 1), (1, 0), (1, 1)), four, strict=True)]  # fmt: skip
        repeats = [n for *_, n in cells]
        race, y, score = (np.repeat([cell[at] for cell in cells], repeats) for at in range(3))
        found = fairness("race", race, y, score, 0.5)
        rates = {one.value: one for one in found.groups}
        assert [rates[one].false_alarms for one in counts] == pytest.approx([0.4485, 0.2345], abs=5e-5)
        assert [1 - (rates[one].recall or 0) for one in counts] == pytest.approx([0.2799, 0.4772], abs=5e-5)
        assert found.equalised_odds is not None
        assert found.selection_ratio is not None
        assert found.equalised_odds.value == pytest.approx(0.4485 - 0.2345, abs=1e-4)
        assert found.selection_ratio.value == pytest.approx((854 / 2454) / (2174 / 3696))
        normal = 1.96 * np.sqrt(0.4485 * 0.5515 / 1795 + 0.2345 * 0.7655 / 1488)
        assert found.equalised_odds.interval.high == pytest.approx(0.214 + normal, abs=5e-3)
        assert found.selection_ratio.interval.low < found.selection_ratio.value < found.selection_ratio.interval.high

    def test_a_small_group_is_never_compared(self) -> None:
        y, score = scored(1000)
        texts = np.array(["few"] * 99 + ["many"] * 901)
        found = fairness("sex", texts, y, score, 0.4)
        assert [(one.value, one.verdict) for one in found.groups] == [("few", "too small"), ("many", "measured")]
        assert (found.selection_ratio, found.equalised_odds) == (None, None)
        texts[:450] = "some"
        one_sided = np.where(texts == "some", 0.0, y)
        verdicts = {one.value: one.verdict for one in fairness("sex", texts, one_sided, score, 0.4).groups}
        assert verdicts == {"many": "measured", "some": "too small"}

    def test_nobody_selected_is_alike(self) -> None:
        y, score = scored(1000)
        found = fairness("sex", np.where(np.arange(1000) % 2, "a", "b"), y, score, 2.0)
        assert found.selection_ratio is not None
        assert found.selection_ratio.value == 1


def test_training_rows_are_held_against_the_champions_profile() -> None:
    rng = np.random.default_rng(0)
    inputs = (Input("same", "float"), Input("moved", "int"), Input("plan", "category"), Input("member", "bool", nullable=True),
              Input("at", "timestamp"), Input("new", "float"))  # fmt: skip
    known = Signature("binary", inputs[:5], (False, True))

    def rows(shift: int) -> list[npt.NDArray[np.generic]]:
        return [
            rng.normal(size=2000), rng.poisson(5 + shift, 2000), np.array(rng.choice(["a", "b"], 2000), object),
            np.where(rng.random(2000) < 0.1, np.nan, 1.0), np.arange(2000), rng.normal(size=2000),
        ]  # fmt: skip

    reference = profile.build(known, rows(0)[:5], [True, False], np.zeros((2, 1)))
    found = {one.input: one for one in shifts(reference, inputs, rows(3))}
    assert {name: one.verdict for name, one in found.items()} == {
        "same": "alike", "moved": "moved", "plan": "alike", "member": "alike", "new": "new"
    }  # fmt: skip
    few = [column[:499] for column in rows(3)]
    assert next(one for one in shifts(reference, inputs, few) if one.input == "moved").verdict == "too small"


def test_a_report_of_the_first_format_is_read_and_lacks_what_came_later() -> None:
    old = {
        "format": 1, "model": "m", "task": "binary", "subject": {"model": "m", "version": 1, "package_digest": "sha256:p"},
        "against": None, "note": "", "threshold": 0.5, "metrics": {"auc": 0.7}, "baseline": {}, "against_metrics": {},
        "rows": {"extract_digest": "e", "split_digest": "s", "n": 1, "left_out": 0, "first": "", "last": ""},
        "paired": [], "slices": [], "proof": None, "created": "",
    }  # fmt: skip
    found = decode(msgspec.json.encode(old).decode())
    assert (found.intervals, found.thresholds, found.confusion, found.shifts) == ({}, None, None, ())
    assert isinstance(found, Report)
    for number in (0, 3):
        with pytest.raises(Corrupt, match=f"format {number}"):
            decode(msgspec.json.encode({**old, "format": number}).decode())
