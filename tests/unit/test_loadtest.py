"""The search for the rate that breaks a deadline, and the comparison of one raw input: pure parts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.evaluation.loadtest import SEARCH_STEPS, search
from interlock.evaluation.open_loop import Step, Verdict
from interlock.model.columns import NAT
from interlock.model.signature import Input
from interlock.model.skew import apart


def step(rate: float, verdict: Verdict) -> Step:
    return Step("search", rate, 1.0, 100, 0, 0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.1, verdict, "")


def verdict(rate: float, capacity: float, client: float) -> Verdict:
    return "client" if rate > client else "broken" if rate > capacity else "held"


@given(
    capacity=st.floats(5, 5000), client=st.floats(5, 20_000), expected=st.floats(10, 200), guess=st.floats(0.1, 1000)
)
async def test_the_search_closes_in_on_the_capacity(
    capacity: float, client: float, expected: float, guess: float
) -> None:
    async def ask(rate: float) -> Step:
        return step(rate, verdict(rate, capacity, client))

    known = [await ask(expected), await ask(2 * expected)]
    made = await search(known, guess, ask)
    assert len(made) <= SEARCH_STEPS
    held = max((one.rate for one in [*known, *made] if one.verdict == "held"), default=0.0)
    over = min((one.rate for one in [*known, *made] if one.verdict != "held"), default=math.inf)
    assert held <= min(capacity, client) < over
    assert held == 0 or over / held < 2.1  # found between two, or given up while it still doubled
    assert over < math.inf or len(made) == SEARCH_STEPS


@pytest.mark.parametrize(
    ("kind", "served", "rebuilt", "differ"),
    [
        ("float", [1.0, 1.0, np.nan, np.nan, 0.0], [1.0 + 1e-12, 1.01, np.nan, 1.0, 0.0], [0, 1, 0, 1, 0]),
        ("int", [2**60, 3], [2**60 + 1, 3], [1, 0]),
        ("int", [1.0, np.nan], np.array([1, 2]), [0, 1]),
        ("bool", np.array([True, False]), [1.0, np.nan], [0, 1]),
        ("timestamp", np.array([NAT, NAT, 5]), np.array([NAT, 5, 5]), [0, 1, 0]),
        ("category", np.array(["a", None, "b", None], object), np.array(["a", None, None, "c"], object), [0, 0, 1, 1]),
    ],
)
def test_what_counts_as_a_difference(kind: str, served: object, rebuilt: object, differ: list[int]) -> None:
    spec = Input("x", kind, nullable=True)  # type: ignore[arg-type]  # widened by parametrize
    found = apart(spec, np.asarray(served), np.asarray(rebuilt))
    assert (found > 0).astype(int).tolist() == differ
    assert apart(spec, np.asarray(rebuilt), np.asarray(served)).tolist() == found.tolist()


def test_the_farther_apart_the_larger() -> None:
    found = apart(Input("x", "float"), np.array([1.0, 1.0, 1.0]), np.array([1.1, 2.0, np.nan]))
    assert found.tolist() == pytest.approx([0.1 / 1.1, 0.5, math.inf])
