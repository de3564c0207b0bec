"""How every benchmark reports: a table for people, JSON with the machine's facts for comparison."""

from __future__ import annotations

import json
import os
import platform
import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).with_name("results")


def spread(values: list[float]) -> dict[str, float]:
    """Median, smallest and largest of repeated runs."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def publish(name: str, rows: list[dict[str, Any]]) -> None:
    """Print the rows and write them to `bench/results/<name>.json`."""
    columns = list(rows[0])
    cells = [columns] + [[_cell(row[column]) for column in columns] for row in rows]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    print(f"\n{name}")
    for line in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))
    facts = {"at": datetime.now(UTC).isoformat(), "python": platform.python_version(), "cores": os.cpu_count()}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"machine": facts, "rows": rows}, indent=1) + "\n")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return f"{value['median']:,.1f} ({value['min']:,.1f}..{value['max']:,.1f})"
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
