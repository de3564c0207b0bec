"""From a table somebody brought to the settings of a project: what each column is, what to leave out, and why.

Every guess carries its reason, so that `interlock init` can write it as a comment beside what a person may change.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal

import msgspec
import pyarrow as pa
import pyarrow.compute as pc

from interlock.core.errors import InvalidData, NotFound
from interlock.core.settings import Logical, Task
from interlock.model.signature import twins
from interlock.warehouse.session import quoted

CATEGORY_VALUES = 200
"""Text with more different values is `string`."""
CLASSES = 20
"""A label with more different values is no class."""
SHOWN = 6
LEAK = 0.995
"""A column that tells this share of the labels, where guessing the most frequent one tells clearly less, knows too much."""
SPEAKING = 4
"""A shorter label may be part of any name."""
POSITIVE = ("yes", "y", "true", "t", "1", "positive", "pos")
ID_NAME = re.compile(r"(^|[^a-z])(id|uuid|guid|key|no|nr|number)$|[a-z](Id|ID|UUID)$", re.IGNORECASE)


class Seen(msgspec.Struct, frozen=True):
    """A column as it came: its numbers."""

    name: str
    kind: Literal["float", "int", "bool", "text", "time", "local time", "date", "other"]
    """`local time`: without a zone."""
    rows: int
    nulls: int
    distinct: int
    """Different values, nulls not counted."""


class Guess(msgspec.Struct, frozen=True):
    """A column that goes into the model."""

    name: str
    type: Logical
    nullable: bool
    why: str


class LeftOut(msgspec.Struct, frozen=True):
    """A column that does not, and why."""

    name: str
    why: str


class Plan(msgspec.Struct, frozen=True):
    """What `interlock.toml` and the recipe are written from."""

    task: Task
    task_why: str
    positive: str | None
    """Only where it is not the last in order."""
    id: str
    id_why: str
    unit: str
    """The id, where it is a column of the file."""
    event_time: str
    event_time_why: str
    split: Literal["time", "random"]
    inputs: tuple[Guess, ...]
    left_out: tuple[LeftOut, ...]
    sql: str


def guess(rows: pa.Table, table: str, label: str, time: str = "") -> Plan:
    """Guess from the rows of the warehouse table `table`.

    Raises:
        NotFound: there is no such column.
        InvalidData: the label cannot be learnt, `time` holds no times, or nothing is left to learn from.
    """
    for name in (label, time):
        if name and name not in rows.column_names:
            raise NotFound(f"{table} has no column {name} (there: {', '.join(rows.column_names)})")
    seen = {name: _look(name, rows[name]) for name in rows.column_names}
    task, task_why, positive = _task(seen[label], rows[label])
    if time and seen[time].kind not in ("time", "local time", "date"):
        raise InvalidData(
            f"{time} holds no times that can be read: {rows[time].type}", next="use ISO 8601, as in 2026-01-31 14:05:00"
        )
    identity, id_why = _identity([one for one in seen.values() if one.name not in (label, time)], rows)
    known = rows.filter(pc.is_valid(rows[label]))
    inputs: list[Guess] = []
    left_out: list[LeftOut] = []
    for name in rows.column_names:
        if name in (label, time, identity):
            continue
        why = _reason_to_leave(seen[name], known, label, time, task)
        if not why and (twin := twins([*(one.name for one in inputs), name])):
            why = f"{twin[0]} are one name to the warehouse"
        if why:
            left_out.append(LeftOut(name, why))
        else:
            inputs.append(_input(seen[name]))
    if not inputs:
        reasons = "; ".join(f"{one.name}: {one.why}" for one in left_out)
        raise InvalidData(f"{table} has no column to learn from. {reasons}", next="add columns to the file")
    plan = Plan(
        task=task,
        task_why=task_why,
        positive=positive,
        id=identity or _free("row_id", seen),
        id_why=id_why,
        unit=identity,
        event_time=time or _free("event_time", seen),
        event_time_why=_time_why(seen.get(time)),
        split="time" if time else "random",
        inputs=tuple(inputs),
        left_out=tuple(left_out),
        sql="",
    )
    return msgspec.structs.replace(plan, sql=_sql(plan, seen, table, label, identity, time))


def inputs_of(rows: pa.Table) -> tuple[Guess, ...]:
    """What every column is as a raw input.

    Raises:
        InvalidData: one is no input, or empty.
    """
    found = [_look(name, rows[name]) for name in rows.column_names]
    for one in found:
        if one.kind == "other" or one.distinct == 0:
            raise InvalidData(
                f"column {one.name} is "
                + ("empty" if one.distinct == 0 else f"of type {rows[one.name].type}, no input"),
                next="leave it out, or give more rows",
            )
    return tuple(_input(one) for one in found)


def task_of(name: str, labels: pa.ChunkedArray) -> Task:
    """What there is to learn from a label.

    Raises:
        InvalidData: nothing.
    """
    return _task(_look(name, labels), labels)[0]


def _look(name: str, column: pa.ChunkedArray) -> Seen:
    kind = _kind(column.type)
    distinct = (
        len(column) - column.null_count if kind == "other" else pc.count_distinct(column, mode="only_valid").as_py()
    )
    return Seen(name, kind, len(column), column.null_count, distinct)


def _kind(found: pa.DataType) -> Any:
    of_type: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
        (pa.types.is_boolean, "bool"),
        (pa.types.is_integer, "int"),
        (pa.types.is_floating, "float"),
        (pa.types.is_decimal, "float"),
        (pa.types.is_string, "text"),
        (pa.types.is_large_string, "text"),
        (pa.types.is_date, "date"),
        (lambda one: pa.types.is_timestamp(one) and one.tz is not None, "time"),
        (pa.types.is_timestamp, "local time"),
    )
    return next((kind for test, kind in of_type if test(found)), "other")


def _task(seen: Seen, column: pa.ChunkedArray) -> tuple[Task, str, str | None]:
    if seen.distinct < 2:
        raise InvalidData(f"the label {seen.name} has {seen.distinct} different values; there is nothing to learn")
    if (seen.kind == "float" and not _flags(column)) or (seen.kind == "int" and seen.distinct > CLASSES):
        return "regression", f"{seen.name} holds {seen.distinct} different numbers", None
    if seen.kind not in ("int", "float", "bool", "text") or seen.distinct > CLASSES:
        raise InvalidData(
            f"the label {seen.name} has {seen.distinct} different values of type {column.type}: "
            f"neither a number nor at most {CLASSES} classes",
            next="add a label column to the file, or derive one in the extract's SQL",
        )
    counts = {str(one["values"].as_py()): one["counts"].as_py() for one in column.drop_null().value_counts()}
    shown = ", ".join(f"{value} ({count})" for value, count in sorted(counts.items())[:SHOWN])
    shown += ", …" if len(counts) > SHOWN else ""
    if seen.distinct > 2:
        return "multiclass", f"{seen.name} is {shown}", None
    if seen.kind != "text":
        return "binary", f"{seen.name} is {shown}", None
    rarer = min(counts, key=lambda value: (counts[value], value))
    return "binary", f"{seen.name} is {shown}", next((value for value in counts if value.lower() in POSITIVE), rarer)


def _flags(column: pa.ChunkedArray) -> bool:
    """Whether floats are only 0 and 1, as whole numbers with gaps come out of some tools."""
    return set(pc.unique(column.drop_null()).to_pylist()) == {0.0, 1.0}


def _identity(candidates: list[Seen], rows: pa.Table) -> tuple[str, str]:
    """The column that names a row; empty = none does, and the reason to number the rows."""
    unique = [one for one in candidates if one.nulls == 0 and one.distinct == one.rows and one.kind in ("int", "text")]
    for one in unique:
        if ID_NAME.search(one.name):
            return one.name, f"all {one.rows} values differ"
    for one in unique:
        if one.kind == "text" or _counts_up(rows[one.name]):
            return one.name, f"all {one.rows} values differ"
    return "", "no column is unique, so the rows are numbered in their order; with more rows they are numbered anew"


def _counts_up(column: pa.ChunkedArray) -> bool:
    ends = pc.min_max(column).as_py()
    return bool(ends["max"] - ends["min"] + 1 == len(column))


def _reason_to_leave(seen: Seen, known: pa.Table, label: str, time: str, task: Task) -> str:
    if seen.kind == "other":
        return f"its type {known[seen.name].type} is no input"
    if seen.distinct == 0:
        return "it is empty"
    if seen.distinct == 1 and not seen.nulls:
        return "every row has the same value"
    valid = seen.rows - seen.nulls
    if seen.kind == "text" and seen.distinct > valid / 2 and seen.distinct > CLASSES:
        return f"{seen.distinct} different texts in {valid} rows: names a row rather than describing it"
    if seen.kind == "int" and ID_NAME.search(seen.name) and seen.distinct > valid / 2:
        return f"{seen.distinct} different values in {valid} rows: looks like an id"
    if len(label) >= SPEAKING and label.lower() in seen.name.lower():
        return f"its name says that it comes from the label {label}"
    if time and seen.kind in ("time", "local time", "date") and (after := _share_after(known, seen.name, time)) > 0.5:
        return f"lies after {time} in {after:.0%} of the rows: would it be known when somebody asks?"
    return _leak(seen, known, label) if task != "regression" else ""


def _share_after(known: pa.Table, name: str, time: str) -> float:
    later = pc.greater(pc.cast(known[name], pa.timestamp("us")), pc.cast(known[time], pa.timestamp("us")))
    return float(pc.mean(pc.cast(later, pa.int8())).as_py() or 0.0)


def _leak(seen: Seen, known: pa.Table, label: str) -> str:
    """Whether the value, or only that there is one, gives the label away."""
    base = _told(pa.nulls(len(known), pa.int8()), known[label])
    values = known[seen.name]
    tells = {"its value": values} if seen.distinct <= CLASSES else {}
    tells |= {"whether it is there": pc.is_valid(values)} if seen.nulls else {}
    for what, column in tells.items():
        told = _told(column, known[label])
        if told >= LEAK and base < 1 - 4 * (1 - LEAK):
            return f"{what} tells {label} in {told:.1%} of the rows: would it be known when somebody asks?"
    return ""


def _told(column: Any, label: Any) -> float:
    """Share of labels that are right when the most frequent one is said for each value."""
    pairs = pa.table({"value": column, "label": label}).group_by(["value", "label"]).aggregate([([], "count_all")])
    best = pairs.group_by("value").aggregate([("count_all", "max")])
    return float(pc.sum(best["count_all_max"]).as_py() / len(label))


def _input(seen: Seen) -> Guess:
    nullable = seen.nulls > 0
    empty = f", {seen.nulls} empty" if nullable else ""
    if seen.kind == "text":
        few: Logical = "category" if seen.distinct <= CATEGORY_VALUES else "string"
        return Guess(seen.name, few, nullable, f"text, {seen.distinct} different{empty}")
    if seen.kind in ("time", "local time", "date"):
        zone = "" if seen.kind == "time" else ", without a zone: taken for UTC"
        return Guess(seen.name, "timestamp", nullable, f"{seen.kind}{zone}{empty}")
    words: dict[Any, tuple[Logical, str]] = {
        "int": ("int", "whole numbers"),
        "float": ("float", "numbers"),
        "bool": ("bool", "true or false"),
    }
    kind, word = words[seen.kind]
    return Guess(seen.name, kind, nullable, f"{word}{empty}")


def _time_why(seen: Seen | None) -> str:
    if seen is None:
        return "no --time was given: the same for all rows, which are split at random"
    return "when a row could be asked about" + ("" if seen.kind == "time" else "; no zone in the file: taken for UTC")


def _free(name: str, seen: dict[str, Seen]) -> str:
    lower = {one.lower() for one in seen}
    while name in lower:
        name += "_"
    return name


def _sql(plan: Plan, seen: dict[str, Seen], table: str, label: str, identity: str, time: str) -> str:
    names = [one.name for one in plan.inputs]
    if identity:
        first = quoted(identity)
    else:
        first = f"row_number() over (order by {', '.join(quoted(name) for name in seen)}) as {plan.id}"
    when = _column(seen[time]) if time else f"timestamptz '2000-01-01 00:00:00+00' as {plan.event_time}"
    whole = plan.task == "binary" and seen[label].kind == "float"
    what = f"cast({quoted(label)} as bigint) as {quoted(label)}" if whole else quoted(label)
    columns = [first, when, *(_column(seen[name]) for name in names), what]
    needed = [name for name in (label, time) if name and seen[name].nulls]
    where = f"\nwhere {' and '.join(f'{quoted(name)} is not null' for name in needed)}" if needed else ""
    return "select\n    " + ",\n    ".join(columns) + f"\nfrom {quoted(table)}" + where


def _column(seen: Seen) -> str:
    name = quoted(seen.name)
    if seen.kind in ("date", "local time"):
        return f"cast({name} as timestamp) at time zone 'UTC' as {name}"
    return name
