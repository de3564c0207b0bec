"""Extracts: what their SQL may say, what their rows must be, and how they are named by their values and kept."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from interlock.core.errors import InvalidData, NotFound, Tampered
from interlock.core.files import write_new
from interlock.warehouse.port import ExtractQuery
from interlock.warehouse.session import Session, quoted

if TYPE_CHECKING:
    import pyarrow as pa

_UNSTABLE = (
    "select distinct function_name from duckdb_functions() where stability in ('VOLATILE', 'CONSISTENT_WITHIN_QUERY')"
)
_AGGREGATES = "select distinct function_name from duckdb_functions() where function_type = 'aggregate'"
_CLOCKS = {"current_timestamp", "current_date", "current_time", "localtime", "localtimestamp"}
_CHANGING = {
    "current_localtime",
    "current_localtimestamp",
    "ago",
    "current_setting",
    "getvariable",
    "reservoir_quantile",
}
_TABLE_FUNCTIONS = {"range", "generate_series", "unnest"}
_ANY_ORDER = {
    "count",
    "count_star",
    "count_if",
    "countif",
    "min",
    "max",
    "bool_and",
    "bool_or",
    "bit_and",
    "bit_or",
    "bit_xor",
}
"""Aggregates that do not care in which order they see their values; a sum of floats does, in its last bits."""

_REPEAT = "an extract must give the same rows whenever it is run: bind the value as a $variable"


def checked(session: Session, query: ExtractQuery, there: Collection[str]) -> tuple[str, str, tuple[str, ...]]:
    """The SQL as it was said, the one to run, in which aggregates have an order, and the tables of `there` that it reads."""
    said = session.rows("select json_serialize_sql($sql::varchar)", {"sql": query.sql})[0][0]
    tree = json.loads(said)
    changing, aggregates = ({row[0] for row in session.rows(sql)} for sql in (_UNSTABLE, _AGGREGATES))
    sources = _check_sql(tree, changing, aggregates, there)
    back = "select json_deserialize_sql($said::json), json_deserialize_sql($run::json)"
    (texts,) = session.rows(back, {"said": said, "run": json.dumps(tree)})
    return texts[0], texts[1], sources


def _check_sql(
    tree: dict[str, Any], changing: Collection[str], aggregates: Collection[str], tables: Collection[str]
) -> tuple[str, ...]:
    """Refuse SQL whose answer may differ next time; give aggregates an order.

    Args:
        tree: DuckDB's `json_serialize_sql`. Aggregates in it get `ORDER BY` their own arguments where they have no order,
            so that neither threads nor merged files change a float's last bit.
        changing: functions whose result differs between calls or queries.
        aggregates: all aggregate functions.
        tables: the tables and views there are.

    Returns:
        Those of `tables` that it reads.
    """
    if tree["error"]:
        raise InvalidData(f"the extract's SQL was refused: {tree['error_message']}", next="it must be one SELECT")
    if len(tree["statements"]) != 1:
        raise InvalidData("an extract is one SELECT, not several statements")
    read: set[str] = set()
    own: set[str] = set()
    unordered = []
    for node in _nodes(tree):
        _refuse(node, changing)
        own.update(entry["key"].lower() for entry in node.get("cte_map", {}).get("map", ()))
        if node.get("type") == "BASE_TABLE":
            schema, name = node["schema_name"].lower(), node["table_name"].lower()
            read.add(name if schema in ("", "main") else f"{schema}.{name}")
        elif node.get("class") in ("FUNCTION", "WINDOW") and node["function_name"] in aggregates:
            unordered.append(node)
    for node in unordered:
        _give_order(node)
    there = {name.lower(): name for name in tables}
    if strange := read - there.keys() - own:
        raise InvalidData(
            f"the extract reads {', '.join(sorted(strange))}, which the warehouse has not (there: {', '.join(tables)})",
            next="load it: interlock data add FILE --as TABLE",
        )
    return tuple(sorted(there[name] for name in read & there.keys()))


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    if isinstance(tree, dict):
        yield tree
        tree = list(tree.values())
    if isinstance(tree, list):
        for child in tree:
            yield from _nodes(child)


def _refuse(node: dict[str, Any], changing: Collection[str]) -> None:
    kind = node.get("type")
    name = node.get("function_name", "")
    if kind == "TABLE_FUNCTION":
        called = node["function"]["function_name"]
        if called not in _TABLE_FUNCTIONS:
            raise InvalidData(
                f"an extract cannot read {called}(): only tables of the warehouse", next="interlock data add"
            )
    elif name in changing or name in _CHANGING or (name == "age" and len(node["children"]) == 1):
        raise InvalidData(f"an extract cannot use {name}()", next=_REPEAT)
    elif kind == "COLUMN_REF" and len(node["column_names"]) == 1 and node["column_names"][0].lower() in _CLOCKS:
        raise InvalidData(f"an extract cannot use {node['column_names'][0]}", next=_REPEAT)
    elif node.get("sample"):
        raise InvalidData("an extract cannot sample", next="take part of the rows by a hash: WHERE hash(id) % 10 = 0")
    elif node.get("at_clause") or node.get("catalog_name"):
        raise InvalidData(
            f"{node['table_name']}: the extract's snapshot says where and when to read", next="name the table alone"
        )
    modifiers = {part["type"]: part for part in node.get("modifiers") or ()}
    distinct = modifiers.get("DISTINCT_MODIFIER", {}).get("distinct_on_targets")
    limited = distinct or any(name.startswith("LIMIT") for name in modifiers)
    if limited and "ORDER_MODIFIER" not in modifiers:
        what = "DISTINCT ON" if distinct else "LIMIT"
        raise InvalidData(f"{what} without ORDER BY picks other rows each time", next="add ORDER BY over a unique key")


def _give_order(node: dict[str, Any]) -> None:
    """`sum(x)` → `sum(x ORDER BY x)`, after an order of its own; a window with an order has its own already."""
    if node["function_name"] in _ANY_ORDER or node.get("orders"):
        return
    by_itself = [
        {"type": "ORDER_DEFAULT", "null_order": "ORDER_DEFAULT", "expression": argument}
        for argument in node["children"]
        if any(part.get("class") == "COLUMN_REF" for part in _nodes(argument))
    ]
    orders = node["arg_orders"] if node["class"] == "WINDOW" else node["order_bys"]["orders"]
    orders.extend(by_itself)


def check_variables(needed: Collection[str], query: ExtractQuery) -> None:
    """Every `$name` has a value, every value a use."""
    for name in sorted(needed):
        if name not in query.variables:
            raise InvalidData(f"variable ${name} of the extract has no value", next=f"give it one: --var {name}=…")
    for name in query.variables:
        if name not in needed:
            raise InvalidData(
                f"the extract's SQL has no variable ${name}", next=f"remove it, or use ${name} in the SQL"
            )


def check_columns(columns: dict[str, str], query: ExtractQuery) -> None:
    """The result has the named columns, none twice, and its time says when it was. `columns`: name → SQL type."""
    for role, name in (("id", query.id), ("event_time", query.event_time), ("label", query.label)):
        if name not in columns:
            raise InvalidData(
                f"the extract has no column {name!r} for {role} (it has: {', '.join(columns)})",
                next=f'select it, or change {role} = "{name}" in interlock.toml',
            )
    kind = columns[query.event_time]
    if kind != "TIMESTAMP WITH TIME ZONE":
        raise InvalidData(
            f"event_time {query.event_time!r} is a {kind} and says no time zone",
            next=f"write {query.event_time} AT TIME ZONE 'Europe/Berlin' (its own zone) AS {query.event_time} in the SQL",
        )


def check_rows(table: pa.Table, query: ExtractQuery) -> None:
    """`id` is there and unique, `event_time` is there."""
    import pyarrow.compute as pc

    for name in (query.id, query.event_time):
        if nulls := table.column(name).null_count:
            raise InvalidData(
                f"{nulls} of {len(table)} rows of the extract have no {name}", next=f"add WHERE {name} IS NOT NULL"
            )
    ids = table.column(query.id)
    if pc.count_distinct(ids).as_py() != len(table):
        counts = pc.value_counts(ids)
        twice = counts.filter(pc.greater(counts.field("counts"), 1)).field("values")
        raise InvalidData(
            f"id {query.id!r} is not unique: {len(twice)} values come more than once, such as {twice[0].as_py()!r}",
            next="select a column that names each row, or build one from several",
        )


def plain(table: pa.Table) -> pa.Table:
    """Arrow types that everybody reads: decimals as float64 or, without fraction, int64; dictionaries as their values."""
    import pyarrow as pa

    def cast(column: Any) -> Any:
        kind = column.type
        if pa.types.is_dictionary(kind):
            return column.cast(kind.value_type)
        if not pa.types.is_decimal(kind):
            return column
        try:
            return column.cast(pa.int64() if kind.scale == 0 else pa.float64())
        except pa.ArrowInvalid:  # over 2^63
            return column.cast(pa.float64())

    return pa.Table.from_arrays([cast(column) for column in table.columns], names=table.column_names)


def type_name(kind: Any) -> str:
    """An Arrow type as text; what a file calls the element of a list is no part of it."""
    return f"list<{type_name(kind.value_type)}>" if hasattr(kind, "value_field") else str(kind)


def value_digest(table: pa.Table) -> str:
    """`sha256:` over column names, types and values in order; not over how they are cut into chunks or packed.

    Raises:
        InvalidData: a column is a struct, map or interval.
    """
    whole = hashlib.sha256(f"interlock-extract-1\n{len(table)}\n".encode())
    for name, column in zip(table.column_names, table.columns, strict=True):
        whole.update(f"{len(name.encode())}:{name}:{type_name(column.type)}\n".encode())
        _hash_values(column, whole.update, name)
    return f"sha256:{whole.hexdigest()}"


def _hash_values(column: Any, update: Callable[[Any], object], name: str) -> None:
    """Which are there; lengths of text and lists; values, missing ones as 0. NaN is one value, 0.0 and -0.0 are two."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    is_text = pa.types.is_string(kind) or pa.types.is_binary(kind)
    values = (column.cast(pa.large_binary()) if is_text else column).combine_chunks()
    update(values.is_valid().to_numpy(zero_copy_only=False).tobytes())
    if is_text:
        _, ends, text = pc.fill_null(values, b"").buffers()
        offsets = np.frombuffer(ends, np.int64, len(values) + 1)
        update(np.diff(offsets).tobytes())
        update(memoryview(text or b"")[: offsets[-1]])
    elif pa.types.is_list(kind):
        update(pc.fill_null(pc.list_value_length(values), 0).to_numpy().tobytes())
        _hash_values(pa.chunked_array([values.flatten()]), update, name)
    elif pa.types.is_boolean(kind):
        update(pc.fill_null(values, False).to_numpy(zero_copy_only=False).tobytes())
    elif pa.types.is_floating(kind):
        numbers = pc.fill_null(values, 0.0).to_numpy()
        update(np.where(np.isnan(numbers), np.nan, numbers).astype(numbers.dtype).tobytes())
    elif pa.types.is_integer(kind) or pa.types.is_date(kind) or pa.types.is_time(kind) or pa.types.is_timestamp(kind):
        width = pa.int32() if kind.bit_width == 32 else pa.int64()
        whole = values if pa.types.is_integer(kind) else values.cast(width)
        update(pc.fill_null(whole, 0).to_numpy().tobytes())
    else:
        raise InvalidData(
            f"column {name!r} of the extract is a {kind}", next="cast it in the SQL to a number, text or time"
        )


def store(table: pa.Table, folder: Path) -> tuple[str, Path]:
    """Keep the extract under the digest of its values, once; digest and path."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    digest = value_digest(table)
    path = folder / f"{digest.removeprefix('sha256:')}.parquet"
    if not path.exists():
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd")
        with suppress(FileExistsError):  # somebody else made the same extract
            write_new(path, sink.getvalue())
    return digest, path


def read_extract(path: Path, digest: str) -> pa.Table:
    """The rows of a stored extract.

    Raises:
        NotFound: there is no such file. Tampered: its values are not those of `digest`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path, partitioning=None)
    except FileNotFoundError:
        raise NotFound(f"extract {digest} is not at {path}", next="run the extract again at its snapshot") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise Tampered(f"extract {path.name} cannot be read: {error}") from error
    if value_digest(table) != digest:
        raise Tampered(f"extract {path.name} holds other values than {digest}", next="delete the file and run it again")
    return table


def ordered(sql: str, query: ExtractQuery) -> str:
    """The SELECT in the order that every extract has."""
    return f"select * from (\n{sql}\n) order by {quoted(query.event_time)}, {quoted(query.id)}"  # noqa: S608 (wrapped whole)
