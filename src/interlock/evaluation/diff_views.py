"""A decision diff as people read it: sections of tables for terminal and Markdown, and one HTML file that needs nothing else."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any, NamedTuple

from interlock.evaluation.diff import Diff, Side, Slice

MOST = 20
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#1d2733;background:#fff;max-width:62rem;margin:2rem auto;padding:0 1rem}
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin:2rem 0 .4rem}p{margin:.4rem 0}
.head{font-size:1.15rem}.warn{background:#fff4d6;border-left:4px solid #d99a00;padding:.5rem .8rem;margin:1rem 0}
table{border-collapse:collapse;font-size:.88rem;width:100%}th{text-align:left;border-bottom:2px solid #c9d2dc}
td,th{padding:.25rem .6rem .25rem 0;vertical-align:top;overflow-wrap:anywhere}td{border-bottom:1px solid #e6ebf0}
td:first-child{min-width:6rem}.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
svg{width:100%;max-width:46rem;height:auto;font:11px system-ui,sans-serif;fill:#1d2733}
footer{margin-top:2rem;color:#5b6875;font-size:.85rem;overflow-wrap:anywhere}
"""


class Section(NamedTuple):
    """A table under a title; `note` is a sentence before it."""

    title: str
    rows: Sequence[dict[str, Any]]
    columns: Sequence[str]
    note: str = ""


def headline(diff: Diff) -> str:
    """The one sentence."""
    changed, labels = diff.changes.changed, diff.changes.labels
    span = f"{percent(changed.share)}, {percent(changed.low)} to {percent(changed.high)}"
    known = f"{labels.helped:,} helped, {labels.harmed:,} harmed, {labels.unknown:,} unknown"
    return f"{changed.rows:,} of {diff.changes.rows:,} decisions change ({span}): {known}"


def warnings(diff: Diff) -> list[str]:
    """What a reader must know before any number."""
    found = []
    if diff.unsupported.rows:
        share = percent(diff.unsupported.share)
        found.append(
            f"{diff.unsupported.rows:,} of {diff.rows:,} rows ({share}) could not be replayed and are in no number"
        )
    if diff.mismatch.differing:
        wrong, of = diff.mismatch.differing, diff.mismatch.compared
        ids = ", ".join(diff.mismatch.examples)
        found.append(f"the replay gives another answer than the log for {wrong:,} of {of:,} rows, such as {ids}")
    found += [
        f"{side.subject.name} lacks inputs of the rules {', '.join(side.left_out)}: left out"
        for side in (diff.before, diff.after)
        if side.left_out
    ]
    failed = sum(one.failed for one in diff.speed)
    return [*found, *([f"a model raised on {failed:,} rows"] if failed else []), *diff.notes]


def sections(diff: Diff, most: int = MOST) -> list[Section]:
    """The numbers, each table with at most so many rows."""
    changes, shift = diff.changes, diff.changes.shift
    found = []
    if diff.unsupported.rows:
        reasons = [{"reason": one.reason, "rows": one.rows} for one in diff.unsupported.reasons]
        found.append(Section("Not replayed", reasons, ("reason", "rows")))
    found.append(Section("Sides", _sides(diff), ("", "before", "after")))
    transitions = [
        {"before": one.before, "after": one.after, "rows": one.rows, "share": percent(one.rows / max(changes.rows, 1)),
         "labelled": one.labelled, "right before": one.right_before, "right after": one.right_after}
        for one in changes.transitions
    ]  # fmt: skip
    if diff.task == "regression":
        transitions = [
            {name: row[name] for name in ("before", "after", "rows", "share", "labelled")} for row in transitions
        ]
    found.append(Section("Decisions", transitions[:most], tuple(transitions[0] if transitions else ()), _labels(diff)))
    slices = [_slice(one) for one in changes.slices]
    if slices:
        said = "share that changes, with its 95 % interval; p: more or less than the rest; p net: helped against harmed"
        found.append(Section("Slices", slices[:most], tuple(slices[0]), said))
    if shift is not None:
        row = {"mean": shift.mean, **{f"q{name}": value for name, value in shift.quantiles.items()}}
        said = f"after minus before, over {shift.rows:,} rows that both models scored"
        found.append(Section("Score shift", [row], tuple(row), said))
    examples = [
        {"prediction": one.prediction_id, "row": one.row, "before": one.before, "after": one.after,
         "score before": one.score_before, "score after": one.score_after, "label": one.label}
        for one in changes.examples
    ]  # fmt: skip
    if examples:
        found.append(Section("Examples", examples[:most], tuple(examples[0]), "open one: interlock explain ID"))
    speed = [
        {"package": one.package_digest, "rows": one.rows, "rows/s": one.rows_per_second, "model µs a row": one.model_us}
        for one in diff.speed
    ]
    return [*found, Section("Replay", speed, tuple(speed[0]), _replayed(diff))]


def markdown(diff: Diff, digest: str) -> str:
    """For the comment of a pull request."""
    parts = [f"### {_title(diff)}", f"**{headline(diff)}**", *(f"> ⚠ {_flat(one)}" for one in warnings(diff))]
    for one in sections(diff, 10):
        rows = ["| " + " | ".join(_flat(text(row.get(name))) for name in one.columns) + " |" for row in one.rows]
        table = ["| " + " | ".join(one.columns) + " |", "|" + " --- |" * len(one.columns), *rows]
        parts += [f"#### {one.title}", *([_flat(one.note)] if one.note else []), "\n".join(table)]
    return "\n\n".join([*parts, f"{_range(diff)}. `{digest}`"])


def html(diff: Diff, digest: str) -> str:
    """One self-contained page."""
    charts = {"Slices": _slices_chart(diff), "Score shift": _shift_chart(diff)}
    body = [f"<h1>{escape(_title(diff))}</h1>", f"<p>{escape(_range(diff))}</p>"]
    body += [f'<p class="warn">{escape(one)}</p>' for one in warnings(diff)]
    body.append(f'<p class="head"><b>{escape(headline(diff))}</b></p>')
    for one in sections(diff, 10_000):
        body.append(f"<h2>{escape(one.title)}</h2><p>{escape(one.note)}</p>{charts.pop(one.title, '')}{_table(one)}")
    body.append(f"<footer>{escape(digest)}<br>made {escape(diff.created)}</footer>")
    head = f'<meta charset="utf-8"><title>{escape(_title(diff))}</title><style>{STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def percent(share: float) -> str:
    """A share as people read it."""
    return f"{100 * share:.3g} %"


def text(value: Any) -> str:
    """A cell."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return f"{value:,}"
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def _title(diff: Diff) -> str:
    names = [one.subject.name for one in (diff.before, diff.after)]
    return f"Decision diff at {diff.endpoint}: {names[0]} → {names[1]}"


def _range(diff: Diff) -> str:
    newest = f", the newest {diff.last:,}" if diff.last else ""
    return (
        f"{diff.requests:,} logged requests{newest}, {diff.first_event} to {diff.last_event}, snapshot {diff.snapshot}"
    )


def _sides(diff: Diff) -> list[dict[str, Any]]:
    def told(side: Side) -> dict[str, str]:
        rules = "; ".join(f"{rule.name}: {rule.then} when {rule.when}" for rule in side.rules)
        parameters = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in side.parameters.items()
        }
        return {
            "version": side.subject.name,
            "package": side.subject.package_digest,
            **parameters,
            "rules": rules or "none",
        }

    before, after = told(diff.before), told(diff.after)
    return [{"": name, "before": before[name], "after": after[name]} for name in before]


def _labels(diff: Diff) -> str:
    labels, value = diff.changes.labels, diff.changes.value
    said = f"{labels.labelled:,} rows have a label; net {labels.net:+,} (exact McNemar p = {labels.p:.2g})"
    if value is not None:
        said += f"; {value.column} of the {value.known:,} changed rows that have one: {value.changed:,.6g} in all"
        said += f", {value.helped:,.6g} helped, {value.harmed:,.6g} harmed"
    return said


def _slice(one: Slice) -> dict[str, Any]:
    return {
        "slice": f"{one.column} = {one.value}", "n": one.n, "changed": one.changed, "share": percent(one.share),
        "low": percent(one.low), "high": percent(one.high), "helped": one.helped, "harmed": one.harmed, "p": one.p,
        "p net": one.p_net, "verdict": one.verdict,
    }  # fmt: skip


def _replayed(diff: Diff) -> str:
    if not diff.mismatch.compared:
        return "no row was answered by side A under the same parameters and rules, so the log cannot check the replay"
    same = diff.mismatch.compared - diff.mismatch.differing
    return f"{same:,} of {diff.mismatch.compared:,} rows that side A answered then give the logged answer again"


def _flat(said: str) -> str:
    """Safe in a cell of Markdown."""
    return escape(said, quote=False).replace("|", "\\|").replace("`", "'").replace("\n", " ")


def _table(one: Section) -> str:
    lines = {name: [row.get(name) for row in one.rows] for name in one.columns}
    kinds = {
        name: ' class="n"' if all(isinstance(v, int | float) for v in values) else "" for name, values in lines.items()
    }
    heads = "".join(f"<th{kinds[name]}>{escape(name)}</th>" for name in one.columns)
    rows = "".join(
        f"<tr>{''.join(f'<td{kinds[name]}>{escape(text(row.get(name)))}</td>' for name in one.columns)}</tr>"
        for row in one.rows
    )
    return f"<table><tr>{heads}</tr>{rows}</table>"


def _shift_chart(diff: Diff) -> str:
    """A histogram; heights by the square root, because most rows hardly move."""
    shift = diff.changes.shift
    if shift is None:
        return ""
    wide, step = shift.high - shift.low, 640 / len(shift.counts)
    top = max(shift.counts) ** 0.5
    bars = "".join(
        f'<rect x="{i * step + 20:.1f}" y="{140 - 120 * count**0.5 / top:.1f}" width="{step - 1:.1f}" '
        f'height="{120 * count**0.5 / top:.1f}" fill="#4678a8"><title>{count:,} rows</title></rect>'
        for i, count in enumerate(shift.counts)
    )
    zero = 20 - 640 * shift.low / wide
    ends = {20.0: ("start", shift.low), 660.0: ("end", shift.high)}
    marks = "".join(f'<text x="{x:.0f}" y="156" text-anchor="{how}">{at:.3g}</text>' for x, (how, at) in ends.items())
    line = f'<line x1="{zero:.1f}" y1="12" x2="{zero:.1f}" y2="142" stroke="#b3402e" stroke-dasharray="3 3"/>'
    scale = '<text x="340" y="156" text-anchor="middle">rows, square-root scale; dashed: no shift</text>'
    return f'<svg viewBox="0 0 680 164" role="img" aria-label="score shift">{bars}{line}{marks}{scale}</svg>'


def _slices_chart(diff: Diff) -> str:
    """Share of changed decisions with its interval, a line a slice, beside all rows (dashed); red harmed, green helped."""
    shown = [one for one in diff.changes.slices if one.verdict != "too small"][:40]
    if not shown:
        return ""
    most = max(one.high for one in shown) or 1.0
    colours = {"harmed": "#b3402e", "helped": "#2e8b57"}
    lines = []
    for i, one in enumerate(shown):
        y, colour = 16 + 18 * i, colours.get(one.verdict, "#4678a8")
        low, at, high = (220 + 420 * share / most for share in (one.low, one.share, one.high))
        name = f"{one.column} = {one.value}"
        name = name if len(name) <= 34 else name[:33] + "…"
        lines.append(
            f'<text x="210" y="{y + 4}" text-anchor="end">{escape(name)}</text>'
            f'<line x1="{low:.1f}" y1="{y}" x2="{high:.1f}" y2="{y}" stroke="{colour}" stroke-width="2"/>'
            f'<circle cx="{at:.1f}" cy="{y}" r="4" fill="{colour}"><title>{percent(one.share)} of {one.n:,}</title></circle>'
        )
    end, overall = 16 + 18 * len(shown), 220 + 420 * min(diff.changes.changed.share / most, 1)
    lines.append(
        f'<line x1="{overall:.1f}" y1="6" x2="{overall:.1f}" y2="{end - 8}" stroke="#5b6875" stroke-dasharray="3 3"/>'
    )
    axis = f'<text x="220" y="{end + 8}">0 %</text><text x="640" y="{end + 8}" text-anchor="end">{percent(most)}</text>'
    return f'<svg viewBox="0 0 680 {end + 14}" role="img" aria-label="slices">{"".join(lines)}{axis}</svg>'
