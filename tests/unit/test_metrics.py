from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from sklearn import metrics as reference

from interlock.core.settings import Task
from interlock.evaluation.metrics import METRICS, baseline, measure, metrics_of

Array = npt.NDArray[np.float64]


def scored(n: int = 600, seed: int = 0) -> tuple[Array, Array]:
    """Labels and scores with many ties."""
    rng = np.random.default_rng(seed)
    y: Array = (rng.random(n) < 0.3).astype(float)
    score: Array = np.clip(0.3 + 0.25 * y + 0.2 * rng.normal(size=n), 0, 1).round(2)
    return y, score


def test_binary_metrics_equal_scikit_learns() -> None:
    y, score = scored()
    label = score >= 0.4
    found = measure("binary", y, score, 0.4)
    expected = {
        "auc": reference.roc_auc_score(y, score),
        "average_precision": reference.average_precision_score(y, score),
        "log_loss": reference.log_loss(y, score),
        "brier": reference.brier_score_loss(y, score),
        "accuracy": reference.accuracy_score(y, label),
        "precision": reference.precision_score(y, label),
        "recall": reference.recall_score(y, label),
        "f1": reference.f1_score(y, label),
        "positive_rate": label.mean(),
    }
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-12)
    assert list(found) == list(metrics_of("binary"))


def test_multiclass_metrics_equal_scikit_learns_also_where_a_class_never_occurs() -> None:
    rng = np.random.default_rng(1)
    probabilities = rng.dirichlet([1, 1, 1, 0.1], 400)
    y = rng.integers(0, 3, 400).astype(float)
    said = probabilities.argmax(axis=1)
    assert measure("multiclass", y, probabilities) == pytest.approx(
        {
            "accuracy": reference.accuracy_score(y, said),
            "macro_f1": reference.f1_score(y, said, average="macro"),
            "log_loss": reference.log_loss(y, probabilities, labels=[0, 1, 2, 3]),
        },
        rel=1e-12,
    )


def test_regression_metrics_equal_scikit_learns() -> None:
    rng = np.random.default_rng(2)
    y = rng.normal(10, 3, 300)
    value = y + rng.normal(0.5, 1, 300)
    assert measure("regression", y, value) == pytest.approx(
        {
            "rmse": reference.root_mean_squared_error(y, value),
            "mae": reference.mean_absolute_error(y, value),
            "r2": reference.r2_score(y, value),
            "bias": (value - y).mean(),
        },
        rel=1e-12,
    )


def test_calibration_error_is_zero_for_calibrated_scores_and_the_gap_for_shifted_ones() -> None:
    score = np.repeat(np.arange(10) / 10, 100)
    y = (np.tile(np.arange(100), 10) < score * 100).astype(float)
    assert measure("binary", y, score)["ece"] == pytest.approx(0, abs=1e-12)
    assert measure("binary", y, score + 0.05)["ece"] == pytest.approx(0.05)


def test_a_score_on_an_edge_belongs_to_the_lower_calibration_bin() -> None:
    """Scores 0 to 10 sixteenths, deciles at each of 1 to 9: the two lowest share a bin, the others are alone."""
    score, y = np.arange(11) / 16, np.array([1.0, *[0] * 10])
    assert measure("binary", y, score)["ece"] == pytest.approx((1 - 1 / 16 + sum(range(2, 11)) / 16) / 11)


def test_a_constant_score_has_one_calibration_bin() -> None:
    y = np.array([1.0, 1, 0, 0, 0])
    assert measure("binary", y, np.full(5, 0.5))["ece"] == pytest.approx(0.1)


def test_what_is_undefined_is_absent() -> None:
    one_class = measure("binary", np.zeros(5), np.linspace(0, 0.4, 5))
    assert {"auc", "average_precision", "precision", "recall", "f1"}.isdisjoint(one_class)
    assert {"brier", "log_loss", "accuracy", "positive_rate", "ece"} <= one_class.keys()
    assert "r2" not in measure("regression", np.ones(3), np.zeros(3))
    tasks: tuple[Task, ...] = ("binary", "regression")
    for task in tasks:
        assert measure(task, np.array([]), np.array([])) == {}
    assert measure("multiclass", np.array([]), np.empty((0, 3))) == {}


def test_the_threshold_belongs_to_the_positives() -> None:
    assert measure("binary", np.array([1.0, 0.0]), np.array([0.5, 0.4]), 0.5)["recall"] == 1


@pytest.mark.parametrize(
    ("task", "y", "output"),
    [
        ("binary", [0, 2], [0.1, 0.2]),
        ("binary", [0, 1], [0.1]),
        ("binary", [0, 1], [0.1, np.nan]),
        ("multiclass", [0, 1], [0.1, 0.2]),
        ("multiclass", [0, 3], [[0.1, 0.9], [0.2, 0.8]]),
        ("regression", [0, np.inf], [0.1, 0.2]),
    ],
)
def test_what_does_not_fit_is_refused(task: Task, y: list[float], output: list[float]) -> None:
    with pytest.raises(ValueError, match=task):
        measure(task, np.array(y), np.array(output))


def test_the_baseline_knows_only_the_training_labels() -> None:
    assert baseline("binary", np.array([0, 0, 0, 1]), 2).tolist() == [0.25, 0.25]
    assert baseline("regression", np.array([1.0, 3.0]), 3).tolist() == [2, 2, 2]
    assert baseline("multiclass", np.array([0, 1, 1, 1]), 1, classes=3).tolist() == [[0.25, 0.75, 0]]
    with pytest.raises(ValueError, match="at least one"):
        baseline("binary", np.array([]), 2)


def test_every_metric_is_described_once_and_really_measured() -> None:
    y, score = scored()
    rng = np.random.default_rng(3)
    measured = {
        "binary": measure("binary", y, score),
        "multiclass": measure("multiclass", y, rng.dirichlet([1, 1], len(y))),
        "regression": measure("regression", score, y),
    }
    described = [(metric.task, metric.name) for metric in METRICS]
    assert sorted(described) == sorted((task, name) for task, values in measured.items() for name in values)
