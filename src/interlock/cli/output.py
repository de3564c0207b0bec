"""The one place that prints: tables and sentences for people, one JSON document for programs, progress on stderr."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec


@dataclass(frozen=True)
class Columns:
    """Rows as a table: heading → one cell a row."""

    rows: Sequence[Mapping[str, Any]]
    columns: Sequence[str]


Part = str | Columns


@dataclass(frozen=True)
class Reply:
    """What a command has to say, once for programs (`document`) and once for people (`text`, `next`)."""

    document: Any
    text: Sequence[Part] = ()
    next: str = ""
    """The command that a newcomer would type now; may have several lines."""
    failed: bool = False
    """The command worked and found something wrong: exit code 1."""


def items(rows: Sequence[Mapping[str, Any]], columns: Sequence[str], *, empty: str, next: str = "") -> Reply:
    """A list: `{"items": rows}`, or a table of the named columns, or the sentence `empty`."""
    return Reply({"items": list(rows)}, (Columns(rows, columns),) if rows else (empty,), next)


def show(reply: Reply, *, as_json: bool) -> None:
    """Print a reply on stdout."""
    if as_json:
        _print_json(reply.document)
        return
    for part in reply.text:
        print(part) if isinstance(part, str) else _print_table(part)
    if reply.next:
        first, *more = reply.next.splitlines()
        print(f"\nNext:  {first}")
        for line in more:
            print(f"       {line}")
    sys.stdout.flush()


def fail(code: str, message: str, step: str, *, as_json: bool) -> None:
    """Print why a command failed: on stdout as JSON, else a sentence and the next step on stderr."""
    if as_json:
        _print_json({"error": {"code": code, "message": message, "next": step}})
        return
    print(f"error: {message}", file=sys.stderr)
    if step:
        print(f"next:  {step}", file=sys.stderr)


def progress(text: str) -> None:
    """A line for the person who waits; never on stdout."""
    print(text, file=sys.stderr, flush=True)


def _print_json(document: Any) -> None:
    print(msgspec.json.encode(document).decode(), flush=True)


def _print_table(table: Columns) -> None:
    from rich import box
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(width=None if sys.stdout.isatty() else 200, highlight=False)
    drawn = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for name in table.columns:
        numbers = all(isinstance(row.get(name), int | float) for row in table.rows)
        drawn.add_column(name, justify="right" if numbers else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*(escape(cell(row.get(name))) for name in table.columns))
    console.print(drawn)


def cell(value: Any) -> str:
    """A value as people read it: nothing for None, five significant digits, a list with commas."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.5g}"
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value)
    return str(value)
