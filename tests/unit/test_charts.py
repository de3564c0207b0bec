"""Charts: valid Vega-Lite for other tools, and well-formed SVG of our own in which nothing is cut off."""

from __future__ import annotations

import json
import math
import re
from itertools import pairwise
from xml.etree import ElementTree

import altair
from hypothesis import given
from hypothesis import strategies as st

from interlock.evaluation.charts import Spec, chart, draw, layer, tick_labels, ticks
from interlock.evaluation.page import figure, page, table

HOSTILE = "</script><script>alert('x')</script>&\"<b>"


def slices(names: list[str]) -> Spec:
    rows = [
        {"slice": name, "effect": at / 10, "low": at / 10 - 1, "high": at / 10 + 1} for at, name in enumerate(names)
    ]
    layers = [
        layer("rule", rows, x="low", x2="high", y="slice"),
        layer("point", rows, x="effect", y="slice"),
        layer("rule", [{"nothing": 0.0}], x="nothing", color="#222222", dash=True),
    ]
    return chart("By slice", "difference", "", layers, nominal=True, zero=True)


def curves() -> Spec:
    rows = [{"at": at / 10, "precision": at / 10 if at < 8 else None, "cost": 12_345.0 * at} for at in range(11)]
    lines = [layer("line", rows, x="at", y=name, name=name) for name in ("precision", "cost")]
    bars = [layer("rule", rows, x="at", y="precision", y2="cost"), layer("point", rows, x="at", y="cost")]
    return chart("Curves", "threshold", "share", [*lines, *bars])


def bars() -> Spec:
    rows = [{"input": name, "worse": worse} for name, worse in (("a", 0.1), ("b", -0.02))]
    return chart("Bars", "auc gets worse by", "", [layer("bar", rows, x="worse", y="input")], nominal=True, zero=True)


def test_specifications_are_valid_vega_lite() -> None:
    for spec in (slices(["EWR", HOSTILE]), curves(), bars()):
        again = altair.Chart.from_dict(json.loads(json.dumps(spec))).to_dict()
        assert len(again["layer"]) == len(spec["layer"])


def inside(found: ElementTree.Element) -> None:
    """No text is cut off, with six pixels for a character."""
    width, height = (float(found.get(side, 0)) for side in ("width", "height"))
    for one in found.findall("text"):
        x, long = float(one.get("x", 0)), 6 * len(one.text or "")
        start = {"start": x, "middle": x - long / 2, "end": x - long}[one.get("text-anchor", "start")]
        assert start >= -0.5 or "transform" in one.attrib
        assert start + long <= width + 0.5 or "transform" in one.attrib
        assert 0 <= float(one.get("y", 0)) <= height


def test_every_mark_is_drawn() -> None:
    found = ElementTree.fromstring(draw(slices(["EWR", "JFK"])))
    assert len(found.findall("circle")) == 2
    assert len([one for one in found.findall("line") if one.get("stroke-width") == "1.4"]) == 3
    drawn = ElementTree.fromstring(draw(curves()))
    lengths = [len((one.get("points") or "").split()) for one in drawn.findall("polyline")]
    assert lengths == [8, 11]
    assert {"precision", "cost"} < {one.text for one in drawn.findall("text")}
    assert [float(one.get("width", 0)) > 0 for one in ElementTree.fromstring(draw(bars())).findall("rect")] == [
        True
    ] * 2


@given(st.lists(st.text(min_size=1, max_size=60), min_size=1, max_size=30, unique=True))
def test_names_of_any_kind_stay_inside_and_are_escaped(names: list[str]) -> None:
    names = [
        re.sub(r"[\x00-\x08\x0b-\x1f\ud800-\udfff\ufffe\uffff]", "?", name) + str(at) for at, name in enumerate(names)
    ]
    found = ElementTree.fromstring(draw(slices([*names, HOSTILE])))
    inside(found)
    assert not found.findall(".//script")


def test_long_numbers_stay_inside() -> None:
    rows = [{"x": 25_000.0, "y": 0.00001}, {"x": 299_000_000.0, "y": 0.00003}]
    inside(ElementTree.fromstring(draw(chart("Large", "x", "y", [layer("point", rows, x="x", y="y")]))))


finite = st.floats(-1e12, 1e12).filter(lambda value: value == 0 or abs(value) > 1e-9)


@given(st.lists(finite, max_size=5), st.booleans(), st.integers(2, 6))
def test_ticks_are_round_rise_and_hold_every_value(values: list[float], zero: bool, count: int) -> None:
    found = ticks(values, zero=zero, count=count)
    assert 2 <= len(found) <= 3 * count
    steps = [b - a for a, b in pairwise(found)]
    assert min(steps) > 0
    assert max(steps) <= min(steps) * 1.001
    slack = steps[0] * 1e-6
    assert all(found[0] - slack <= value <= found[-1] + slack for value in [*values, *([0.0] if zero else [])])
    leading = steps[0] / 10 ** math.floor(math.log10(steps[0]) + 1e-6)
    assert min(abs(leading - one) for one in (1, 2, 5)) < 1e-3


def test_labels_tell_the_ticks_apart() -> None:
    assert tick_labels(ticks([0.01, 0.034])) == ["0.010", "0.015", "0.020", "0.025", "0.030", "0.035"]
    assert tick_labels(ticks([0, 10_000])) == ["0", "2,000", "4,000", "6,000", "8,000", "10,000"]


def test_a_page_needs_nothing_else_and_runs_nothing() -> None:
    text = page(
        HOSTILE, [table([{HOSTILE: HOSTILE, "n": 1, "yes": True}], (HOSTILE, "n", "yes")), figure(slices([HOSTILE]))]
    )
    assert "<b>" not in text
    assert "alert" in text
    assert not re.search(r"https?://|src=|@import|url\(", text)
    assert re.findall(r"<script[^>]*>", text) == ['<script type="application/vnd.vegalite+json">']
    spec = re.search(r'vegalite\+json">(.*?)</script>', text, re.DOTALL)
    assert spec is not None
    assert json.loads(spec[1]) == slices([HOSTILE])
