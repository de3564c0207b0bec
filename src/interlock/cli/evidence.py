"""An evaluation as people read it: numbers with their intervals, beside the version in production and a naive guess."""

from __future__ import annotations

from interlock.cli.output import Columns, Part
from interlock.evaluation.diff import decode as decode_diff
from interlock.evaluation.diff_views import headline
from interlock.evaluation.loadtest import LoadTest
from interlock.evaluation.report import Report
from interlock.evaluation.report_views import METRIC_COLUMNS, about, decided, metric_rows, proof, slice_rows
from interlock.evaluation.skew import Skew
from interlock.registry.evidence import Evidence, decode
from interlock.release.standard import Verdict


def evidence(report: Report) -> list[Part]:
    """Rows, metrics, slices and the round-trip proof of a report, and what it says about decisions."""
    parts: list[Part] = [*about(report), "", Columns(metric_rows(report), METRIC_COLUMNS)]
    if report.slices:
        parts += ["", Columns(*slice_rows(report))]
    return [*parts, "", *decided(report), proof(report)]


def diff_line(name: str, found: Evidence | None) -> str:
    """The newest decision diff in one sentence, with its digest."""
    if found is None:
        return f"decision diff: none yet (interlock diff CHAMPION {name})"
    return f"decision diff: {headline(decode_diff(found.document))}; {found.digest}"


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


def standard_line(verdict: Verdict | None) -> str:
    """What the release standard says of the newest evidence, in one sentence."""
    if verdict is None:
        return "release standard: there is none in interlock.toml"
    if verdict.passed:
        return f"release standard: met, {len(verdict.rules)} rules"
    said = "; ".join(f"{one.rule}: {one.sentence}" for one in verdict.failed)
    return f"release standard: NOT met, {len(verdict.failed)} of {len(verdict.rules)} rules fail: {said}"
