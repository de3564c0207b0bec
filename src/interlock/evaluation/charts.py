"""Charts as data: Vega-Lite specifications, and the part of that language that we draw ourselves, as SVG.

A specification is plain JSON with its values inside, so any Vega-Lite tool shows the same chart. Drawn here are layers of
line, point, bar, rule and tick marks over two shared axes, each quantitative, or `nominal` on y. Why not by a library:
docs/decisions/0008-charts.md.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]

WIDTH, HEIGHT, BAND = 390, 240, 20
COLORS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2")
INK, GRID = "#555555", "#e6e6e6"
_CHARACTER = 6.2  # width of a character in the labels' font
_LABEL = 28  # characters of a label on the y axis
_TOP, _BOTTOM, _RIGHT = 26, 44, 20


def layer(mark: str, rows: Rows, *, name: str = "", color: str = "", dash: bool = False, **channels: str) -> Spec:
    """One layer: a mark over rows; `channels` say which field of a row is x, y, x2 or y2. `name`: its entry in the legend."""
    made: Spec = {"type": mark, **({"color": color} if color else {}), **({"strokeDash": [4, 3]} if dash else {})}
    encoding: Spec = {channel: {"field": field} for channel, field in channels.items()}
    if name:
        encoding["color"] = {"datum": name, "type": "nominal"}
    return {"mark": made, "data": {"values": [dict(row) for row in rows]}, "encoding": encoding}


def chart(title: str, x: str, y: str, layers: Sequence[Spec], *, nominal: bool = False, zero: bool = False) -> Spec:
    """A chart with the titles of its axes. `nominal`: y holds names, in the order of the first layer. `zero`: x begins at 0."""
    names = list(dict.fromkeys(row[layers[0]["encoding"]["y"]["field"]] for row in _rows(layers[0]))) if nominal else []
    for one in layers:
        encoding = one["encoding"]
        if "x" in encoding:
            encoding["x"] |= {"type": "quantitative", "title": x, "scale": {"zero": zero}}
        if "y" in encoding:
            encoding["y"] |= (
                {"type": "nominal", "sort": names, "title": y} if nominal else {"type": "quantitative", "title": y}
            )
    height = max(BAND * len(names), BAND) if nominal else HEIGHT
    return {"title": title, "width": WIDTH, "height": height, "layer": list(layers)}


def draw(spec: Spec) -> str:
    """The SVG of a specification made here."""
    layers: list[Spec] = spec["layer"]
    first = layers[0]["encoding"]
    nominal = first["y"]["type"] == "nominal"
    names: list[str] = first["y"]["sort"] if nominal else []
    labels = [name if len(name) <= _LABEL else name[: _LABEL - 1] + "…" for name in names]
    xs = _fitting(_values(layers, "x"), zero=bool(first["x"]["scale"]["zero"]))
    ys = [] if nominal else ticks(_values(layers, "y"))
    said = labels if nominal else tick_labels(ys)
    left = max(len(text) for text in said) * _CHARACTER + (14 if nominal else 34)
    width, height = spec["width"], spec["height"]

    def x(value: float) -> float:
        return float(left + (value - xs[0]) / (xs[-1] - xs[0]) * width)

    def y(value: Any) -> float:
        place = (names.index(value) + 0.5) / len(names) if nominal else (ys[-1] - value) / (ys[-1] - ys[0])
        return float(_TOP + place * height)

    parts = [*_axes(first, xs, ys, said, x, y, left, spec)]
    legend = [one["encoding"]["color"]["datum"] for one in layers if "color" in one["encoding"]]
    for one in layers:
        named = one["encoding"].get("color", {}).get("datum")
        color = one["mark"].get("color") or COLORS[legend.index(named) if named else 0]
        parts += _marks(one, x, y, color, xs, height)
    at: float = left
    for place, name in enumerate(legend):
        parts.append(f'<rect x="{at:.1f}" y="9" width="10" height="10" fill="{COLORS[place]}"/>')
        parts.append(_text(at + 14, 18, name))
        at += 26 + len(name) * _CHARACTER
    full = (left + width + max(_RIGHT, len(tick_labels(xs)[-1]) * _CHARACTER / 2 + 4), _TOP + height + _BOTTOM)
    head = f'<svg viewBox="0 0 {full[0]:.0f} {full[1]:.0f}" width="{full[0]:.0f}" height="{full[1]:.0f}" role="img"'
    font = 'font-family="system-ui, sans-serif" font-size="11"'
    return f'{head} {font} aria-label="{escape(spec["title"])}">' + "".join(parts) + "</svg>"


def ticks(values: Iterable[float], *, zero: bool = False, count: int = 6) -> list[float]:
    """About `count` round numbers around the values, at least two: steps of 1, 2 or 5 times a power of ten."""
    known = [*values, *([0.0] if zero else [])] or [0.0]
    low, high = min(known), max(known)
    if high - low <= 1e-9 * max(abs(low), abs(high)):
        low, high = low - (abs(low) / 2 or 0.5), high + (abs(high) / 2 or 0.5)
    rough = (high - low) / count
    power = math.floor(math.log10(rough))
    step = next(factor * 10.0**power for factor in (1, 2, 5, 10) if factor * 10.0**power >= rough * 0.999)
    start, end = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(at * step, max(0, 1 - power)) for at in range(start, max(end, start + 1) + 1)]


def tick_labels(places: Sequence[float]) -> list[str]:
    """The numbers with as many decimals as tell them apart."""
    step = places[1] - places[0]
    if step < 1e-4 or max(map(abs, places)) >= 1e7:
        return [f"{one:.6g}" for one in places]
    decimals = max(0, -math.floor(math.log10(step) + 1e-9))
    return [f"{one:,.{decimals}f}" for one in places]


def number(value: float) -> str:
    """A number as axes and tables show it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"


def _fitting(values: list[float], *, zero: bool) -> list[float]:
    """As many ticks as have room for their labels."""
    found = [ticks(values, zero=zero, count=count) for count in (6, 4, 3, 2)]
    room = (one for one in found if (max(map(len, tick_labels(one))) * _CHARACTER + 10) * (len(one) - 1) < WIDTH)
    return next(room, [found[-1][0], found[-1][-1]])


def _axes(
    first: Spec, xs: list[float], ys: list[float], said: list[str], x: Any, y: Any, left: float, spec: Spec
) -> list[str]:
    bottom, right = _TOP + spec["height"], left + spec["width"]
    parts = [_line(x(one), _TOP, x(one), bottom, GRID) for one in xs]
    parts += [_line(left, y(one), right, y(one), GRID) for one in ys]
    parts += [_text(x(one), bottom + 16, text, "middle") for one, text in zip(xs, tick_labels(xs), strict=True)]
    places = ys or first["y"]["sort"]
    parts += [_text(left - 6, y(one) + 4, text, "end") for one, text in zip(places, said, strict=True)]
    parts.append(_text((left + right) / 2, bottom + 36, first["x"]["title"], "middle"))
    if ys:
        middle = (_TOP + bottom) / 2
        turned = f'transform="rotate(-90 12 {middle:.1f})"'
        parts.append(
            f'<text x="12" y="{middle:.1f}" text-anchor="middle" fill="{INK}" {turned}>{escape(first["y"]["title"])}</text>'
        )
    return parts


def _marks(one: Spec, x: Any, y: Any, color: str, xs: list[float], height: float) -> list[str]:
    encoding, kind = one["encoding"], one["mark"]["type"]
    field = {channel: encoding[channel]["field"] for channel in ("x", "y", "x2", "y2") if channel in encoding}
    rows = [row for row in _rows(one) if all(row[name] is not None for name in field.values())]
    dash = ' stroke-dasharray="4 3"' if "strokeDash" in one["mark"] else ""
    if kind == "line":
        points = " ".join(f"{x(row[field['x']]):.1f},{y(row[field['y']]):.1f}" for row in rows)
        return [f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="1.8"{dash}/>']
    parts = []
    for row in rows:
        across = x(row[field["x"]])
        if kind == "point":
            parts.append(f'<circle cx="{across:.1f}" cy="{y(row[field["y"]]):.1f}" r="3.2" fill="{color}"/>')
        elif kind == "bar":
            zero = x(min(max(0.0, xs[0]), xs[-1]))
            place = f'x="{min(zero, across):.1f}" y="{y(row[field["y"]]) - 7:.1f}" width="{abs(across - zero):.1f}"'
            parts.append(f'<rect {place} height="14" fill="{color}"/>')
        else:  # a rule: from one end to the other, or over the whole height
            up, down = (
                (y(row[field["y"]]), y(row[field.get("y2", field["y"])])) if "y" in field else (_TOP, _TOP + height)
            )
            parts.append(_line(across, up, x(row[field["x2"]]) if "x2" in field else across, down, color, 1.4, dash))
    return parts


def _rows(one: Spec) -> list[dict[str, Any]]:
    values: list[dict[str, Any]] = one["data"]["values"]
    return values


def _values(layers: Sequence[Spec], axis: str) -> list[float]:
    """What the layers place on an axis."""
    fields = [
        (one, one["encoding"][channel]["field"])
        for one in layers
        for channel in (axis, f"{axis}2")
        if channel in one["encoding"]
    ]
    return [row[field] for one, field in fields for row in _rows(one) if row[field] is not None]


def _line(x1: float, y1: float, x2: float, y2: float, color: str, width: float = 1.0, more: str = "") -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="{color}" stroke-width="{width}"{more}/>'


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
