"""Metrics by task, on numpy arrays. One that is undefined for the rows (one class only, nothing predicted) is absent.

What a model's `output` is: binary, score [n] = P(positive), with y in {0, 1}; multiclass, probabilities [n, k], with y
the codes 0..k-1 and the label at the largest probability; regression, value [n].

Most metrics are a ratio of two sums over rows (`RowTerms`). That one definition gives the number here and, in `paired`,
its bootstrap and its delta-method interval.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, assert_never

import numpy as np
import numpy.typing as npt
import scipy
from msgspec import Struct

from interlock.core.settings import Task

Array = npt.NDArray[Any]
Floats = npt.NDArray[np.float64]

ECE_BINS = 10
_SMALLEST = float(np.finfo(np.float64).eps)  # log loss clips here, as scikit-learn does


class Metric(Struct, frozen=True):
    """What a metric is: which way is better, and what part of the output it reads.

    direction: "none" is for numbers that describe (positive rate, bias) without being good or bad by themselves.
    needs: "ranking" any monotone score, "probability" a calibrated one, "label" a decision (binary: at a threshold),
        "value" a number.
    """

    name: str
    task: Task
    direction: Literal["higher", "lower", "none"]
    needs: Literal["ranking", "probability", "label", "value"]


METRICS: tuple[Metric, ...] = (
    Metric("auc", "binary", "higher", "ranking"),
    Metric("average_precision", "binary", "higher", "ranking"),
    Metric("log_loss", "binary", "lower", "probability"),
    Metric("brier", "binary", "lower", "probability"),
    Metric("ece", "binary", "lower", "probability"),
    Metric("accuracy", "binary", "higher", "label"),
    Metric("precision", "binary", "higher", "label"),
    Metric("recall", "binary", "higher", "label"),
    Metric("f1", "binary", "higher", "label"),
    Metric("positive_rate", "binary", "none", "label"),
    Metric("accuracy", "multiclass", "higher", "label"),
    Metric("macro_f1", "multiclass", "higher", "label"),
    Metric("log_loss", "multiclass", "lower", "probability"),
    Metric("rmse", "regression", "lower", "value"),
    Metric("mae", "regression", "lower", "value"),
    Metric("r2", "regression", "higher", "value"),
    Metric("bias", "regression", "none", "value"),
)


def metrics_of(task: Task) -> dict[str, Metric]:
    """The metrics of one task by name, in the order in which reports show them."""
    return {metric.name: metric for metric in METRICS if metric.task == task}


class RowTerms(NamedTuple):
    """A metric as Σ numerator / Σ denominator over rows, each [n, k]: the mean of k ratios (k = 1, or one a class)."""

    numerator: Floats
    denominator: Floats


def measure(task: Task, y: Array, output: Array, threshold: float = 0.5) -> dict[str, float]:
    """Every defined metric of the task by name. `threshold` makes the binary label: score >= threshold.

    Raises:
        ValueError: shapes do not fit, y holds other codes, or a value is not finite.
    """
    y, output = checked(task, y, output)
    values = {
        name: float(ratio_value(name, terms.numerator.sum(axis=0), terms.denominator.sum(axis=0)))
        for name, terms in row_terms(task, y, output, threshold).items()
    }
    if task == "binary":
        values |= {name: function(y, output) for name, function in _OF_SCORES.items()}
    return {name: values[name] for name in metrics_of(task) if name in values and np.isfinite(values[name])}


def baseline(task: Task, train_y: Array, n: int, classes: int | None = None) -> Array:
    """The output of a model that knows only the training labels, for n rows: their mean, or the share of each class.

    Its label is then the majority's. `classes` is k where training may lack the highest code.

    Raises:
        ValueError: no training label.
    """
    if len(train_y) == 0:
        raise ValueError("a baseline needs at least one training label")
    if task == "multiclass":
        shares = np.bincount(train_y.astype(np.int64), minlength=classes or 0) / len(train_y)
        return np.tile(shares, (n, 1))
    return np.full(n, np.mean(train_y, dtype=np.float64))


def checked(task: Task, y: Array, output: Array) -> tuple[Floats, Floats]:
    """y and output as float64 of fitting shapes and allowed values, or ValueError."""
    y, output = np.asarray(y, dtype=np.float64), np.asarray(output, dtype=np.float64)
    if y.ndim != 1 or output.ndim != (2 if task == "multiclass" else 1) or len(y) != len(output):
        raise ValueError(f"{task}: y of shape {y.shape} and output of shape {output.shape} do not fit")
    if not (np.isfinite(y).all() and np.isfinite(output).all()):
        raise ValueError(f"{task}: y or output holds NaN or infinity")
    classes = 2 if task == "binary" else output.shape[-1]
    if task != "regression" and not np.isin(y, np.arange(classes)).all():
        raise ValueError(f"{task}: y holds codes outside 0..{classes - 1}")
    return y, output


def shaped(task: Task, numbers: Floats) -> Floats:
    """A model's numbers [n, width] as the output that is measured."""
    return numbers if task == "multiclass" else numbers[:, 0]


def labels(task: Task, output: Array, threshold: float) -> Array:
    """The decision for each row: binary 0 or 1 at the threshold, multiclass the code of the largest probability."""
    return (output >= threshold).astype(np.float64) if task == "binary" else output.argmax(axis=1)


def row_terms(task: Task, y: Floats, output: Floats, threshold: float) -> dict[str, RowTerms]:
    """The metrics that are ratios of sums over rows, by name. Arguments as `checked` returns them."""
    one, truth = np.ones((len(y), 1)), y[:, None]
    match task:
        case "binary":
            score, label = output[:, None], labels(task, output, threshold)[:, None]
            hit = label * truth
            likelihood = np.clip(np.where(truth == 1, score, 1 - score), _SMALLEST, 1)
            return {
                "log_loss": RowTerms(-np.log(likelihood), one),
                "brier": RowTerms((score - truth) ** 2, one),
                "accuracy": RowTerms((label == truth).astype(np.float64), one),
                "precision": RowTerms(hit, label),
                "recall": RowTerms(hit, truth),
                "f1": RowTerms(2 * hit, label + truth),
                "positive_rate": RowTerms(label, one),
            }
        case "multiclass":
            codes = np.arange(output.shape[1])
            label = labels(task, output, threshold)[:, None]
            is_class, said = (truth == codes).astype(np.float64), (label == codes).astype(np.float64)
            likelihood = np.clip((output * is_class).sum(axis=1, keepdims=True), _SMALLEST, 1)
            return {
                "accuracy": RowTerms((label == truth).astype(np.float64), one),
                "macro_f1": RowTerms(2 * is_class * said, is_class + said),
                "log_loss": RowTerms(-np.log(likelihood), one),
            }
        case "regression":
            error = output[:, None] - truth
            spread = (truth - (y.mean() if len(y) else 0)) ** 2
            return {
                "rmse": RowTerms(error**2, one),
                "mae": RowTerms(np.abs(error), one),
                "r2": RowTerms(spread - error**2, spread),
                "bias": RowTerms(error, one),
            }
        case _:
            assert_never(task)


def ratio_value(name: str, numerator: Floats, denominator: Floats) -> Floats:
    """The metric from its sums [..., k]: the mean of the defined ratios, NaN where none is. RMSE is a square root."""
    defined = denominator > 0
    ratios = np.divide(numerator, denominator, out=np.zeros_like(numerator), where=defined).sum(axis=-1)
    value = ratios / np.maximum(defined.sum(axis=-1), 1)
    return np.where(defined.any(axis=-1), np.sqrt(value) if name == "rmse" else value, np.nan)


def auc(y: Array, score: Array) -> float:
    """Area under the ROC curve = P(a positive scores above a negative), ties half. NaN with one class."""
    positives = float(np.sum(y))
    negatives = len(y) - positives
    if not positives or not negatives:
        return float("nan")
    ranks = float(scipy.stats.rankdata(score)[y == 1].sum())
    return (ranks - positives * (positives + 1) / 2) / (positives * negatives)


def average_precision(y: Array, score: Array) -> float:
    """Σ (R_i - R_{i-1}) P_i over distinct scores from the highest down, not interpolated. NaN without positives."""
    if not np.sum(y):
        return float("nan")
    order = np.argsort(-score, kind="stable")
    last = np.append(np.flatnonzero(np.diff(score[order])), len(y) - 1)  # the last row of each distinct score
    hits = np.cumsum(y[order])[last]
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * hits / (last + 1)))


def ece(y: Array, score: Array) -> float:
    """Expected calibration error: Σ (n_b / n) · |mean y - mean score| over 10 equal-frequency bins. NaN without rows.

    The bin edges are the deciles of the scores (Nguyen & O'Connor 2015), so equal scores share a bin and a constant
    score has one. Equal-frequency bins stay filled where most scores are small, which equal-width bins do not.
    """
    if not len(y):
        return float("nan")
    gap = np.bincount(score_bins(score), weights=y - score)
    return float(np.abs(gap).sum() / len(y))


def score_bins(score: Array) -> Array:
    """The number, 0 to 9, of each score's equal-frequency bin."""
    edges = np.quantile(score, np.arange(1, ECE_BINS) / ECE_BINS)
    return np.searchsorted(edges, score, side="left")


_OF_SCORES: dict[str, Callable[[Array, Array], float]] = {
    "auc": auc,
    "average_precision": average_precision,
    "ece": ece,
}
