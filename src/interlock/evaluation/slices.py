"""Metrics per slice (a value of a named column), and the change in each against a champion, on identical rows.

Intervals are those of `paired`, by DeLong, McNemar and the delta method (stratified like the bootstrap, but one pass).
P values are adjusted over all slices of one metric, because somewhere a small slice always looks worse.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
from msgspec import Struct
from msgspec.structs import replace

from interlock.core.settings import Task
from interlock.evaluation.metrics import Array, checked, measure, metrics_of
from interlock.evaluation.paired import Paired, benjamini_hochberg, compare, standard_errors

MIN_ROWS = 100
MIN_POSITIVES = 20
FALSE_DISCOVERY_RATE = 0.05


class Slice(Struct, frozen=True, kw_only=True):
    """One value of one column. `positives`: None outside binary tasks; `adjusted`: p values after Benjamini-Hochberg.

    verdict: "too small" (fewer than 100 rows or 20 positives: no change is tested, and it never counts as passed),
    "measured" (no champion), else "worse" if any metric is worse by its adjusted p, "better" if any is better and none
    worse, or "alike".
    """

    column: str
    value: str
    n: int
    positives: int | None
    metrics: dict[str, float]
    verdict: Literal["too small", "measured", "alike", "better", "worse"]
    champion: dict[str, float] | None = None
    changes: list[Paired] = []
    adjusted: dict[str, float] = {}
    errors: dict[str, float] = {}
    """Standard errors of `metrics`, where it is large enough."""


def by_slice(
    columns: Mapping[str, Array],
    task: Task,
    y: Array,
    candidate: Array,
    champion: Array | None,
    threshold: float = 0.5,
    groups: Array | None = None,
) -> list[Slice]:
    """One `Slice` a value, column by column in the order given, values sorted. Each column holds one string a row.

    Raises:
        ValueError: as `metrics.measure`.
    """
    y, candidate = checked(task, y, candidate)
    slices = []
    for column, texts in columns.items():
        values, codes = np.unique(texts, return_inverse=True)
        for code, value in enumerate(values):
            rows = np.flatnonzero(codes == code)
            positives = int(y[rows].sum()) if task == "binary" else None
            enough = len(rows) >= MIN_ROWS and (positives is None or positives >= MIN_POSITIVES)
            part = Slice(
                column=column,
                value=str(value),
                n=len(rows),
                positives=positives,
                metrics=measure(task, y[rows], candidate[rows], threshold),
                verdict="measured" if enough else "too small",
            )
            clusters = None if groups is None else groups[rows]
            if enough:
                errors = standard_errors(task, y[rows], candidate[rows], threshold, clusters)
                part = replace(part, errors=errors)
            if champion is not None:
                part = replace(part, champion=measure(task, y[rows], champion[rows], threshold))
            if champion is not None and enough:
                changes = compare(task, y[rows], candidate[rows], champion[rows], threshold, clusters, method="delta")
                part = replace(part, changes=changes)
            slices.append(part)
    return slices if champion is None else _judged(task, slices)


def _judged(task: Task, slices: list[Slice]) -> list[Slice]:
    """The same slices with adjusted p values and the verdict on the change."""
    adjusted: list[dict[str, float]] = [{} for _ in slices]
    for name in metrics_of(task):
        tested = [(i, change.p) for i, part in enumerate(slices) for change in part.changes if change.metric == name]
        for (i, _), p in zip(tested, benjamini_hochberg([p for _, p in tested]), strict=True):
            adjusted[i][name] = p
    return [
        part if part.verdict == "too small" else replace(part, adjusted=ps, verdict=_verdict(task, part.changes, ps))
        for part, ps in zip(slices, adjusted, strict=True)
    ]


def _verdict(task: Task, changes: list[Paired], adjusted: dict[str, float]) -> Literal["alike", "better", "worse"]:
    directions = {name: metric.direction for name, metric in metrics_of(task).items()}
    gains = [
        change.effect if directions[change.metric] == "higher" else -change.effect
        for change in changes
        if adjusted[change.metric] < FALSE_DISCOVERY_RATE and directions[change.metric] != "none"
    ]
    return "alike" if not gains else "worse" if min(gains) < 0 else "better"
