"""The frame of a self-contained HTML page: nothing is fetched, nothing runs, and every text is escaped on its way in."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any

from interlock.evaluation.charts import Spec, draw, number

STYLE = """
body { font: 14px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.6rem; margin-bottom: .2rem } h2 { font-size: 1.15rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd }
table { border-collapse: collapse; margin: .6rem 0; font-variant-numeric: tabular-nums; display: block; overflow-x: auto }
th, td { text-align: left; padding: .18rem .9rem .18rem 0; border-bottom: 1px solid #eee; white-space: nowrap }
th { font-weight: 600; color: #555 } td.number, th.number { text-align: right }
td.text { white-space: normal; max-width: 34rem; overflow-wrap: anywhere }
pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; font-size: 12px } .quiet { color: #666 }
.bad { color: #b3261e; font-weight: 600 } .good { color: #1b7837; font-weight: 600 }
figure { display: inline-block; margin: .4rem 1rem .4rem 0; vertical-align: top } figcaption { font-weight: 600 }
svg { max-width: 100%; height: auto } p { margin: .35rem 0 }
"""
_TONES = {
    "worse": "bad", "moved": "bad", "reject": "bad", "fail": "bad", "unknown": "bad", "better": "good", "approve": "good",
    "pass": "good", "too small": "quiet", "skipped": "quiet",
}  # fmt: skip


def page(title: str, body: Iterable[str]) -> str:
    """The document around a body that is HTML already."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f'<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head>'
        f"<body>\n{''.join(part + chr(10) for part in body)}</body></html>\n"
    )


def heading(text: str, level: int = 2) -> str:
    """A heading."""
    return f"<h{level}>{escape(text)}</h{level}>"


def paragraph(text: str, *, quiet: bool = False) -> str:
    """A paragraph of plain text."""
    return f"<p{' class=quiet' if quiet else ''}>{escape(text)}</p>"


def source(text: str) -> str:
    """Source code as it is."""
    return f"<pre>{escape(text)}</pre>"


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Rows under their headings: numbers to the right, verdicts in their colour, nothing for None."""
    numeric = {
        name for name in columns if rows and all(type(row.get(name)) in (int, float, type(None)) for row in rows)
    }
    mark = {name: " class=number" if name in numeric else "" for name in columns}
    head = "".join(f"<th{mark[name]}>{escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(_cell(row.get(name), name in numeric) for name in columns) + "</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{body}</table>"


def figure(spec: Spec) -> str:
    """A chart, drawn, with its Vega-Lite specification inside for other tools."""
    data = json.dumps(spec, separators=(",", ":")).replace("<", "\\u003c")
    return (
        f"<figure><figcaption>{escape(spec['title'])}</figcaption>{draw(spec)}"
        f'<script type="application/vnd.vegalite+json">{data}</script></figure>'
    )


def _cell(value: Any, numeric: bool) -> str:
    if numeric:
        shown = "" if value is None else number(value) if isinstance(value, float) else f"{value:,}"
        return f"<td class=number>{shown}</td>"
    text = "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)
    tone = _TONES.get(text) or ("text" if len(text) > 40 else "")
    return f"<td{f' class={chr(34)}{tone}{chr(34)}' if tone else ''}>{escape(text)}</td>"
