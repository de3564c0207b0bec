"""Rules of a release standard against numbers, and freeze windows; no project."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, get_args
from zoneinfo import ZoneInfo

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.errors import Misconfigured
from interlock.core.freeze import FreezeSettings
from interlock.core.settings import CostSettings, StandardRule, StandardSettings, Task, load_settings
from interlock.evaluation.numbers import NAMES, Number, known, of_report
from interlock.evaluation.paired import compare, standard_errors
from interlock.evaluation.report import Report
from interlock.evaluation.resampling import intervals
from interlock.evaluation.slices import by_slice
from interlock.evaluation.thresholds import thresholds
from interlock.evaluation.verdicts import Facts, Line, Missing, check_names, lines

BASE: dict[str, Any] = {
    "format": 2, "model": "m", "task": "binary", "subject": {"model": "m", "version": 2, "package_digest": "sha256:a"},
    "against": {"model": "m", "version": 1, "package_digest": "sha256:b"}, "note": "", "threshold": 0.5,
    "rows": {"extract_digest": "", "split_digest": "", "n": 100, "left_out": 0, "first": "", "last": ""},
    "metrics": {}, "baseline": {"auc": 0.5}, "against_metrics": {}, "paired": [], "slices": [], "proof": None, "created": "",
}  # fmt: skip


def report(n: int = 4000, worse_in: str = "", noise: float = 0.05, groups: bool = False) -> Report:
    """A candidate that ranks as the champion does, but for one slice."""
    rng = np.random.default_rng(4)
    signal, place = rng.normal(size=n), np.array(["AA", "BB", "CC", "DD"])[np.arange(n) % 4]
    y = (rng.random(n) < 1 / (1 + np.exp(-2 * signal))).astype(float)
    champion = 1 / (1 + np.exp(-2 * signal))
    candidate = 1 / (1 + np.exp(-2 * signal - noise * rng.normal(size=n)))
    candidate = np.where(place == worse_in, 0.5, candidate)
    slices = by_slice({"place": place}, "binary", y, candidate, champion)
    made = msgspec.convert(BASE, Report)
    return msgspec.structs.replace(
        made,
        rows=msgspec.structs.replace(made.rows, n=n),
        metrics={"auc": float(compare("binary", y, candidate, champion)[0].candidate)},
        intervals=intervals("binary", y, candidate),
        paired=tuple(compare("binary", y, candidate, champion)),
        slices=tuple(slices),
    )


def judged(rule: StandardRule, found: Report | None = None, **missing: Missing) -> list[Line]:
    numbers = of_report(found) if found else {}
    _, *rest = lines(StandardSettings(rules=(rule,)), "binary", Facts(found, numbers, missing))  # type: ignore[arg-type]
    return rest


def test_what_a_cheaper_threshold_saves_is_a_number_with_its_interval() -> None:
    rng = np.random.default_rng(1)
    score = rng.random(2000)
    y = (rng.random(2000) < score).astype(float)
    found = thresholds(y, score, 0.5, CostSettings(fp=1.0, fn=9.0))
    saving = of_report(msgspec.structs.replace(msgspec.convert(BASE, Report), thresholds=found))["saving"]
    assert found.cheapest is not None
    assert found.cheapest.threshold < 0.3  # a miss costs nine times a false alarm
    assert saving.value == found.cheapest.saving > 0
    assert (saving.low, saving.high) == (found.cheapest.saving_interval.low, found.cheapest.saving_interval.high)
    without = thresholds(y, score, 0.5, None)
    assert "saving" not in of_report(msgspec.structs.replace(msgspec.convert(BASE, Report), thresholds=without))


limits = st.floats(-10, 10)


@given(value=limits, below=st.floats(0, 5), above=st.floats(0, 5), limit=limits, bound=st.sampled_from(["min", "max"]))
def test_the_near_end_of_the_interval_counts(
    value: float, below: float, above: float, limit: float, bound: str
) -> None:
    found = {"changed": Number(value, value - below, value + above, 9), "rows": Number(value)}
    rules = [StandardRule(name, limit) if bound == "min" else StandardRule(name, None, limit) for name in found]
    _, wide, bare = lines(StandardSettings(rules=tuple(rules)), "binary", Facts(None, found, {}))
    good = value - below >= limit if bound == "min" else value + above <= limit
    assert (wide.verdict == "pass") == good
    assert (bare.verdict == "pass") == (value >= limit if bound == "min" else value <= limit)
    assert bare.verdict == "pass" or wide.verdict == "fail", "an interval never makes it easier"


@given(margin=st.floats(0, 0.2), metric=st.sampled_from(["auc", "brier", "positive_rate"]))
def test_no_worse_by_more_than_the_margin_in_the_direction_of_the_metric(margin: float, metric: str) -> None:
    found = REPORT
    pair = next(one for one in found.paired if one.metric == metric)
    (line,) = judged(StandardRule(metric, margin=margin), found)
    harm = {"auc": -pair.low, "brier": pair.high, "positive_rate": max(-pair.low, pair.high)}[metric]
    assert (line.verdict == "pass") == (harm <= margin)


REPORT = report(noise=0.5)


def test_the_bad_slice_is_named_and_no_other() -> None:
    whole, slices = judged(StandardRule("auc", margin=0.2, slices=True), report(worse_in="CC"))
    assert (whole.verdict, slices.verdict) == ("pass", "fail")
    assert slices.sentence.startswith("does not hold in place = CC (-0.37 of")
    assert "place = AA" not in slices.sentence
    low = judged(StandardRule("auc", min=0.7, slices=True), report(worse_in="CC"))
    assert [one.verdict for one in low] == ["pass", "fail"]
    assert "place = CC (0.5 of 1000 rows)" in low[1].sentence


@given(margin=st.floats(0, 0.1))
def test_holm_asks_no_less_than_every_slice_alone_and_no_more_than_bonferroni(margin: float) -> None:
    _, line = judged(StandardRule("auc", margin=margin, slices=True), REPORT)
    pairs = [one for part in REPORT.slices for one in part.changes if one.metric == "auc"]
    worst = min((one.effect + margin) / one.se for one in pairs)
    if worst < 1.95:
        assert line.verdict == "fail"
    if worst > 2.5:  # 0.025 / 4 one-sided
        assert line.verdict == "pass"


def test_slices_that_are_too_small_never_pass() -> None:
    small = report(200)
    assert {one.verdict for one in small.slices} == {"too small"}
    *_, line = judged(StandardRule("auc", min=0.1, slices=True), small)
    assert line.verdict == "unknown"
    *_, mixed = judged(StandardRule("auc", min=0.1, slices=True, min_n=5000), report())
    assert mixed.verdict == "unknown"


def test_errors_of_slices_are_those_of_the_intervals() -> None:
    rng = np.random.default_rng(1)
    y = (rng.random(3000) < 0.4).astype(float)
    score = np.clip(0.3 * y + rng.random(3000) * 0.7, 0, 1)
    wide, narrow = intervals("binary", y, score), standard_errors("binary", y, score, 0.5)
    for name in ("auc", "brier", "accuracy", "precision", "recall", "f1", "positive_rate"):
        assert narrow[name] == pytest.approx((wide[name].high - wide[name].low) / 2 / 1.96, rel=0.06), name


def test_missing_evidence_is_unknown_and_says_what_makes_it() -> None:
    gone = Missing("unknown", "there is no diff of it yet", "interlock diff A B")
    (line,) = judged(StandardRule("changed", max=0.1), None, diff=gone)
    assert (line.verdict, line.next) == ("unknown", "interlock diff A B")
    (line,) = judged(StandardRule("auc", margin=0.1), REPORT, change=Missing("skipped", "there is no champion yet"))
    assert (line.verdict, line.sentence) == ("skipped", "there is no champion yet")
    (line,) = judged(StandardRule("selection_ratio", min=0.8), REPORT)
    assert (line.verdict, "[evaluation] sensitive" in line.next) == ("unknown", True)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (StandardRule("aucc", min=0.7), "'aucc'; of a binary model there are auc, .*shadow_hours"),
        (StandardRule("rmse", max=1), "'rmse'; of a binary model"),
        (StandardRule("ece", margin=0.1), "not compared with the champion"),
        (StandardRule("latency_ms", margin=0.1), "not compared with the champion"),
        (StandardRule("latency_ms", max=10, slices=True), "only metrics have"),
    ],
)
def test_what_a_rule_cannot_mean_is_refused(rule: StandardRule, said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        check_names(StandardSettings(rules=(rule,)), "binary")


def test_every_name_is_documented() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference" / "standard.md").read_text()
    names = {name for task in get_args(Task) for name in known(task)}
    assert [name for name in sorted(names) if f"`{name}`" not in text] == []
    assert set(NAMES) <= names


@given(st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1)), st.integers(0, 6 * 1440), st.integers(1, 1440))
def test_a_weekly_window_goes_by_the_wall_clock_of_its_zone(at: datetime, start: int, length: int) -> None:
    def text(minutes: int) -> str:
        day, rest = divmod(minutes % (7 * 1440), 1440)
        return f"{('Mon', 'Tue', 'Wed', 'Thu', 'Fri', 'Sat', 'Sun')[day]} {rest // 60:02d}:{rest % 60:02d}"

    zone = "America/New_York"
    window = FreezeSettings(text(start), text(start + length), zone)
    turned = FreezeSettings(text(start + length), text(start), zone)
    now = at.replace(tzinfo=UTC)
    local = now.astimezone(ZoneInfo(zone))
    minute = local.weekday() * 1440 + local.hour * 60 + local.minute
    assert window.holds(now) == (start <= minute < start + length)
    assert window.holds(now) != turned.holds(now), "one of the two halves of the week"


def test_a_window_once_ends_when_it_says() -> None:
    window = FreezeSettings("2026-12-20", "2027-01-02T08:00", "Europe/Berlin", "the holidays")
    first, end = datetime(2026, 12, 19, 23, tzinfo=UTC), datetime(2027, 1, 2, 7, tzinfo=UTC)
    moment = timedelta(microseconds=1)
    assert [window.holds(one) for one in (first - moment, first, end - moment, end)] == [False, True, True, False]
    assert str(window) == "2026-12-20 to 2027-01-02T08:00 Europe/Berlin: the holidays"


@pytest.mark.parametrize(
    ("lines_", "said"),
    [
        ('freeze = [{ since = "Fri 16:00", until = "2026-01-01" }]', r"both every week.*\$\.standard\.freeze\[0\]"),
        ('freeze = [{ since = "2026-01-02", until = "2026-01-01" }]', "is not before"),
        ('freeze = [{ since = "Fri 16:00", until = "Fri 16:00" }]', "is not before"),
        ('freeze = [{ since = "Fri 16", until = "Mon 06:00" }]', "both every week"),
        ('freeze = [{ since = "Fri 16:00", until = "Mon 06:00", zone = "Mars/Olympus" }]', "is no zone"),
        ('rules = [{ metric = "auc" }]', r"needs min, max or margin.*rules\[0\]"),
        ('rules = [{ metric = "auc", margin = -0.1 }]', "margin"),
        ('require = ["blessing"]', "blessing"),
    ],
)
def test_a_standard_that_makes_no_sense_is_refused_with_its_place(tmp_path: Path, lines_: str, said: str) -> None:
    (tmp_path / "interlock.toml").write_text(
        'model = "m"\nrecipe = "r:t"\n[inputs]\na = "float"\n[extract]\nsql = "s"\nid = "id"\nevent_time = "at"\n'
        f'label = "y"\n[standard]\n{lines_}\n'
    )
    with pytest.raises(Misconfigured, match=said):
        load_settings(tmp_path / "interlock.toml", {})
