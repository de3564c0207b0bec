"""An evaluation with all that surrounds it as one HTML file, and as a model card in Markdown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from interlock.evaluation import page
from interlock.evaluation.charts import Spec, chart, layer, number
from interlock.evaluation.confusion import Confusion, Table
from interlock.evaluation.fairness import Fairness
from interlock.evaluation.metrics import metrics_of
from interlock.evaluation.report import Report
from interlock.model.manifest import Manifest

MAX_SLICES = 40
Row = dict[str, Any]


class Dossier(msgspec.Struct, frozen=True):
    """What a reviewer needs: the report under its digest, the package's manifest, the code in it, what was said so far."""

    report: Report
    digest: str
    label: str
    manifest: Manifest
    package_digest: str
    sources: Mapping[str, str]
    """What it is → source text that the model server runs."""
    decisions: Sequence[Mapping[str, Any]]
    rules: Sequence[Mapping[str, Any]] = ()
    """Of the release standard, with their verdicts."""


def html(dossier: Dossier) -> str:
    """One self-contained page; nothing is fetched, every text is escaped."""
    return page.page(dossier.report.subject.name, _body(dossier))


def metric_rows(report: Report) -> list[Row]:
    """Each metric with its interval, beside the other version and a naive guess."""
    pairs = {one.metric: one for one in report.paired}
    rows = []
    for name, metric in metrics_of(report.task).items():
        pair, own = pairs.get(name), report.intervals.get(name)
        rows.append(
            {
                "metric": name,
                "better": {"higher": "↑", "lower": "↓", "none": ""}[metric.direction],
                "this": report.metrics.get(name),
                "interval": span(own.low, own.high) if own else None,
                "other": report.against_metrics.get(name),
                "difference": pair.effect if pair else None,
                "low": pair.low if pair else None,
                "high": pair.high if pair else None,
                "p": pair.p if pair else None,
                "naive": report.baseline.get(name),
            }
        )
    return rows


RULE_COLUMNS = ("rule", "verdict", "value", "low", "high", "limit", "n", "sentence")
METRIC_COLUMNS = ("metric", "better", "this", "interval", "other", "difference", "low", "high", "p", "naive")


def slice_rows(report: Report) -> tuple[list[Row], tuple[str, ...]]:
    """Each slice with the first metric of the task, and the columns."""
    shown = next(iter(metrics_of(report.task)))
    rows = [
        {
            "slice": f"{one.column} = {one.value}",
            "n": one.n,
            "positives": one.positives,
            shown: one.metrics.get(shown),
            f"{shown} other": (one.champion or {}).get(shown),
            "verdict": one.verdict,
        }
        for one in report.slices
    ]
    return rows, ("slice", "n", "positives", shown, f"{shown} other", "verdict")


def span(low: float, high: float) -> str:
    """An interval as text."""
    return f"{number(low)} to {number(high)}"


def figures(report: Report) -> dict[str, Spec]:
    """The charts of a report by name, those that it has numbers for."""
    return dict((*_curves(report), *_bars(report)))


def _curves(report: Report) -> Iterator[tuple[str, Spec]]:
    if report.reliability:
        rows = msgspec.to_builtins(report.reliability)
        ends = [min(row["said"] for row in rows), max(row["said"] for row in rows)]
        layers = [
            layer("line", [{"said": end, "seen": end} for end in ends], x="said", y="seen", color="#999999", dash=True),
            layer("rule", rows, x="said", y="low", y2="high"),
            layer("point", rows, x="said", y="seen"),
        ]
        said, seen = {
            "binary": ("mean score of the bin", "share that was positive"),
            "multiclass": ("mean probability of the label given", "share that was right"),
            "regression": ("mean answer of the bin", "mean truth"),
        }[report.task]
        yield "calibration", chart("Calibration, ten bins of equal size", said, seen, layers)
    if report.thresholds:
        points = msgspec.to_builtins(report.thresholds.points)
        deployed = layer("rule", [{"threshold": report.threshold}], x="threshold", color="#222222", dash=True)
        lines = [
            layer("line", points, x="threshold", y=name, name=name) for name in ("precision", "recall", "selected")
        ]
        title = f"Thresholds; deployed is {number(report.threshold)}"
        yield "thresholds", chart(title, "threshold", "share of rows", [*lines, deployed], zero=True)
        if report.thresholds.cheapest:
            best = report.thresholds.cheapest
            ends = [{"low": best.interval.low, "high": best.interval.high, "cost": best.cost, "at": best.threshold}]
            layers = [
                layer("line", points, x="threshold", y="cost"),
                layer("rule", ends, x="low", x2="high", y="cost", color="#e45756"),
                layer("point", ends, x="at", y="cost", color="#e45756"),
                deployed,
            ]
            title = f"Cost; cheapest at {number(best.threshold)}, deployed {number(report.threshold)}"
            yield "cost", chart(title, "threshold", "cost a row", layers, zero=True)


def _bars(report: Report) -> Iterator[tuple[str, Spec]]:
    metric = next(iter(metrics_of(report.task)))
    changes = [
        {"slice": f"{one.column} = {one.value}", "effect": change.effect, "low": change.low, "high": change.high}
        for one in report.slices
        for change in one.changes
        if change.metric == metric
    ][:MAX_SLICES]
    if changes and report.against:
        layers = [
            layer("rule", changes, x="low", x2="high", y="slice"),
            layer("point", changes, x="effect", y="slice"),
            layer("rule", [{"nothing": 0.0}], x="nothing", color="#222222", dash=True),
        ]
        title = f"{metric} by slice: difference to {report.against.name}"
        yield "slices", chart(title, f"difference in {metric}", "", layers, nominal=True, zero=True)
    found = report.importance
    known = [one for one in found.inputs if one.worse is not None][:MAX_SLICES] if found else []
    if found and known:
        rows = [
            {
                "input": one.input,
                "worse": one.worse,
                "low": (one.worse or 0) - (one.sd or 0),
                "high": (one.worse or 0) + (one.sd or 0),
            }
            for one in known
        ]
        layers = [
            layer("bar", rows, x="worse", y="input"),
            layer("rule", rows, x="low", x2="high", y="input", color="#222222"),
        ]
        yield (
            "importance",
            chart("Worse when shuffled", f"{found.metric} gets worse by", "", layers, nominal=True, zero=True),
        )


def _body(dossier: Dossier) -> Iterator[str]:
    report, manifest = dossier.report, dossier.manifest
    drawn = {name: page.figure(spec) for name, spec in figures(report).items()}
    yield page.heading(f"{report.subject.name} {dossier.label}", 1)
    for line in about(report):
        yield page.paragraph(line, quiet=True)
    for line in decided(report):
        yield page.paragraph(line)
    yield page.paragraph(f"evaluation {dossier.digest}, package {dossier.package_digest}", quiet=True)
    if dossier.rules:
        yield page.heading("Release standard")
        yield page.table(dossier.rules, RULE_COLUMNS)
    yield page.heading("Metrics")
    yield page.table(metric_rows(report), METRIC_COLUMNS)
    yield page.paragraph(
        "Intervals are 95 %. Differences are paired, on identical rows; naive knows only the training labels.",
        quiet=True,
    )
    yield page.heading("Calibration and thresholds") + "".join(
        drawn.get(name, "") for name in ("calibration", "thresholds", "cost")
    )
    if report.residuals:
        yield page.table([{"answer - truth": "quantile", **report.residuals}], ("answer - truth", *report.residuals))
    if report.confusion:
        yield page.heading("Confusion") + _confusion(report.confusion)
    if report.slices:
        yield page.heading("Slices") + drawn.get("slices", "") + page.table(*slice_rows(report))
    if report.disagreements:
        yield page.heading("Where the two disagree most")
        yield page.table(
            msgspec.to_builtins(report.disagreements), tuple(msgspec.structs.asdict(report.disagreements[0]))
        )
    yield page.heading("What the answers rest on") + drawn.get("importance", "")
    if found := report.importance:
        yield page.table(msgspec.to_builtins(found.inputs), ("input", "worse", "sd"))
        yield page.paragraph(
            f"{found.rows} held-out rows, shuffled {found.repeats} times; inputs that tell the same share their worth.",
            quiet=True,
        )
    if report.fairness:
        yield page.heading(f"Fairness by {report.fairness.column}")
        yield page.table(
            msgspec.to_builtins(report.fairness.groups),
            ("value", "n", "positives", "selected", "recall", "false_alarms", "verdict"),
        )
    if report.shifts:
        yield page.heading("Training data against the other version's")
        yield page.table(msgspec.to_builtins(report.shifts), ("input", "psi", "null", "n", "verdict", "detail"))
    yield page.heading("Lineage") + page.table(_lineage(manifest), ("what", "value"))
    yield page.heading("Round trip") + page.paragraph(proof(report))
    for what, text in dossier.sources.items():
        yield page.heading(what) + page.source(text)
    yield page.heading("Decisions so far")
    yield (
        page.table(dossier.decisions, ("time", "decision", "scope", "approver", "reason"))
        if dossier.decisions
        else "<p>none</p>"
    )


def about(report: Report) -> list[str]:
    """Which rows, and what it is compared with."""
    rows, against = report.rows, report.against
    left = f", {rows.left_out} left out that the other was trained on" if rows.left_out else ""
    alone = "nothing to compare with" + (f": {report.note}" if report.note else "")
    unseen = "held-out rows" if report.caveat else "rows that it has not seen"
    return [
        f"{report.subject.name} on {rows.n} {unseen}, {rows.first} to {rows.last}{left}",
        *([report.caveat] if report.caveat else []),
        f"compared with {against.name} on the same rows" if against else alone,
    ]


def decided(report: Report) -> list[str]:
    """What the numbers say about decisions, inputs and groups, a sentence each."""
    said = []
    table = report.confusion
    if table and len(table.classes) == 2:
        counts = (("right alarms", 1, 1), ("false alarms", 0, 1), ("missed", 1, 0))
        parts = []
        for what, truth, label in counts:
            n = table.counts[truth][label]
            parts.append(f"{n} {what}" + (f" ({n - table.champion[truth][label]:+d})" if table.champion else ""))
        said.append(f"at the deployed threshold {number(report.threshold)}: {', '.join(parts)}")
    if report.thresholds and (best := report.thresholds.cheapest):
        here, less = best.interval, best.saving_interval
        said.append(
            f"cheapest threshold {number(best.threshold)} ({span(here.low, here.high)}): {number(best.cost)} a row, "
            f"{number(best.saving)} less than as deployed ({span(less.low, less.high)})"
        )
    if report.importance:
        first = [f"{one.input} {number(one.worse)}" for one in report.importance.inputs[:5] if one.worse is not None]
        said.append(f"{report.importance.metric} gets worse when shuffled: {', '.join(first)}")
    if report.fairness:
        said.append(_fair(report.fairness))
    if report.shifts:
        moved = [one for one in report.shifts if one.verdict not in ("alike", "too small")]
        told = (f"{one.input} {one.verdict}" + (f" (PSI {one.psi:.2g})" if one.psi else "") for one in moved[:5])
        said.append(f"training data: {', '.join(told) or 'no input moved'}")
    return said


def _fair(found: Fairness) -> str:
    small = [one.value for one in found.groups if one.verdict == "too small"]
    left = f"; too small to judge: {', '.join(small)}" if small else ""
    if found.selection_ratio is None or found.equalised_odds is None:
        return f"fairness by {found.column}: fewer than two groups are large enough to compare{left}"
    ratio, odds = found.selection_ratio, found.equalised_odds
    return (
        f"fairness by {found.column}: selection ratio {number(ratio.value)} "
        f"({span(ratio.interval.low, ratio.interval.high)}), equalised-odds difference {number(odds.value)} "
        f"({span(odds.interval.low, odds.interval.high)}){left}"
    )


def proof(report: Report) -> str:
    """The round trip in a sentence."""
    found = report.proof
    if found is None:
        return "round trip: not proved"
    word = "equal" if found.passed else "DIFFERENT"
    spread = f"worst {found.worst:.2g}, allowed {found.rtol:g}"
    return (
        f"round trip: {found.rows} raw rows by {' and '.join(found.codecs)} through a model server: {word} ({spread})"
    )


def _confusion(found: Confusion) -> str:
    def shown(table: Table) -> str:
        rows = [
            {"truth": name, **dict(zip(found.classes, row, strict=True))}
            for name, row in zip(found.classes, table, strict=True)
        ]
        return page.table(rows, ("truth", *found.classes))

    text = page.paragraph("Rows by truth (down) and label given (across).", quiet=True) + shown(found.counts)
    if found.champion is None:
        return text
    pairs = zip(found.counts, found.champion, strict=True)
    apart = tuple(tuple(a - b for a, b in zip(ours, theirs, strict=True)) for ours, theirs in pairs)
    return text + page.paragraph("Difference to the other version:", quiet=True) + shown(apart)


def _lineage(manifest: Manifest) -> list[Row]:
    lineage, split = manifest.lineage, manifest.lineage.split
    libraries = ", ".join(f"{name} {version}" for name, version in manifest.libraries.items())
    told = {
        "author": manifest.author.name, "created": manifest.created, "run": lineage.run, "commit": lineage.git_commit,
        "extract": lineage.extract_digest, "snapshot": lineage.snapshot, "tables": ", ".join(lineage.sources),
        "variables": str(lineage.variables or ""), "rows": str(split.rows), "split": f"{split.kind}, {split.digest}",
        "recipe": f"{lineage.recipe}, {lineage.recipe_digest}", "parameters": str(lineage.parameters or ""),
        "python": manifest.python, "libraries": libraries, "SQL": lineage.sql,
    }  # fmt: skip
    return [{"what": what, "value": value} for what, value in told.items() if value not in (None, "")]
