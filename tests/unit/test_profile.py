"""Profiles keep every row in exactly one bin, and new rows are counted into the same bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from interlock.model import profile
from interlock.model.profile import Numeric, Values
from interlock.model.signature import Input, Signature

numbers = st.lists(st.one_of(st.just(float("nan")), st.integers(-3, 3).map(float), st.floats(-1e6, 1e6)), max_size=60)
texts = st.lists(st.one_of(st.none(), st.sampled_from("abcdef")), max_size=60)


@given(numbers)
def test_counting_the_reference_gives_its_own_counts(values: list[float]) -> None:
    column = np.array(values, np.float64)
    found = profile.numeric(column)
    assert sum(found.counts) + found.missing == found.n == len(values)
    reference, counted = profile.count(found, column)
    assert counted == reference


@given(texts)
def test_counting_the_reference_texts_gives_its_own_counts(values: list[str | None]) -> None:
    column = np.array(values, object)
    found = profile.tally(column)
    reference, counted = profile.count(found, column)
    assert counted == reference
    assert sum(reference) == len(values)


def test_new_values_land_in_other_and_missing() -> None:
    found = profile.tally(np.array(["a", "a", "b"], object))
    assert profile.count(found, np.array(["a", "c", None], object)) == ([2, 1, 0, 0], [1, 0, 1, 1])


def test_only_the_top_values_are_named() -> None:
    found = profile.tally(np.array([f"v{i:03}" for i in range(profile.TOP + 5)] * 2 + ["often"] * 9, object))
    assert next(iter(found.counts)) == "often"
    assert (len(found.counts), found.other) == (profile.TOP, 12)


def test_equal_frequency_bins_hold_a_tenth_each() -> None:
    found = profile.numeric(np.arange(1000, dtype=np.float64))
    assert found.counts == (100,) * 10


def test_nullable_truth_values_read_as_truth_values() -> None:
    assert profile.tally(np.array([1.0, 0.0, np.nan])) == Values({"false": 1, "true": 1}, 0, 1, 3)


def test_a_profile_comes_back_from_its_file() -> None:
    inputs = (Input("n", "int", nullable=True), Input("c", "category"), Input("b", "bool"), Input("t", "timestamp"))
    columns: list[Any] = [
        np.array([1.0, np.nan]),
        np.array(["x", "y"], object),
        np.array([True, False]),
        np.array([1, 2]),
    ]
    made = profile.build(Signature("binary", inputs, ("no", "yes")), columns, ["no", "yes"], np.array([[0.2], [0.4]]))
    assert profile.decode(profile.encode(made)) == made
    assert list(made.inputs) == ["n", "c", "b"]
    assert isinstance(made.scores["score"], Numeric)
    assert made.classes == {"no": 0.5, "yes": 0.5}
