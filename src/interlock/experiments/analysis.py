"""What the log says about an experiment: sums per arm and phase, made inside the warehouse, and the verdict from them.

Rows that count are live, of this experiment, from clients that named their unit. Every such unit is an exposure and enters
the sample-ratio check; the metrics are summed over its answered rows that have a label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from interlock.core.assignment import BUCKETS, fnv1a32
from interlock.core.errors import NotFound
from interlock.core.project import snake
from interlock.experiments.aggregates import Effect, Sums, absolute_effect, relative_effect
from interlock.experiments.decision import Decision, Metric, Policy, State, Verdict, decide
from interlock.experiments.phases import Phase, combined_ratio, combined_sums, kept_buckets
from interlock.experiments.samples import SampleRatio, sample_ratio
from interlock.experiments.sequential import always_valid
from interlock.registry.routes import CHAMPION
from interlock.warehouse.port import Warehouse

# One row a unit: phase and arm of its first exposure, and whether its bucket was moved to another arm later. The bucket is
# that of core.assignment: FNV-1a of the UTF-8 bytes behind the salt (whose state is $salt), and again of its digits.
UNITS = """
with exposures as (
    select unit_id, min(phase) as phase, arg_min(arm, phase) as arm, min(arm) <> max(arm) as several,
           min(event_time) as first_at, max(event_time) as last_at
    from interlock.PREDICTIONS
    where experiment = $experiment and role = 'live' and unit_source = 'client' and arm <> ''
          and route_revision <= $last_revision
    group by unit_id
), early as (
    select unit_id, phase, arm, hex(encode(unit_id)) as bytes from exposures where phase < $last_phase
), hashed as (
    select unit_id, phase, arm, list_reduce(
        list_transform(range(1, length(bytes), 2), lambda i: ('0x' || substr(bytes, i, 2))::ubigint),
        lambda hash, byte: (xor(hash, byte) * 16777619) % 4294967296, $salt::ubigint)::varchar as digits
    from early
), bucketed as (
    select unit_id, phase, arm, list_reduce(
        list_transform(string_split(digits, ''), lambda digit: ascii(digit)::ubigint),
        lambda hash, byte: (xor(hash, byte) * 16777619) % 4294967296, 2166136261::ubigint) % 10000 as bucket
    from hashed
), kept as (
    select unnest($phases) as phase, unnest($arms) as arm, unnest($lows) as low, unnest($highs) as high
), moved as (
    select unit_id from bucketed anti join kept
    on bucketed.phase = kept.phase and bucketed.arm = kept.arm and bucket >= low and bucket < high
), units as (
    select exposures.*, moved.unit_id is not null as moved from exposures left join moved using (unit_id)
)
"""

# Who was exposed to what.
EXPOSURES = """
select phase, arm, count(*) as units, count(*) filter (moved) as moved, count(*) filter (several) as several,
       epoch_us(min(first_at)) as first_us, epoch_us(max(last_at)) as last_us
from units group by phase, arm order by phase, arm
"""

# The sums of every metric over the units that were not moved; METRICS are the project's own expressions over the view.
SUMS = """
, answers as (
    select unit_id, unnest([METRICS]) as metric
    from interlock.OUTCOMES
    where experiment = $experiment and unit_source = 'client' and outcome = 'answered' and label_at is not null
          and route_revision <= $last_revision
), totals as (
    select unit_id, metric.name as name, metric.kind as kind, sum(metric.x) as x, sum(metric.y) as y
    from answers where isfinite(metric.x) and isfinite(metric.y) group by all
), valued as (
    select unit_id, name, case kind when 'proportion' then (x > 0)::double else x end as x,
           case kind when 'ratio' then y else 1.0 end as y
    from totals
)
select name, phase, arm, count(*) as n, sum(x) as x, sum(x * x) as xx, sum(y) as y, sum(y * y) as yy, sum(x * y) as xy
from valued join units using (unit_id) where not moved group by name, phase, arm
"""
METRIC = "{{'name': '{name}', 'kind': '{kind}', 'x': ({numerator})::double, 'y': ({denominator})::double}}"


class Exposure(Struct, frozen=True):
    """Units first seen in one arm and phase. moved: left out of the metrics, their bucket changed arms later."""

    phase: int
    arm: str
    version: int
    share: float
    units: int
    moved: int


class MetricResult(Struct, frozen=True, kw_only=True):
    """One metric, champion against challenger; effects are challenger minus champion, the relative ones over |champion|.

    None where the sums do not define it. state "early": there is an interval, but too little to rely on it.
    """

    name: str
    role: Literal["success", "guardrail"]
    direction: Literal["lower", "higher"]
    margin: float
    champion: float | None
    challenger: float | None
    effect: float | None
    low: float | None
    high: float | None
    relative: float | None
    relative_low: float | None
    relative_high: float | None
    n_champion: int
    n_challenger: int
    state: State


class Analysis(Struct, frozen=True, kw_only=True):
    """The verdict on one challenger. effect, low, high are the first success metric's, absolute.

    several_arms: units seen in more than one arm. srm_p: of the sample-ratio check over all phases, srm_expected its units
    by arm. elapsed_s: event time from the first exposure to the last.
    """

    arm: str
    verdict: Verdict
    metric: str
    effect: float | None
    low: float | None
    high: float | None
    srm_p: float
    srm_units: dict[str, int]
    srm_expected: dict[str, float]
    units: int
    moved: int
    several_arms: int
    units_needed: int | None
    elapsed_s: float
    exposures: tuple[Exposure, ...]
    metrics: tuple[MetricResult, ...]
    reasons: tuple[str, ...]


def analyse(
    warehouse: Warehouse, endpoint: str, experiment: str, policy: Policy, phases: Sequence[Phase], arm: str
) -> Analysis:
    """Judge the challenger `arm` of an experiment by everything that is in the log now.

    Raises:
        NotFound: the experiment has no phase, or not that arm.
        InvalidData: the warehouse cannot evaluate a metric's expression.
    """
    known = {one.name for phase in phases for one in phase.arms if one.ranges} - {CHAMPION}
    if arm not in known:
        raise NotFound(f"experiment {experiment} has no challenger {arm} (there: {', '.join(sorted(known)) or 'none'})")
    parameters = _parameters(experiment, phases)
    seen: list[dict[str, Any]] = []
    summed: list[dict[str, Any]] = []
    if _has_log(warehouse, endpoint):
        seen = warehouse.query(_sql(UNITS + EXPOSURES, endpoint, policy), parameters).to_pylist()
        summed = warehouse.query(_sql(UNITS + SUMS, endpoint, policy), parameters).to_pylist()
    ratio = combined_ratio([one for phase in phases if (one := _ratio(phase, seen)) is not None])
    elapsed = (max(row["last_us"] for row in seen) - min(row["first_us"] for row in seen)) / 1e6 if seen else 0.0
    pairs = {metric.name: _combined(summed, phases, metric.name, arm) for metric in policy.metrics}
    control = {name: pair[0] for name, pair in pairs.items()}
    treatment = {name: pair[1] for name, pair in pairs.items()}
    decision = decide(
        policy, control, treatment, sample_ratio=ratio, elapsed_s=elapsed, treatments=max(1, len(known))
    )  # fmt: skip
    metrics = tuple(_result(policy, metric, *pairs[metric.name], decision, len(known)) for metric in policy.metrics)
    first = next(one for one in metrics if one.role == "success")
    return Analysis(
        arm=arm,
        verdict=decision.verdict,
        metric=first.name,
        effect=first.effect,
        low=first.low,
        high=first.high,
        srm_p=ratio.p,
        srm_units=ratio.units,
        srm_expected=ratio.expected,
        units=sum(row["units"] for row in seen),
        moved=sum(row["moved"] for row in seen),
        several_arms=sum(row["several"] for row in seen),
        units_needed=decision.units_needed,
        elapsed_s=elapsed,
        exposures=tuple(_exposures(phases, seen)),
        metrics=metrics,
        reasons=decision.reasons,
    )


def check_metrics(warehouse: Warehouse, endpoint: str, policy: Policy) -> None:
    """Try the metrics' expressions on no rows, so that a mistake shows before an experiment rests on it.

    Raises:
        InvalidData: the warehouse cannot evaluate one.
    """
    nobody = {"experiment": "", "last_revision": 0, "last_phase": 0, "salt": 0}
    nothing: dict[str, list[Any]] = {"phases": [], "arms": [], "lows": [], "highs": []}
    if _has_log(warehouse, endpoint):
        warehouse.query(_sql(UNITS + SUMS, endpoint, policy), {**nobody, **nothing})


def _has_log(warehouse: Warehouse, endpoint: str) -> bool:
    """Whether anybody has asked the endpoint yet."""
    return f"interlock.outcomes_{snake(endpoint)}" in {table.name for table in warehouse.tables()}


def _sql(text: str, endpoint: str, policy: Policy) -> str:
    metrics = ", ".join(
        METRIC.format(name=one.name, kind=one.kind, numerator=one.numerator, denominator=one.denominator)
        for one in policy.metrics
    )
    name = snake(endpoint)
    text = text.replace("PREDICTIONS", f"predictions_{name}").replace("OUTCOMES", f"outcomes_{name}")
    return text.replace("METRICS", metrics)


def _parameters(experiment: str, phases: Sequence[Phase]) -> dict[str, Any]:
    kept = kept_buckets(phases)
    return {
        "experiment": experiment,
        "last_revision": phases[-1].last_revision,
        "last_phase": phases[-1].number,
        "salt": fnv1a32(phases[-1].salt),
        "phases": [one.phase for one in kept],
        "arms": [one.arm for one in kept],
        "lows": [one.low for one in kept],
        "highs": [one.high for one in kept],
    }


def _ratio(phase: Phase, seen: list[dict[str, Any]]) -> SampleRatio | None:
    """The sample-ratio check of the units first seen in a phase; None without any."""
    units = {row["arm"]: row["units"] for row in seen if row["phase"] == phase.number}
    return sample_ratio(units, phase.weights) if units else None


def _combined(summed: list[dict[str, Any]], phases: Sequence[Phase], metric: str, arm: str) -> tuple[Sums, Sums]:
    cells = {
        (row["phase"], row["arm"]): Sums(row["n"], row["x"], row["xx"], row["y"], row["yy"], row["xy"])
        for row in summed
        if row["name"] == metric
    }
    return combined_sums(
        [(cells.get((one.number, CHAMPION), Sums()), cells.get((one.number, arm), Sums())) for one in phases]
    )


def _result(
    policy: Policy, metric: Metric, control: Sums, treatment: Sums, decision: Decision, treatments: int
) -> MetricResult:
    alpha = policy.alpha
    if metric.role == "success":
        alpha /= treatments * sum(one.role == "success" for one in policy.metrics)
    effect = absolute_effect(control, treatment)
    relative = relative_effect(control, treatment)
    low, high = _interval(effect, alpha, policy)
    relative_low, relative_high = _interval(relative, alpha, policy)
    state: State = next((one.state for one in decision.readings if one.metric.name == metric.name), "early")
    return MetricResult(
        name=metric.name,
        role=metric.role,
        direction=metric.direction,
        margin=metric.margin,
        champion=effect.control if effect else None,
        challenger=effect.treatment if effect else None,
        effect=effect.effect if effect else None,
        low=low,
        high=high,
        relative=relative.effect if relative else None,
        relative_low=relative_low,
        relative_high=relative_high,
        n_champion=control.n,
        n_challenger=treatment.n,
        state=state,
    )


def _interval(effect: Effect | None, alpha: float, policy: Policy) -> tuple[float, float] | tuple[None, None]:
    """The always-valid interval; where nothing varies, the effect itself."""
    if effect is None:
        return None, None
    if effect.se == 0:
        return effect.effect, effect.effect
    interval = always_valid(effect, alpha, policy.expected_units)
    return interval.low, interval.high


def _exposures(phases: Sequence[Phase], seen: list[dict[str, Any]]) -> list[Exposure]:
    counts = {(row["phase"], row["arm"]): (row["units"], row["moved"]) for row in seen}
    found = []
    for phase in phases:
        for arm in phase.arms:
            units, moved = counts.get((phase.number, arm.name), (0, 0))
            found.append(Exposure(phase.number, arm.name, arm.version, phase.weights[arm.name] / BUCKETS, units, moved))
    return found
