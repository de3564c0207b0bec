"""From journal records to columnar rows of the warehouse's tables; names and types as docs/reference/tables.md says."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from itertools import chain
from operator import attrgetter
from typing import Any

import numpy as np
import pyarrow as pa

from interlock.core.clock import FIRST_US
from interlock.core.project import snake
from interlock.core.settings import EndpointSettings
from interlock.model.columns import NAT, packed_type, split
from interlock.predlog.record import Feedback, Field, Heartbeat, Prediction, Schema

TIME = pa.timestamp("us", tz="UTC")
WINDOW = timedelta(days=EndpointSettings().feedback_days)
TYPES: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "category": pa.string(),
    "timestamp": TIME,
    "floats": pa.list_(pa.float64()),
}


def uuids(texts: Sequence[str]) -> pa.Array:
    """UUID texts as Arrow's canonical UUID type; empty ones are null."""
    if all(texts):
        data = pa.py_buffer(bytes.fromhex("".join(texts).replace("-", "")))
        storage = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(texts), [None, data])
    else:
        storage = pa.array([bytes.fromhex(text.replace("-", "")) or None for text in texts], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _milliseconds(values: Sequence[int]) -> pa.Array:
    return pa.array(np.array(values, np.float64) / 1000)


_FIXED: dict[str, pa.DataType] = {
    "role": pa.string(),
    "request_id": pa.string(),
    "received_at": TIME,
    "event_time": TIME,
    "endpoint": pa.string(),
    "unit_id": pa.string(),
    "unit_source": pa.string(),
    "experiment": pa.string(),
    "phase": pa.int32(),
    "arm": pa.string(),
    "propensity": pa.float64(),
    "model": pa.string(),
    "version": pa.int32(),
    "package_digest": pa.string(),
    "route_revision": pa.int32(),
    "outcome": pa.string(),
    "reason": pa.string(),
    "seq": pa.int64(),
    "traceparent": pa.string(),
}
"""Columns that a record holds as they are."""
_DERIVED = ("prediction_id", "latency_us", "model_us", "inputs", "outputs", "rows", "rules")
_fields = attrgetter(*_FIXED, *_DERIVED)


def prediction_tables(records: Sequence[tuple[str, Prediction]], schemas: dict[str, Schema]) -> dict[str, pa.Table]:
    """Rows by table `predictions_<endpoint>`; `records` come with the gateway incarnation that wrote them."""
    groups: dict[tuple[str, str], list[tuple[str, Prediction]]] = {}
    for gateway, record in records:
        groups.setdefault((record.endpoint, record.package_digest), []).append((gateway, record))
    parts: dict[str, list[pa.Table]] = {}
    for (endpoint, package), group in groups.items():
        table = _predictions(group, schemas.get(package))
        parts.setdefault(f"predictions_{snake(endpoint)}", []).append(table)
    return {name: pa.concat_tables(tables, promote_options="default") for name, tables in parts.items()}


def _predictions(group: list[tuple[str, Prediction]], schema: Schema | None) -> pa.Table:
    """Transposed by `zip`, column by column: a loop over rows and fields would cost three times as much."""
    gateways, records = zip(*group, strict=True)
    *fixed, ids, latencies, models, inputs, outputs, rows, rules = zip(*map(_fields, records), strict=True)
    counts = [max(1, count) for count in rows]
    columns = {name: pa.array(column, kind) for (name, kind), column in zip(_FIXED.items(), fixed, strict=True)}
    columns["prediction_id"] = uuids(ids)
    columns["rules"] = pa.array(rules, pa.list_(pa.string()))
    columns["latency_ms"] = _milliseconds(latencies)
    columns["model_latency_ms"] = _milliseconds(models)
    columns["gateway"] = uuids(gateways)
    if sum(counts) != len(records):
        rows_of = pa.array([i for i, count in enumerate(counts) for _ in range(count)], pa.int64())
        columns = {name: column.take(rows_of) for name, column in columns.items()}
    columns["row"] = pa.array([row for count in counts for row in range(count)], pa.int32())
    if schema is not None:
        for prefix, fields, held in (("in_", schema.inputs, inputs), ("out_", schema.outputs, outputs)):
            columns |= zip((prefix + field.name for field in fields), _columns(fields, held, counts), strict=True)
    return pa.table(columns)


def _columns(fields: tuple[Field, ...], held: Sequence[list[Any]], counts: list[int]) -> Iterator[pa.Array]:
    """The fields over all rows; `held`: for each record its columns, or all of them in one buffer, or nothing."""
    width, one_buffer = len(fields), [len(one) == 1 < len(fields) for one in held]
    if all(one_buffer):
        rows = np.frombuffer(b"".join(one[0] for one in held)).reshape(-1, width)
        for column in np.ascontiguousarray(rows.T):
            yield pa.array(column, pa.float64(), mask=column != column)
        return
    columns = (split(one[0], width) if whole else one for one, whole in zip(held, one_buffer, strict=True))
    nothing = (None,) * width
    for field, parts in zip(fields, zip(*(one or nothing for one in columns), strict=True), strict=True):
        yield _values(field, parts, counts)


def _values(field: Field, parts: tuple[Any, ...], counts: list[int]) -> pa.Array:
    """One field over all rows, from each record's list or buffer; nulls where a record does not hold it."""
    absent = None in parts
    if not any(isinstance(part, bytes) for part in parts):
        lists: Iterable[list[Any]] = parts
        if absent:
            lists = ([None] * count if part is None else part for part, count in zip(parts, counts, strict=True))
        return pa.array(list(chain.from_iterable(lists)), TYPES[field.type], from_pandas=True)
    kind = packed_type(field.type, nullable=field.nullable)
    buffers = (bytes(kind.itemsize * n) if part is None else part for part, n in zip(parts, counts, strict=True))
    values = np.frombuffer(b"".join(buffers if absent else parts), kind)
    missing = values == NAT if field.type == "timestamp" else values != values
    if absent:
        missing |= np.repeat([part is None for part in parts], counts)
    if field.type == "timestamp":
        return pa.array(values, pa.int64(), mask=missing).cast(TIME)
    if (
        kind.kind == "f" and field.type != "float"
    ):  # whole numbers and truth values travel as floats where they may be missing
        values = np.where(missing, 0.0, values).astype(np.int64 if field.type == "int" else np.bool_)
    return pa.array(values, TYPES[field.type], mask=missing)


def feedback_tables(items: Sequence[tuple[int, Feedback]], window: timedelta = WINDOW) -> dict[str, pa.Table]:
    """Rows by table `feedback_<endpoint>`; items come with their journal position, which orders equal times.

    `window`: so long before its `at` lies the prediction, at the most, that a value by unit is about.
    """
    length = window // timedelta(microseconds=1)
    groups: dict[str, list[tuple[int, Feedback]]] = {}
    for position, item in items:
        groups.setdefault(f"feedback_{snake(item.endpoint)}", []).append((position, item))
    return {
        name: pa.table(
            {
                "prediction_id": uuids([item.prediction_id for _, item in group]),
                "row": pa.array([None if item.unit_id else item.row for _, item in group], pa.int32()),
                "name": pa.array([item.name for _, item in group], pa.string()),
                "value_num": pa.array([item.value_num for _, item in group], pa.float64()),
                "value_text": pa.array([item.value_text for _, item in group], pa.string()),
                "at": pa.array([item.at for _, item in group], TIME),
                "received_at": pa.array([item.received_at for _, item in group], TIME),
                "position": pa.array([position for position, _ in group], pa.int64()),
                "unit_id": pa.array([item.unit_id or None for _, item in group], pa.string()),
                "since": pa.array(
                    [max(item.at - length, FIRST_US) if item.unit_id else None for _, item in group], TIME
                ),
            }
        )
        for name, group in groups.items()
    }


def heartbeat_table(beats: Sequence[Heartbeat]) -> pa.Table:
    """Rows of the table `gateways`: the last `seq` of an incarnation at an endpoint, and whether it was its last word."""
    flat = [(beat, endpoint, last) for beat in beats for endpoint, last in beat.last_seq.items()]
    return pa.table(
        {
            "gateway": uuids([beat.gateway for beat, _, _ in flat]),
            "endpoint": pa.array([endpoint for _, endpoint, _ in flat], pa.string()),
            "last_seq": pa.array([last for _, _, last in flat], pa.int64()),
            "at": pa.array([beat.at for beat, _, _ in flat], TIME),
            "final": pa.array([beat.final for beat, _, _ in flat], pa.bool_()),
        }
    )
