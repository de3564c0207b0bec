"""Bucket assignment: whole, sticky, and with no unit moved that need not move."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.assignment import BUCKETS, Ranges, bucket, move, owner_table, share
from interlock.core.errors import Usage

NAMES = ("champion", "challenger", "challenger-2")
Targets = dict[str, int]


@st.composite
def targets(draw: st.DrawFn) -> Targets:
    """Buckets of three arms that add up."""
    cuts = sorted(draw(st.lists(st.integers(0, BUCKETS), min_size=2, max_size=2)))
    return dict(zip(NAMES, (cuts[0], cuts[1] - cuts[0], BUCKETS - cuts[1]), strict=True))


START: dict[str, Ranges] = {"champion": ((0, BUCKETS),), "challenger": (), "challenger-2": ()}


@pytest.mark.parametrize(
    ("salt", "unit", "expected"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_the_hash_is_growthbooks_second_version(salt: str, unit: str, expected: float) -> None:
    """Reference values of GrowthBook's SDK test cases (`hash`, version 2)."""
    assert bucket(salt, unit) == round(expected * BUCKETS)


@given(st.lists(targets(), min_size=1, max_size=8))
def test_every_bucket_always_has_exactly_one_arm_and_arms_their_shares(steps: list[Targets]) -> None:
    arms = START
    for target in steps:
        arms = move(arms, target)
        counted = Counter(owner_table(arms))
        assert {name: counted[name] for name in NAMES} == target
        assert {name: share(ranges) for name, ranges in arms.items()} == target


@given(st.lists(targets(), min_size=2, max_size=8))
def test_no_bucket_changes_between_challengers_that_keep_or_gain(steps: list[Targets]) -> None:
    arms = START
    for target in steps:
        before, now = owner_table(arms), owner_table(moved := move(arms, target))
        for name in NAMES[1:]:
            held = share(arms[name])
            kept = sum(old == new == name for old, new in zip(before, now, strict=True))
            assert kept == min(held, target[name])  # who grows loses nobody, who shrinks loses no more than it must
        arms = moved


@given(st.lists(targets(), min_size=1, max_size=6))
def test_two_arms_move_only_the_difference(steps: list[Targets]) -> None:
    arms: dict[str, Ranges] = {"champion": ((0, BUCKETS),), "challenger": ()}
    for step in steps:
        target = {"champion": BUCKETS - step["challenger"], "challenger": step["challenger"]}
        difference = abs(target["challenger"] - share(arms["challenger"]))
        after = move(arms, target)
        changed = sum(a != b for a, b in zip(owner_table(arms), owner_table(after), strict=True))
        assert changed == difference
        arms = after


@given(targets(), targets())
def test_raising_and_lowering_again_brings_everybody_back(base: Targets, more: Targets) -> None:
    start = move(START, base)
    give = min(more["challenger"], base["champion"])
    raised = base | {"champion": base["champion"] - give, "challenger": base["challenger"] + give}
    assert owner_table(move(move(start, raised), base)) == owner_table(start)


@given(targets())
def test_the_same_shares_move_nobody(target: Targets) -> None:
    once = move(START, target)
    assert owner_table(move(once, target)) == owner_table(once)


@pytest.mark.parametrize(
    "target",
    [
        {"champion": 9000, "challenger": 900, "challenger-2": 0},
        {"champion": 9000, "challenger": 1000},
        {"champion": 9000, "challenger": 1000, "challenger-2": 0, "challenger-3": 0},
        {"champion": 11000, "challenger": -1000, "challenger-2": 0},
    ],
)
def test_shares_that_do_not_fit_are_refused(target: Targets) -> None:
    with pytest.raises(Usage):
        move(START, target)


@pytest.mark.parametrize(
    "arms", [{"a": ((0, 9999),)}, {"a": ((0, BUCKETS),), "b": ((5, 6),)}, {"a": ((0, BUCKETS + 1),)}, {"a": ((3, 3),)}]
)
def test_a_table_with_gaps_or_overlaps_is_refused(arms: dict[str, Ranges]) -> None:
    with pytest.raises(ValueError, match=r"bucket|range"):
        owner_table(arms)


def test_units_spread_evenly() -> None:
    counts = Counter(bucket("0197-salt", f"N{number}") * 10 // BUCKETS for number in range(20_000))
    assert all(1800 < counts[tenth] < 2200 for tenth in range(10))  # binomial, over four standard deviations
