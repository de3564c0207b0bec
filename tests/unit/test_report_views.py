"""The HTML file and the model card of a report: whole, readable by other tools, and safe with hostile names."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import msgspec
import numpy as np
import pytest
import yaml
from tests.unit.test_held_out import manifest as manifest_of
from tests.unit.test_held_out import rows

from interlock.core.settings import CostSettings
from interlock.evaluation.card import card
from interlock.evaluation.evaluate import Choices, judge
from interlock.evaluation.held_out import held_out
from interlock.evaluation.importance import Drop, Importance
from interlock.evaluation.report import Report, Subject
from interlock.evaluation.report_views import Dossier, figures, html
from interlock.evaluation.shift import Shift

HOSTILE = "<script>alert(1)</script>|`\n\"'&---: *x* [a](http://evil.example)"


class Reader(HTMLParser):
    """What a browser would run or fetch, and what is left open."""

    VOID = ("meta", "line", "rect", "circle", "polyline", "br")

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.told: list[tuple[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.told += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.told += attrs

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report() -> Report:
    frame = rows(0, 2000)
    frame["plan"] = np.where(frame["plan"] == "gold", HOSTILE, "free")
    found = held_out(manifest_of(frame), frame)
    numbers = np.linspace(0.01, 0.99, len(found.table))[:, None]
    choices = Choices(0.5, ("plan",), CostSettings(fp=1, fn=2), "plan")
    made = judge(Subject("churn", 2, "sha256:p"), manifest_of(frame), found, numbers, numbers[::-1], choices)
    importance = Importance("auc", 400, 3, (Drop("amount", 0.2, 0.01), Drop(HOSTILE, None, None)))
    against = Subject("churn", 1, "sha256:q")
    moved = (Shift(HOSTILE, 0.4, 0.01, 1400, "moved"),)
    return msgspec.structs.replace(made, against=against, importance=importance, shifts=moved)


@pytest.fixture(scope="module")
def dossier() -> Dossier:
    said = [{"time": "2026-11-01", "decision": "reject", "scope": "serve", "approver": "rob", "reason": HOSTILE}]
    sources = {"Feature function": f"def f(raw): # {HOSTILE}"}
    return Dossier(report(), "sha256:e", "0.0.1-1.aa", manifest_of(rows(0, 2000)), "sha256:p", sources, said)


def test_the_page_is_whole_and_safe(dossier: Dossier) -> None:
    text = html(dossier)
    reader = Reader()
    reader.feed(text)
    assert reader.open == []
    assert "alert(1)" in text
    kinds = re.findall(r"<script[^>]*>", text)
    assert set(kinds) == {'<script type="application/vnd.vegalite+json">'}
    assert not {name for name, _ in reader.told} & {
        "src",
        "href",
        "srcset",
        "xlink:href",
        "onload",
        "onclick",
        "action",
    }
    assert reader.tags.count("svg") == len(figures(dossier.report)) == 5
    headings = re.findall(r"<h2>(.*?)</h2>", text)
    assert headings == [
        "Metrics", "Calibration and thresholds", "Confusion", "Slices", "Where the two disagree most", "What the answers rest on",
        "Fairness by plan", "Training data against the other version&#x27;s", "Lineage", "Round trip", "Feature function",
        "Decisions so far",
    ]  # fmt: skip


def test_a_report_of_the_first_format_has_a_page_and_a_card(dossier: Dossier) -> None:
    bare: dict[str, Any] = {
        "intervals": {}, "reliability": (), "thresholds": None, "confusion": None, "disagreements": (), "importance": None,
        "fairness": None, "shifts": (), "against": None,
    }  # fmt: skip
    old = msgspec.structs.replace(dossier, report=msgspec.structs.replace(dossier.report, **bare))
    reader = Reader()
    reader.feed(html(old))
    assert reader.open == []
    assert "| auc | 0." in card(old)


def test_the_cards_head_is_what_hugging_face_reads(dossier: Dossier) -> None:
    hostile = msgspec.structs.replace(dossier.manifest, model="x: [y]")
    text = card(msgspec.structs.replace(dossier, manifest=hostile))
    _, head, body = text.split("---\n", 2)
    told = yaml.safe_load(head)
    assert told["pipeline_tag"] == "tabular-classification"
    (entry,) = told["model-index"]
    (result,) = entry["results"]
    assert result["dataset"] == {"type": "extract", "name": "x: [y]", "revision": "sha256:e", "split": "test"}
    assert {one["type"]: one["value"] for one in result["metrics"]} == dossier.report.metrics
    assert told["metrics"] == [one["type"] for one in result["metrics"]]
    assert "<script>" not in body
    assert "# churn:2" in body
    rows_of_slices = [line for line in body.splitlines() if "plan = " in line and line.startswith("|")]
    assert len(rows_of_slices) == 2
    assert all(len(re.findall(r"(?<!\\)\|", line)) == 7 for line in rows_of_slices)
