"""An evaluation as people read it: numbers with their intervals, beside the version in production and a naive guess."""

from __future__ import annotations

from interlock.cli.output import Columns, Part
from interlock.evaluation.report import Report
from interlock.evaluation.report_views import METRIC_COLUMNS, about, decided, metric_rows, proof, slice_rows


def evidence(report: Report) -> list[Part]:
    """Rows, metrics, slices and the round-trip proof of a report, and what it says about decisions."""
    parts: list[Part] = [*about(report), "", Columns(metric_rows(report), METRIC_COLUMNS)]
    if report.slices:
        parts += ["", Columns(*slice_rows(report))]
    return [*parts, "", *decided(report), proof(report)]
