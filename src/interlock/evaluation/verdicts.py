"""The rules of a release standard, held against the numbers of the evidence: pure functions, one line a rule.

A value rule wants the near end of the number's 95 % interval on the good side of its limit, a change rule the near end of
the difference to the champion (non-inferiority, paired on identical rows). Over the slices the same is tested slice by
slice, one-sided at 2.5 %, and the p values are adjusted by Holm (1979), for every slice is a claim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal, get_args

from msgspec import Struct

from interlock.core.errors import Misconfigured
from interlock.core.settings import StandardRule, StandardSettings, Task
from interlock.evaluation.charts import number
from interlock.evaluation.metrics import metrics_of
from interlock.evaluation.numbers import NAMES, NEEDS, Number, Source, known
from interlock.evaluation.report import Report
from interlock.evaluation.slices import Slice

Verdict = Literal["pass", "fail", "unknown", "skipped"]
"""unknown: the evidence is missing, which counts as failed. skipped: there is no champion yet."""
Bound = Literal["min", "max", "margin"]
BOUNDS: tuple[Bound, ...] = get_args(Bound)
AT = {"min": "at least", "max": "at most"}
ALPHA = 0.025
NOT_COMPARED = ("average_precision", "ece")
NAIVE: dict[Task, str] = {"binary": "auc", "multiclass": "log_loss", "regression": "rmse"}
"""In what every version must beat a model that knows only the training labels."""


class Line(Struct, frozen=True):
    """A rule and its verdict. `low`, `high`: the interval; `limit`: of a margin as the rule says it, not its negative."""

    rule: str
    verdict: Verdict
    sentence: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    limit: float | None = None
    n: int | None = None
    next: str = ""
    """The command that makes the evidence, where it is missing."""


class Missing(Struct, frozen=True):
    """Why there is no number of a source, and what makes it."""

    verdict: Verdict
    why: str
    next: str = ""


class Facts(Struct, frozen=True):
    """What is known of a version."""

    report: Report | None
    numbers: dict[str, Number]
    missing: dict[Source, Missing]


def check_names(standard: StandardSettings, task: Task) -> None:
    """Hold the names of the rules against those that this task has.

    Raises:
        Misconfigured: an unknown one, or a margin or slices where there is nothing to compare.
    """
    for rule in standard.rules:
        if rule.metric not in known(task):
            raise Misconfigured(
                f"[standard] names {rule.metric!r}; of a {task} model there are {', '.join(known(task))}"
            )
        if rule.margin is not None and (rule.metric in NAMES or rule.metric in NOT_COMPARED):
            raise Misconfigured(
                f"[standard] gives {rule.metric} a margin, but it is not compared with the champion's",
                next=f"give it a max or min, or the margin to another metric of {', '.join(metrics_of(task))}",
            )
        if rule.slices and rule.metric in NAMES:
            raise Misconfigured(f"[standard] asks for {rule.metric} in slices, which only metrics have")


def lines(standard: StandardSettings, task: Task, facts: Facts) -> Iterator[Line]:
    """Every rule of the standard with its verdict, that on the naive guess first."""
    yield _naive(NAIVE[task], facts)
    for source in standard.require:
        gone = facts.missing.get(source, Missing("pass", "it is there"))
        yield Line(f"{source} required", gone.verdict, gone.why, next=gone.next)
    for rule in standard.rules:
        for bound in BOUNDS:
            limit: float | None = getattr(rule, bound)
            if limit is None:
                continue
            if bound == "margin":
                yield _difference(rule.metric, limit, task, facts)
            else:
                yield _value(rule.metric, bound, limit, facts)
            if rule.slices:
                yield _in_slices(rule, bound, limit, task, facts)


def _naive(metric: str, facts: Facts) -> Line:
    rule, report = f"{metric} better than a naive guess", facts.report
    if report is None:
        return _gone(rule, "evaluation", facts)
    one, guess = facts.numbers.get(metric), report.baseline.get(metric)
    if one is None or one.low is None or one.high is None or guess is None:
        return Line(rule, "unknown", f"{report.rows.n} held-out rows do not tell {metric}", n=report.rows.n)
    good = one.low > guess if metrics_of(report.task)[metric].direction == "higher" else one.high < guess
    said = f"{metric} {_told(one)}, that of a naive guess {number(guess)}"
    return Line(rule, "pass" if good else "fail", said, one.value, one.low, one.high, guess, one.n)


def _value(name: str, bound: Bound, limit: float, facts: Facts) -> Line:
    rule = f"{name} {bound} {number(limit)}"
    one = facts.numbers.get(name)
    if one is None:
        return _gone(rule, NAMES.get(name, "evaluation"), facts, name)
    end = one.value
    if one.low is not None and one.high is not None:
        end = one.low if bound == "min" else one.high
    good = end >= limit or one.enough if bound == "min" else end <= limit
    told = "all there is" if one.enough else f"is {'' if good else 'not '}{AT[bound]} {number(limit)}"
    said = f"{name} {_told(one)}: {told}"
    return Line(rule, "pass" if good else "fail", said, one.value, one.low, one.high, limit, one.n)


def _difference(metric: str, margin: float, task: Task, facts: Facts) -> Line:
    rule = f"{metric} margin {number(margin)}"
    pair = next((one for one in facts.report.paired if one.metric == metric), None) if facts.report else None
    if pair is None or "change" in facts.missing:
        return _gone(rule, "change", facts, metric)
    good = min(_distance(pair.low, margin, metric, task), _distance(pair.high, margin, metric, task)) >= 0
    apart = f"{pair.effect:+.4g} ({pair.low:+.4g} to {pair.high:+.4g}) on {pair.n} rows"
    said = f"{metric} {number(pair.candidate)}, the champion's {number(pair.champion)}: {apart}, " + (
        "no worse than the margin allows" if good else "may be worse by more than the margin"
    )
    return Line(rule, "pass" if good else "fail", said, pair.effect, pair.low, pair.high, margin, pair.n)


def _in_slices(rule: StandardRule, bound: Bound, limit: float, task: Task, facts: Facts) -> Line:
    name, metric, report = f"{rule.metric} {bound} {number(limit)} in slices", rule.metric, facts.report
    source: Source = "change" if bound == "margin" else "evaluation"
    if report is None or source in facts.missing:
        return _gone(name, source, facts, metric)
    tested: list[tuple[float, float, Slice, float]] = []  # p, distance from the limit, slice, value
    for one in report.slices:
        found = _measured(one, metric, bound) if one.n >= rule.min_n and one.verdict != "too small" else None
        if found:
            value, se = found
            if bound == "margin":
                far = _distance(value, limit, metric, task)
            else:
                far = value - limit if bound == "min" else limit - value
            p = math.erfc(far / se / math.sqrt(2)) / 2 if se > 0 else 1.0 * (far < 0)
            tested.append((p, far, one, value))
    left = f"; {len(report.slices) - len(tested)} too small to tell" if len(tested) < len(report.slices) else ""
    if not tested:
        return Line(name, "unknown", f"no slice of {len(report.slices)} is large enough to tell {metric}")
    tested.sort(key=lambda one: (one[0], -one[1]))
    failed, adjusted = [], 0.0
    for rank, (p, _, one, value) in enumerate(tested):
        adjusted = max(adjusted, (len(tested) - rank) * p)
        if adjusted > ALPHA:
            failed.append(f"{one.column} = {one.value} ({value:.4g} of {one.n} rows)")
    *_, worst, value = tested[-1]
    said = f"does not hold in {', '.join(reversed(failed))}" if failed else f"holds in {len(tested)} slices"
    return Line(name, "fail" if failed else "pass", said + left, value, limit=limit, n=worst.n)


def _measured(one: Slice, metric: str, bound: Bound) -> tuple[float, float] | None:
    """The difference or the value in a slice, and its standard error (0: it has none); None: it does not tell."""
    if bound == "margin":
        pair = next((change for change in one.changes if change.metric == metric), None)
        return (pair.effect, pair.se) if pair else None
    if metric not in one.metrics or not one.errors:
        return None
    return one.metrics[metric], one.errors.get(metric, 0.0)


def _distance(effect: float, margin: float, metric: str, task: Task) -> float:
    """How far a difference stays from harm; where neither way is better, both ways are."""
    direction = metrics_of(task)[metric].direction
    return margin + (effect if direction == "higher" else -effect if direction == "lower" else -abs(effect))


def _gone(rule: str, source: Source, facts: Facts, name: str = "") -> Line:
    """The line of a rule whose number is missing."""
    found = facts.missing.get(source)
    if found is None:
        needs = NEEDS.get(name, "")
        why = f"the evidence does not tell {name}" + (f": it needs {needs}" if needs else "")
        found = Missing("unknown", why, needs)
    return Line(rule, found.verdict, found.why, next=found.next)


def _told(one: Number) -> str:
    span = "" if one.low is None or one.high is None else f" ({number(one.low)} to {number(one.high)})"
    return f"{number(one.value)}{span}" + ("" if one.n is None else f" on {one.n:,} rows")
