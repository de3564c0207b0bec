"""The model card: Markdown with the YAML head that Hugging Face reads."""

from __future__ import annotations

import re
from typing import Any

from interlock.evaluation.charts import number
from interlock.evaluation.metrics import metrics_of
from interlock.evaluation.report_views import Dossier, Row, about, decided, metric_rows, proof, slice_rows

_TASK = {"binary": "tabular-classification", "multiclass": "tabular-classification", "regression": "tabular-regression"}


def card(dossier: Dossier) -> str:
    """The card of a version. The project states neither license nor language, so the head names none."""
    import yaml

    report, manifest = dossier.report, dossier.manifest
    lineage = manifest.lineage
    rows = [row for row in metric_rows(report) if row["this"] is not None]
    other = ("other",) if report.against else ()
    inputs = [
        {"input": one.name, "type": one.type, "may be missing": "yes" if one.nullable else "no"}
        for one in manifest.signature.inputs
    ]
    tables = _text(", ".join(lineage.sources) or "an extract")
    parts = [
        f"---\n{yaml.safe_dump(head(dossier), sort_keys=False, allow_unicode=True)}---",
        f"# {report.subject.name}",
        f"Trained by {_text(manifest.author.name)} on {lineage.split.rows.get('train', 0)} rows of {tables}. "
        f"Package `{dossier.package_digest}`, evaluation `{dossier.digest}`.",
        *(_text(line) for line in about(report)),
        "## Inputs",
        _table(inputs, ("input", "type", "may be missing")),
        "## Metrics",
        _table(rows, ("metric", "this", "interval", *other, "naive")),
        *(_text(line) for line in decided(report)),
        _text(proof(report)),
    ]
    if report.slices:
        parts += ["## Slices", _table(*slice_rows(report))]
    return "\n\n".join(parts) + "\n"


def head(dossier: Dossier) -> dict[str, Any]:
    """What the YAML says."""
    report, manifest = dossier.report, dossier.manifest
    task = _TASK[report.task]
    names = [name for name in metrics_of(report.task) if name in report.metrics]
    measured = [{"type": name, "value": report.metrics[name], "name": name} for name in names]
    data = {
        "type": "extract",
        "name": manifest.lineage.extract or manifest.model,
        "revision": report.rows.extract_digest,
        "split": "test",
    }
    result = {"task": {"type": task}, "dataset": data, "metrics": measured}
    return {
        "library_name": manifest.runtime.name,
        "pipeline_tag": task,
        "tags": ["tabular", report.task, manifest.runtime.name, "interlock"],
        "metrics": names,
        "model-index": [{"name": report.subject.name, "results": [result]}],
    }


def _table(rows: list[Row], columns: tuple[str, ...]) -> str:
    lines = [columns, ("---",) * len(columns), *([_cell(row.get(name)) for name in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    return "" if value is None else number(value) if isinstance(value, float) else _text(str(value))


def _text(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", text).replace("\n", " ")
