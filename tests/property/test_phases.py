"""Phases of an experiment: which units stay comparable when shares move, and how phases add up."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.assignment import BUCKETS, move, owner_table
from interlock.experiments.aggregates import Sums, absolute_effect, sums_of
from interlock.experiments.phases import Phase, combined_ratio, combined_sums, kept_buckets, phases_of
from interlock.experiments.samples import sample_ratio
from interlock.registry.routes import Arm, ExperimentRef, Parameters, RouteDocument

shares = st.tuples(st.integers(1, 4000), st.integers(1, 4000))


def arms(ranges: dict[str, tuple[tuple[int, int], ...]], packages: dict[str, str] | None = None) -> tuple[Arm, ...]:
    names = packages or {name: name for name in ranges}
    return tuple(Arm(name, "m", 1, names[name], "", (), owned) for name, owned in ranges.items())


def phases(steps: list[tuple[int, int]]) -> list[Phase]:
    """Phases as `release` makes them: the fewest buckets move."""
    ranges: dict[str, tuple[tuple[int, int], ...]] = {"champion": ((0, BUCKETS),), "challenger": (), "challenger-2": ()}
    made = []
    for number, (first, second) in enumerate(steps, 1):
        ranges = move(
            ranges, {"champion": BUCKETS - first - second, "challenger": first, "challenger-2": second}
        )  # fmt: skip
        made.append(Phase(number, arms(ranges), "salt", number))
    return made


@settings(max_examples=20)  # each compares every bucket of every phase
@given(st.lists(shares, min_size=1, max_size=4))
def test_kept_buckets_are_those_that_had_one_arm_from_then_on(steps: list[tuple[int, int]]) -> None:
    made = phases(steps)
    tables = [owner_table({arm.name: arm.ranges for arm in phase.arms}) for phase in made]
    expected = {
        (phase.number, tables[at][bucket], bucket)
        for at, phase in enumerate(made)
        for bucket in range(BUCKETS)
        if len({table[bucket] for table in tables[at:]}) == 1
    }
    found = [(one.phase, one.arm, bucket) for one in kept_buckets(made) for bucket in range(one.low, one.high)]
    assert len(found) == len(expected)
    assert set(found) == expected
    assert sum(phase == made[-1].number for phase, _, _ in found) == BUCKETS


@given(
    st.lists(
        st.tuples(st.integers(100, 400), st.integers(100, 400), st.floats(-5, 5), st.floats(0.1, 3)),
        min_size=2,
        max_size=5,
    ),
    st.integers(0, 2**32 - 1),
)
def test_phases_are_weighed_by_the_inverse_variance_of_their_effects(
    sizes: list[tuple[int, int, float, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    pairs = [
        (sums_of(rng.normal(level, spread, a)), sums_of(rng.normal(level + 0.5, spread, b)))
        for a, b, level, spread in sizes
    ]
    effects = [absolute_effect(*pair) for pair in pairs]
    weights = [effect.se**-2 for effect in effects if effect]
    control, treatment = combined_sums(pairs)
    whole = absolute_effect(control, treatment)
    assert whole is not None
    expected = math.fsum(w * one.effect for w, one in zip(weights, effects, strict=True) if one) / math.fsum(weights)
    assert whole.effect == pytest.approx(expected, rel=1e-6, abs=1e-9)
    assert whole.se == pytest.approx(math.fsum(weights) ** -0.5, rel=1e-6)
    assert (control.n, treatment.n) == (sum(a for a, _, _, _ in sizes), sum(b for _, b, _, _ in sizes))
    one = combined_sums(pairs[:1])
    assert one == pairs[0]


def test_a_phase_with_few_units_waits_until_it_has_a_hundred() -> None:
    rng = np.random.default_rng(1)
    large = (sums_of(rng.normal(0, 1, 300)), sums_of(rng.normal(0, 1, 300)))
    small = (sums_of(np.zeros(3)), sums_of(np.ones(3)))
    assert combined_sums([small, large, (Sums(), Sums())]) == large
    assert combined_sums([small, (Sums(), Sums())]) == small
    assert combined_sums([]) == (Sums(), Sums())


def test_sample_ratios_of_phases_are_one_check() -> None:
    weights = {"champion": 80.0, "challenger": 20.0}
    fair, lost = sample_ratio({"champion": 800, "challenger": 200}, weights), sample_ratio({"champion": 800}, weights)
    assert combined_ratio([fair]).p == fair.p
    both = combined_ratio([fair, lost])
    assert both.mismatch
    assert both.p == pytest.approx(min(1, 2 * lost.p))
    assert both.units == {"champion": 1600, "challenger": 200}
    assert both.expected == pytest.approx({"champion": 1440, "challenger": 360})
    assert (combined_ratio([]).p, combined_ratio([]).mismatch) == (1.0, False)


def test_one_unit_of_a_small_arm_is_no_mismatch() -> None:
    """Chi-square needs some expected units in every arm; with one unit at 1 % it would cry wolf for ever."""
    first = sample_ratio({"challenger": 1}, {"champion": 99.0, "challenger": 1.0})
    assert first.p < 0.001
    assert not combined_ratio([first]).mismatch


def test_phases_end_where_an_arm_gets_nobody_or_serves_another_version() -> None:
    def route(
        revision: int, phase: int, packages: dict[str, str], experiment: str = "one", without: str = ""
    ) -> RouteDocument:
        made = arms({name: () if name == without else ((0, 1),) for name in packages}, packages)
        return RouteDocument(
            1, "e", revision, made, ExperimentRef("s", phase, experiment), Parameters(), "a", "", "", None
        )  # fmt: skip

    both = {"champion": "A", "challenger": "B"}
    routes = [
        route(1, 7, both, ""),
        route(2, 1, both),
        route(3, 1, both),
        route(4, 2, {**both, "challenger-2": "C"}),
        route(5, 3, {"champion": "B", "challenger": "A"}),
        route(6, 4, both),
    ]
    assert [(one.number, one.last_revision) for one in phases_of(routes, "one")] == [(1, 3), (2, 4)]
    assert [one.number for one in phases_of([*routes[:3], route(4, 2, {"champion": "B"})], "one")] == [1]
    assert [one.number for one in phases_of([*routes[:3], route(4, 2, both, without="challenger")], "one")] == [1]
    assert phases_of(routes, "two") == []
