"""Every number of the evidence that a rule of the release standard may name, with its interval where it has one."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from msgspec import Struct

from interlock.core.clock import parse_time
from interlock.core.settings import Task
from interlock.evaluation.calibration import wilson
from interlock.evaluation.diff import Diff
from interlock.evaluation.loadtest import LoadTest
from interlock.evaluation.metrics import metrics_of
from interlock.evaluation.report import Report
from interlock.evaluation.resampling import Interval
from interlock.evaluation.skew import Skew

Source = Literal["evaluation", "change", "package", "diff", "loadtest", "skew", "log"]
"""Where numbers come from; `change`: the evaluation beside the champion."""
DAY = 86_400.0
FROM: dict[Source, tuple[str, ...]] = {
    "evaluation": (
        "rows", "calibration_gap", "top_importance", "saving", "selection_ratio", "equalised_odds", "start_seconds",
    ),
    "change": ("drift",),
    "package": ("package_mb",),
    "diff": ("changed", "harmed", "harmed_slices", "unsupported", "mismatch", "diff_days", "diff_age_days"),
    "loadtest": ("latency_ms", "latency_twice_ms", "held_rate", "memory_mb"),
    "skew": ("skew", "skew_found"),
    "log": ("shadow_hours",),
}  # fmt: skip
NAMES: dict[str, Source] = {name: source for source, names in FROM.items() for name in names}
"""All but the metrics of the evaluation; docs/reference/standard.md says what each is."""
NEEDS = {
    "saving": "[evaluation.cost] in interlock.toml",
    **dict.fromkeys(("selection_ratio", "equalised_odds"), '[evaluation] sensitive = "COLUMN" in interlock.toml'),
    "harmed": "labels: interlock feedback load",
}
"""What some numbers are missing without."""


class Number(Struct, frozen=True):
    """`low`, `high`: its 95 % interval, None where it has none. `n`: of so many rows. `enough`: no `min` is too much."""

    value: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    enough: bool = False


def known(task: Task) -> list[str]:
    """All names, the metrics first."""
    return [*metrics_of(task), *NAMES]


def of_report(report: Report) -> dict[str, Number]:
    """Of an evaluation, those that it has."""
    n = report.rows.n
    found = {name: _number(value, report.intervals.get(name), n) for name, value in report.metrics.items()}
    found["rows"] = Number(n)
    if report.reliability:
        found["calibration_gap"] = Number(max(abs(one.said - one.seen) for one in report.reliability), n=n)
    if (top := report.importance) and top.inputs and top.inputs[0].worse is not None:
        found["top_importance"] = Number(top.inputs[0].worse, n=top.rows)
    if report.thresholds and (best := report.thresholds.cheapest):
        found["saving"] = _number(best.saving, best.saving_interval, n)
    for name in ("selection_ratio", "equalised_odds"):
        if report.fairness and (one := getattr(report.fairness, name)):
            measured = sum(group.n for group in report.fairness.groups if group.verdict == "measured")
            found[name] = _number(one.value, one.interval, measured)
    if report.proof and report.proof.start_seconds is not None:
        found["start_seconds"] = Number(report.proof.start_seconds)
    moved = [one for one in report.shifts if one.psi is not None and one.verdict != "too small"]
    if moved:
        found["drift"] = Number(moved[0].psi or 0.0, n=moved[0].n)
    return found


def of_diff(diff: Diff, now: datetime) -> dict[str, Number]:
    """Of a decision diff."""
    changes, labels, checked = diff.changes, diff.changes.labels, diff.mismatch
    days = (parse_time(diff.last_event) - parse_time(diff.first_event)).total_seconds() / DAY
    everything = (diff.since, diff.until, diff.last) == (None, None, None)
    return {
        "changed": Number(changes.changed.share, changes.changed.low, changes.changed.high, changes.rows),
        **_share("harmed", labels.harmed, labels.labelled),
        "harmed_slices": Number(sum(one.verdict == "harmed" for one in changes.slices), n=changes.rows),
        "unsupported": Number(diff.unsupported.share, n=diff.rows),
        **_share("mismatch", checked.differing, checked.compared),
        "diff_days": Number(days, n=diff.rows, enough=everything),
        "diff_age_days": Number((now - parse_time(diff.created)).total_seconds() / DAY),
    }


def of_load_test(test: LoadTest) -> dict[str, Number]:
    """Of a load test."""
    steps = {one.name: one for one in test.steps}
    return {
        "latency_ms": Number(steps["expected"].p99_ms, n=steps["expected"].n),
        "latency_twice_ms": Number(steps["twice"].p99_ms, n=steps["twice"].n),
        "held_rate": Number(test.held_rate),
        "memory_mb": Number(test.memory_mb),
    }


def of_skew(check: Skew) -> dict[str, Number]:
    """Of a skew check."""
    worst = max(check.inputs, key=lambda one: one.share)
    return {
        **_share("skew", worst.mismatched, worst.n),
        **_share("skew_found", check.found, check.rows),
    }


def _number(value: float, interval: Interval | None, n: int) -> Number:
    return Number(value, interval.low, interval.high, n) if interval else Number(value, n=n)


def _share(name: str, count: int, n: int) -> dict[str, Number]:
    """A share with Wilson's interval; nothing where there are no rows."""
    return {name: Number(count / n, *wilson(count / n, n), n)} if n else {}
