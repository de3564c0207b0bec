from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from interlock.core.settings import Task
from interlock.evaluation.metrics import measure, metrics_of
from interlock.evaluation.paired import benjamini_hochberg, compare, delong
from interlock.experiments.aggregates import Effect, Sums, absolute_effect, mean_sums, relative_effect, sums_of
from interlock.experiments.samples import e_value
from interlock.experiments.sequential import always_valid
from interlock.monitoring.drift import Check, Verdict, psi
from interlock.monitoring.states import OPEN, Acked, Alert, Event, Observed, Resolved, Silenced, step

Array = npt.NDArray[np.float64]
START = datetime(2013, 7, 1, tzinfo=UTC)


@st.composite
def scored(draw: st.DrawFn) -> tuple[Array, Array, Array]:
    """Labels and two scores of up to 60 rows, coarse so that ties are common."""
    n = draw(st.integers(4, 60))
    rows = st.lists(st.integers(0, 10), min_size=n, max_size=n)
    y = np.array(draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)), dtype=float)
    return y, np.array(draw(rows)) / 10, np.array(draw(rows)) / 10


finite = st.floats(-100, 100).map(lambda value: round(value, 3))
units = st.lists(st.tuples(finite, st.integers(1, 9)), min_size=2, max_size=30)


def ratio(rows: list[tuple[float, int]]) -> Sums:
    x, y = np.array(rows, dtype=float).T
    return sums_of(x, y)


@given(scored(), st.floats(0, 1))
def test_metrics_are_in_range_or_absent(data: tuple[Array, Array, Array], threshold: float) -> None:
    y, score, _ = data
    found = measure("binary", y, score, threshold)
    assert found.keys() <= metrics_of("binary").keys()
    assert ("auc" in found) == (0 < y.sum() < len(y))
    assert all(0 <= value <= 1 for name, value in found.items() if name != "log_loss")
    assert all(math.isfinite(value) for value in found.values())


@given(scored())
def test_auc_sees_only_the_order(data: tuple[Array, Array, Array]) -> None:
    y, score, _ = data
    first = measure("binary", y, score).get("auc")
    assert measure("binary", y, score**3 / 7).get("auc") == first
    mirrored = measure("binary", 1 - y, score).get("auc")
    assert (first is None) == (mirrored is None)
    if first is not None and mirrored is not None:
        assert first + mirrored == pytest.approx(1)


@given(scored(), st.booleans())
@settings(max_examples=50)
def test_exchanging_the_models_mirrors_every_comparison(data: tuple[Array, Array, Array], regression: bool) -> None:
    y, a, b = data
    task: Task = "regression" if regression else "binary"
    forth = compare(task, y, a, b, method="delta")
    back = compare(task, y, b, a, method="delta")
    assert [paired.metric for paired in forth] == [paired.metric for paired in back]
    for one, other in zip(forth, back, strict=True):
        assert (one.effect, one.se, one.p) == pytest.approx((-other.effect, other.se, other.p), abs=1e-9)
        assert (one.low, one.high) == pytest.approx((-other.high, -other.low), abs=1e-9)
        assert one.low <= one.effect <= one.high
        assert one.effect == pytest.approx(one.candidate - one.champion)


@given(scored(), st.integers(0, 2**32 - 1))
@settings(max_examples=50)
def test_the_order_of_rows_does_not_matter_to_delong(data: tuple[Array, Array, Array], seed: int) -> None:
    y, a, b = data
    if not 2 <= y.sum() <= len(y) - 2:
        return
    order = np.random.default_rng(seed).permutation(len(y))
    one, other = delong(y, a, b), delong(y[order], a[order], b[order])
    assert (one.effect, one.se) == pytest.approx((other.effect, other.se), abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=40))
def test_adjusted_p_values_keep_the_order_and_are_never_smaller(p: list[float]) -> None:
    adjusted = benjamini_hochberg(p)
    assert all(before <= after <= 1 for before, after in zip(p, adjusted, strict=True))
    by_p = [after for _, after in sorted(zip(p, adjusted, strict=True))]
    assert by_p == sorted(by_p)
    assert max(adjusted) == max(p)


@given(units, units)
def test_sums_of_parts_are_those_of_the_whole(first: list[tuple[float, int]], second: list[tuple[float, int]]) -> None:
    together, apart = ratio(first + second), ratio(first) + ratio(second)
    for name in Sums.__struct_fields__:
        assert getattr(apart, name) == pytest.approx(getattr(together, name), abs=1e-6)


@given(units)
def test_a_mean_is_a_ratio_with_one_row_a_unit(rows: list[tuple[float, int]]) -> None:
    x = np.array([value for value, _ in rows])
    value, variance = mean_sums(len(x), x.sum(), x @ x).estimate() or (math.nan, math.nan)
    assert value == pytest.approx(x.mean(), abs=1e-9)
    assert variance == pytest.approx(x.var(ddof=1) / len(x), abs=1e-6)


@given(units, units, st.floats(0.1, 10))
def test_relative_effects_do_not_depend_on_the_scale(
    first: list[tuple[float, int]], second: list[tuple[float, int]], scale: float
) -> None:
    one = relative_effect(ratio(first), ratio(second))
    scaled = [[(value * scale, rows) for value, rows in part] for part in (first, second)]
    other = relative_effect(ratio(scaled[0]), ratio(scaled[1]))
    if one is None or other is None or abs(one.control) < 0.01:
        return
    assert (other.effect, other.se) == pytest.approx((one.effect, one.se), rel=1e-3, abs=1e-5)


@given(units, units)
def test_exchanging_the_arms_turns_the_effect(first: list[tuple[float, int]], second: list[tuple[float, int]]) -> None:
    one, other = absolute_effect(ratio(first), ratio(second)), absolute_effect(ratio(second), ratio(first))
    assert one is not None
    assert other is not None
    assert (one.effect, one.se) == pytest.approx((-other.effect, other.se))


@given(
    st.floats(-50, 50),
    st.floats(1e-6, 1e6),
    st.integers(200, 10**7),
    st.floats(1e-4, 0.5),
    st.integers(100, 10**6),
)
def test_the_always_valid_interval_and_its_p_value_agree(
    z: float, se: float, n: int, alpha: float, expected: int
) -> None:
    found = always_valid(Effect(0, z * se, z * se, se, n // 2, n - n // 2), alpha, expected)
    assert 0 < found.p <= 1
    assert found.e is not None
    assert math.isfinite(found.e)
    if abs(found.p / alpha - 1) > 1e-9:
        assert (found.p < alpha) == (found.low > 0 or found.high < 0)
    # Wider than the interval for one look: the price of looking at any time.
    assert found.high - found.low > 2 * se * math.sqrt(-2 * math.log(alpha))


@given(st.lists(st.integers(0, 300), min_size=2, max_size=4), st.data())
def test_the_sample_ratio_process_is_a_martingale(counts: list[int], data: st.DataObject) -> None:
    """Under the promised shares the expected e after one more unit is e: this is what makes every look valid."""
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(counts), max_size=len(counts)))
    shares = [weight / sum(weights) for weight in weights]
    following = [e_value([n + (i == j) for j, n in enumerate(counts)], shares) for i in range(len(counts))]
    mean = sum(share * e for share, e in zip(shares, following, strict=True))
    assert mean == pytest.approx(e_value(counts, shares), rel=1e-6)


@given(st.lists(st.tuples(st.integers(1, 1000), st.integers(0, 1000)), min_size=2, max_size=12))
def test_psi_is_never_negative_and_zero_only_without_change(bins: list[tuple[int, int]]) -> None:
    reference, window = zip(*bins, strict=True)
    found = psi(reference, window)
    assert found.value is None or found.value >= 0
    assert found.verdict == "too small" or sum(window) >= 500
    assert (psi(reference, reference).value or 0) == pytest.approx(0, abs=1e-12)


@st.composite
def events(draw: st.DrawFn) -> list[Event]:
    """A life of an alert: windows in order (some twice), and people doing what they like in between."""
    found: list[Event] = []
    window = 0
    for kind in draw(st.lists(st.sampled_from(["seen", "seen", "seen", "ack", "silence", "resolve"]), max_size=40)):
        now = START + timedelta(hours=window + 1)
        if kind == "seen":
            verdict: Verdict = draw(st.sampled_from(["ok", "warn", "alert", "alert", "too small"]))
            value = draw(st.floats(0.2, 1)) if verdict == "alert" else draw(st.floats(0, 0.2))
            check = Check(value=value, threshold=0.2, n=1000, verdict=verdict, detail="psi")
            found.append(Observed(now, START + timedelta(hours=window), check))
            window += draw(st.sampled_from([0, 1, 1, 1]))
        elif kind == "ack":
            found.append(Acked("olga"))
        elif kind == "silence":
            found.append(Silenced(now + timedelta(hours=draw(st.integers(0, 5)))))
        else:
            found.append(Resolved("olga"))
    return found


@given(events())
def test_alerts_keep_their_rules(life: list[Event]) -> None:
    alert = Alert(endpoint="flight-delay", monitor="drift")
    breaches: set[datetime] = set()  # windows over the threshold since the alert was last closed
    for event in life:
        taken = step(alert, event)
        new = taken.alert
        assert (new.endpoint, new.monitor, new.slice) == (alert.endpoint, alert.monitor, alert.slice)
        fresh = isinstance(event, Observed) and (alert.window_start is None or event.window_start > alert.window_start)
        if isinstance(event, Observed):
            assert fresh or taken.alert == alert
            if fresh and event.check.verdict == "alert":
                breaches.add(event.window_start)
            if taken.notify:
                assert new.state in ("FIRING", "RESOLVED")
                assert alert.silenced_until is None or event.at >= alert.silenced_until
            if fresh and alert.state in ("FIRING", "ACKED") and new.state == "RESOLVED":
                assert event.check.value is not None
                assert event.check.value < 0.8 * event.check.threshold
        else:
            assert not taken.notify
        if new.state == "FIRING" and alert.state != "FIRING":
            assert alert.state == "PENDING"
            assert len(breaches) >= 2
        if new.state == "ACKED" and alert.state != "ACKED":
            assert alert.state == "FIRING"
        if new.state in OPEN:
            assert new.since is not None
            assert new.since in breaches
        else:
            breaches.clear()
        alert = new
