"""The frozen policy of an experiment, and the verdict that follows from it and the sums.

A person signs; nothing ships by itself.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct

from interlock.experiments.aggregates import Effect, Sums, absolute_effect, relative_effect
from interlock.experiments.samples import SampleRatio
from interlock.experiments.sequential import MIN_UNITS, Interval, always_valid, reportable

Verdict = Literal["INVALID", "ROLLBACK", "CONTINUE", "SHIP", "INCONCLUSIVE"]
_FARTHEST = 100  # a projection beyond this many times the planned units is "never"


class Metric(Struct, frozen=True, kw_only=True):
    """One metric of the policy, per unit.

    numerator, denominator: what is summed per unit (the denominator is of ratios only).
    margin: the loss that still counts as no harm, a fraction of |control| (0.02 = 2 %) fixed before the start. It is
        held against the interval of the relative effect; where margin or control is 0, zero against the absolute one.
    """

    name: str
    kind: Literal["mean", "ratio", "proportion"]
    numerator: str
    denominator: str = "1"
    direction: Literal["lower", "higher"]
    role: Literal["success", "guardrail"]
    margin: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what cannot be decided on (ValueError)."""
        if not 0 <= self.margin < 1:
            raise ValueError(f"metric {self.name!r}: margin {self.margin} is no fraction of the control in [0, 1)")


class Policy(Struct, frozen=True, kw_only=True):
    """What decides, fixed and hashed before the first unit.

    alpha is divided over success metrics x treatment arms, never over guardrails. expected_units: N*, the units of
    control and one treatment together at which a decision is expected. min_units: per arm. harmless: "do no harm" ships
    on non-inferiority.
    """

    metrics: tuple[Metric, ...]
    expected_units: int
    alpha: float = 0.05
    min_units: int = MIN_UNITS
    minimum_runtime_s: float = 0.0
    maximum_runtime_s: float = 28 * 86_400.0
    harmless: bool = False

    def __post_init__(self) -> None:
        """Refuses what cannot be decided on (ValueError)."""
        if len({metric.name for metric in self.metrics}) < len(self.metrics):
            raise ValueError("two metrics of the policy share a name")
        if not any(metric.role == "success" for metric in self.metrics):
            raise ValueError("the policy has no success metric")
        if not 0 < self.alpha < 1 or self.expected_units < 1 or self.maximum_runtime_s < self.minimum_runtime_s:
            raise ValueError("the policy needs alpha in (0, 1), expected_units >= 1 and maximum >= minimum runtime")


State = Literal["early", "open", "harmful", "harmless", "better"]
_SAFE: tuple[State, ...] = ("harmless", "better")


class Reading(Struct, frozen=True, kw_only=True):
    """What one metric says now. The intervals are None until there is enough to report (state "early").

    state: "better" than control, "harmless" (worse by less than the margin at most), "harmful" (worse by more than the
    margin for sure), "open" (undecided).
    """

    metric: Metric
    effect: Effect | None
    interval: Interval | None
    relative: Interval | None
    state: State


class Decision(Struct, frozen=True, kw_only=True):
    """The verdict on one treatment arm, and why.

    units_needed: for CONTINUE, the units still missing in both arms together if the effects stay what they are; None
        where they lead nowhere, or where only time is missing.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    readings: tuple[Reading, ...] = ()
    units_needed: int | None = None


def decide(
    policy: Policy,
    control: Mapping[str, Sums],
    treatment: Mapping[str, Sums],
    *,
    sample_ratio: SampleRatio,
    elapsed_s: float,
    treatments: int = 1,
) -> Decision:
    """The verdict on one treatment arm against control, from their sums by metric name.

    `treatments` is how many arms are tested against this control. elapsed_s: since the start of the phase.
    The first that holds: INVALID; ROLLBACK; CONTINUE while minimum runtime or units are missing; SHIP; INCONCLUSIVE at
    the maximum runtime (minimum units or not); CONTINUE.
    """
    invalid = _invalid(policy, control, treatment, sample_ratio)
    if invalid:
        return Decision(verdict="INVALID", reasons=tuple(invalid))
    readings = _read(policy, control, treatment, treatments)

    def decision(verdict: Verdict, reasons: list[str], units_needed: int | None = None) -> Decision:
        return Decision(verdict=verdict, reasons=tuple(reasons), readings=readings, units_needed=units_needed)

    harmful = [r.metric.name for r in readings if r.metric.role == "guardrail" and r.state == "harmful"]
    if harmful:
        return decision("ROLLBACK", [f"{name} is worse than control by more than its margin" for name in harmful])
    missing, early = _too_early(policy, control, treatment, elapsed_s)
    too_late = elapsed_s >= policy.maximum_runtime_s
    if early and not too_late:
        return decision("CONTINUE", early, missing)
    ship = _reasons_to_ship(policy, readings)
    if ship and not early:
        return decision("SHIP", ship)
    states = [f"{reading.metric.name} is {reading.state}" for reading in readings if reading.state != "better"]
    if too_late:
        longest = f"ran the maximum of {policy.maximum_runtime_s:.0f} s: keep the champion"
        return decision("INCONCLUSIVE", [longest, *early, *states])
    return decision("CONTINUE", states, _units_needed(policy, control, treatment, treatments))


def _too_early(
    policy: Policy, control: Mapping[str, Sums], treatment: Mapping[str, Sums], elapsed_s: float
) -> tuple[int | None, list[str]]:
    """The units that the minimum still lacks (both arms; None if none), and the reasons to wait, if any."""
    reasons, missing = [], None
    smallest = min(min(control[metric.name].n, treatment[metric.name].n) for metric in policy.metrics)
    minimum = max(policy.min_units, MIN_UNITS)
    if smallest < minimum:
        missing = 2 * (minimum - smallest)
        reasons.append(f"{smallest} units in the smaller arm, the minimum is {minimum}")
    if elapsed_s < policy.minimum_runtime_s:
        reasons.append(f"ran {elapsed_s:.0f} s, the minimum is {policy.minimum_runtime_s:.0f} s")
    return missing, reasons


def _read(
    policy: Policy, control: Mapping[str, Sums], treatment: Mapping[str, Sums], treatments: int
) -> tuple[Reading, ...]:
    tests = treatments * sum(metric.role == "success" for metric in policy.metrics)
    readings = []
    for metric in policy.metrics:
        a, b = control[metric.name], treatment[metric.name]
        effect, share = absolute_effect(a, b), relative_effect(a, b)
        if effect is None or effect.se == 0 or not reportable(a, b, metric.kind):
            readings.append(Reading(metric=metric, effect=effect, interval=None, relative=None, state="early"))
            continue
        alpha = policy.alpha / tests if metric.role == "success" else policy.alpha
        interval = always_valid(effect, alpha, policy.expected_units)
        relative = always_valid(share, alpha, policy.expected_units) if share is not None and share.se > 0 else None
        state = _state(metric, interval, relative)
        readings.append(Reading(metric=metric, effect=effect, interval=interval, relative=relative, state=state))
    return tuple(readings)


def _state(metric: Metric, interval: Interval, relative: Interval | None) -> State:
    """Where the interval lies, seen from the good side, against zero and against the margin."""
    sign = 1 if metric.direction == "higher" else -1
    low, high = sorted((sign * interval.low, sign * interval.high))
    if low > 0:
        return "better"
    margin = 0.0
    if metric.margin and relative is not None:
        low, high = sorted((sign * relative.low, sign * relative.high))
        margin = metric.margin
    return "harmless" if low > -margin else "harmful" if high < -margin else "open"


def _reasons_to_ship(policy: Policy, readings: tuple[Reading, ...]) -> list[str]:
    """Why the treatment may ship; empty when it may not."""
    if any(r.metric.role == "guardrail" and r.state not in _SAFE for r in readings):
        return []
    success = [r for r in readings if r.metric.role == "success"]
    won = [f"{r.metric.name} is better than control" for r in success if r.state == "better"]
    unharmed = policy.harmless and all(r.state in _SAFE for r in success)
    return won or (["no success metric is worse than control by more than its margin"] if unharmed else [])


def _units_needed(
    policy: Policy, control: Mapping[str, Sums], treatment: Mapping[str, Sums], treatments: int
) -> int | None:
    """Units still needed, to 5 %, for the same effects to ship; None when 100 N* units would not do."""
    units = max(control[metric.name].n + treatment[metric.name].n for metric in policy.metrics)
    factor = 1.0
    while factor * units < _FARTHEST * policy.expected_units:
        factor *= 1.05
        grown = [{name: sums.scaled(factor) for name, sums in arm.items()} for arm in (control, treatment)]
        if _reasons_to_ship(policy, _read(policy, grown[0], grown[1], treatments)):
            return math.ceil(units * (factor - 1))
    return None


def _invalid(
    policy: Policy, control: Mapping[str, Sums], treatment: Mapping[str, Sums], sample_ratio: SampleRatio
) -> list[str]:
    """Why no verdict may be given, in words; empty when one may."""
    reasons = []
    if sample_ratio.stray:
        reasons.append(f"{sample_ratio.stray} units in arms of weight 0")
    elif sample_ratio.mismatch:
        reasons.append(
            f"sample-ratio mismatch: {sample_ratio.units} (p = {sample_ratio.p:.2g}, e = {sample_ratio.e:.2g})"
        )
    for arm, sums in (("champion", control), ("challenger", treatment)):
        if not any(part.n for part in sums.values()):
            reasons.append(f"no data in {arm}")
            continue
        missing = [metric.name for metric in policy.metrics if metric.name not in sums or not sums[metric.name].y]
        reasons += [f"metric {name!r} is missing in {arm}" for name in missing]
    return reasons
