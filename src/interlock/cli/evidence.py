"""An evaluation as people read it: numbers with their intervals, beside the version in production and a naive guess."""

from __future__ import annotations

from typing import Any

from interlock.cli.output import Columns, Part
from interlock.evaluation.loadtest import LoadTest
from interlock.evaluation.metrics import metrics_of
from interlock.evaluation.report import Report
from interlock.evaluation.skew import Skew
from interlock.registry.evidence import Evidence, decode


def evidence(report: Report) -> list[Part]:
    """Rows, metrics, slices and the round-trip proof of a report."""
    rows, against = report.rows, report.against
    left = f", {rows.left_out} left out that the other was trained on" if rows.left_out else ""
    alone = "nothing to compare with" + (f": {report.note}" if report.note else "")
    compared = f"compared with {against.name} on the same rows" if against else alone
    parts: list[Part] = [
        f"{report.subject.name} on {rows.n} rows that it has not seen, {rows.first} to {rows.last}{left}",
        compared,
        "",
        Columns(_metrics(report), ("metric", "better", "this", "other", "difference", "low", "high", "p", "naive")),
    ]
    if report.slices:
        shown = next(iter(metrics_of(report.task)))
        heads = ("slice", "n", "positives", shown, f"{shown} other", "verdict")
        parts += ["", Columns(_slices(report, shown), heads)]
    return [*parts, "", _proof(report)]


def loadtest_line(name: str, found: Evidence | None) -> str:
    """The newest load test in one sentence, with its digest."""
    if found is None:
        return f"load test: none yet (interlock loadtest {name})"
    test = decode(found, LoadTest)
    main = ", ".join(f"p99 {one.p99_ms:.3g} ms at {one.rate:g}/s" for one in test.steps if one.name != "search")
    return f"load test: {main}; the deadline of {test.load.deadline_s:g} s breaks {test.limit}; {found.digest}"


def skew_line(name: str, found: Evidence | None) -> str:
    """The newest skew check in one sentence, with its digest."""
    if found is None:
        return f"skew: not checked yet (interlock skew {name})"
    check = decode(found, Skew)
    differing = [f"{one.name} in {one.share:.3g} of {one.n}" for one in check.inputs if one.mismatched]
    said = f"differs: {', '.join(differing)}" if differing else "no input differs"
    return f"skew: {said}; {check.found} of {check.rows} logged rows were in the extract; {found.digest}"


def _metrics(report: Report) -> list[dict[str, Any]]:
    pairs = {one.metric: one for one in report.paired}
    rows = []
    for name, metric in metrics_of(report.task).items():
        pair = pairs.get(name)
        rows.append(
            {
                "metric": name,
                "better": {"higher": "↑", "lower": "↓", "none": ""}[metric.direction],
                "this": report.metrics.get(name),
                "other": report.against_metrics.get(name),
                "difference": pair.effect if pair else None,
                "low": pair.low if pair else None,
                "high": pair.high if pair else None,
                "p": pair.p if pair else None,
                "naive": report.baseline.get(name),
            }
        )
    return rows


def _slices(report: Report, shown: str) -> list[dict[str, Any]]:
    return [
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


def _proof(report: Report) -> str:
    proof = report.proof
    if proof is None:
        return "round trip: not proved"
    word = "equal" if proof.passed else "DIFFERENT"
    spread = f"worst {proof.worst:.2g}, allowed {proof.rtol:g}"
    return (
        f"round trip: {proof.rows} raw rows by {' and '.join(proof.codecs)} through a model server: {word} ({spread})"
    )
