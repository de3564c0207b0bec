"""From journal records to columnar rows of the warehouse's tables; names and types as docs/reference/tables.md says."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pyarrow as pa

from interlock.core.project import snake
from interlock.predlog.record import Feedback, Field, Heartbeat, Prediction, Schema

TIME = pa.timestamp("us", tz="UTC")
TYPES: dict[str, pa.DataType] = {
    "float": pa.float64(),
    "int": pa.int64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "category": pa.string(),
    "timestamp": TIME,
    "floats": pa.list_(pa.float64()),
}


def uuids(texts: Iterable[str]) -> pa.Array:
    """UUID texts as Arrow's canonical UUID type."""
    storage = pa.array([bytes.fromhex(text.replace("-", "")) for text in texts], pa.binary(16))
    return pa.ExtensionArray.from_storage(pa.uuid(), storage)


def _milliseconds(values: Iterable[int]) -> pa.Array:
    return pa.array([value / 1000 for value in values], pa.float64())


_FIXED: tuple[tuple[str, str, pa.DataType], ...] = (
    ("role", "role", pa.string()),
    ("request_id", "request_id", pa.string()),
    ("received_at", "received_at", TIME),
    ("event_time", "event_time", TIME),
    ("endpoint", "endpoint", pa.string()),
    ("unit_id", "unit_id", pa.string()),
    ("unit_source", "unit_source", pa.string()),
    ("experiment", "experiment", pa.string()),
    ("phase", "phase", pa.int32()),
    ("arm", "arm", pa.string()),
    ("propensity", "propensity", pa.float64()),
    ("model", "model", pa.string()),
    ("version", "version", pa.int32()),
    ("package_digest", "package_digest", pa.string()),
    ("route_revision", "route_revision", pa.int32()),
    ("outcome", "outcome", pa.string()),
    ("reason", "reason", pa.string()),
    ("seq", "seq", pa.int64()),
)


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
    records = [record for _, record in group]
    counts = [max(1, record.rows) for record in records]
    columns: dict[str, pa.Array] = {"prediction_id": uuids(record.prediction_id for record in records)}
    for name, attribute, kind in _FIXED:
        columns[name] = pa.array([getattr(record, attribute) for record in records], kind)
    columns["rules"] = pa.array([[]] * len(records), pa.list_(pa.string()))
    columns["latency_ms"] = _milliseconds(record.latency_us for record in records)
    columns["model_latency_ms"] = _milliseconds(record.model_us for record in records)
    columns["gateway"] = uuids(gateway for gateway, _ in group)
    table = pa.table(columns)
    if sum(counts) != len(records):
        table = table.take(pa.array([i for i, count in enumerate(counts) for _ in range(count)], pa.int64()))
    table = table.append_column("row", pa.array([row for count in counts for row in range(count)], pa.int32()))
    if schema is not None:
        for prefix, fields, values in (
            ("in_", schema.inputs, lambda record: record.inputs),
            ("out_", schema.outputs, lambda record: record.outputs),
        ):
            for i, field in enumerate(fields):
                table = table.append_column(prefix + field.name, _values(field, i, records, counts, values))
    return table


def _values(
    field: Field, i: int, records: list[Prediction], counts: list[int], values: Callable[[Prediction], Sequence[Any]]
) -> pa.Array:
    flat: list[Any] = []
    for record, count in zip(records, counts, strict=True):
        held = values(record)
        column = held[i] if held else None
        flat.extend([None] * count if column is None else column)
    return pa.array(flat, TYPES[field.type], from_pandas=True)


def feedback_tables(items: Sequence[tuple[int, Feedback]]) -> dict[str, pa.Table]:
    """Rows by table `feedback_<endpoint>`; items come with their journal position, which orders equal times."""
    groups: dict[str, list[tuple[int, Feedback]]] = {}
    for position, item in items:
        groups.setdefault(f"feedback_{snake(item.endpoint)}", []).append((position, item))
    return {
        name: pa.table(
            {
                "prediction_id": uuids(item.prediction_id for _, item in group),
                "row": pa.array([item.row for _, item in group], pa.int32()),
                "name": pa.array([item.name for _, item in group], pa.string()),
                "value_num": pa.array([item.value_num for _, item in group], pa.float64()),
                "value_text": pa.array([item.value_text for _, item in group], pa.string()),
                "at": pa.array([item.at for _, item in group], TIME),
                "received_at": pa.array([item.received_at for _, item in group], TIME),
                "position": pa.array([position for position, _ in group], pa.int64()),
            }
        )
        for name, group in groups.items()
    }


def heartbeat_table(beats: Sequence[Heartbeat]) -> pa.Table:
    """Rows of the table `gateways`: the last `seq` of an incarnation at an endpoint, and whether it was its last word."""
    flat = [(beat, endpoint, last) for beat in beats for endpoint, last in beat.last_seq.items()]
    return pa.table(
        {
            "gateway": uuids(beat.gateway for beat, _, _ in flat),
            "endpoint": pa.array([endpoint for _, endpoint, _ in flat], pa.string()),
            "last_seq": pa.array([last for _, _, last in flat], pa.int64()),
            "at": pa.array([beat.at for beat, _, _ in flat], TIME),
            "final": pa.array([beat.final for beat, _, _ in flat], pa.bool_()),
        }
    )
