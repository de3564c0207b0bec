"""Rows as columns: checked values of a request, and the one binary form in which they travel to a model server.

A *checked column* is a Python list: `float` with NaN for missing, else `int`, `bool`, `str` with None for missing, a
`timestamp` as microseconds since the epoch. An *array* is what the model's side sees: float64 (also for nullable `int` and
`bool`, missing = NaN, as pandas does), int64, bool, object of `str`, and int64 microseconds with `NAT` for a missing time.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import chain
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from interlock.core.clock import FIRST_US, LAST_US, to_us
from interlock.core.errors import InvalidRequest, TooLarge
from interlock.model.signature import Input, Signature

NAT = -(2**63)
EXACT = 2**53
"""Whole numbers up to here survive a float64, in which nullable ints travel."""
FINITE = {float, int}
"""Types of plain numbers; of a bool the type is another."""
MANY = 16
"""More values are checked at once where that is possible; fewer are quicker one by one."""
Column = list[Any]
Array = NDArray[Any]


class Matrix(Sequence[Column]):
    """Checked rows of numbers, one after the other in one buffer; to whoever reads columns, a list of them."""

    __slots__ = ("values", "width")

    def __init__(self, values: array[float], width: int) -> None:
        self.values = values
        self.width = width

    def __len__(self) -> int:
        return self.width

    def __getitem__(self, at: Any) -> Any:
        return self.values[at :: self.width].tolist()

    def __iter__(self) -> Iterator[Column]:
        return map(self.__getitem__, range(self.width))


Columns = Sequence[Column]
Packed = list[bytes | Column]
"""Columns ready for msgpack: a buffer each, texts as they are; of a `numeric` signature one buffer, row after row."""


def check(spec: Input, values: list[Any], rows: int, *, iso: bool = False) -> Column:
    """The checked column of raw JSON values; `iso`: time stamps may also be ISO 8601 text with an offset.

    Raises:
        InvalidRequest: names the input, what was expected and what came.
    """
    if len(values) != rows:
        raise InvalidRequest(f"input {spec.name!r}: expected {rows} values, got {len(values)}")
    kind = spec.type
    if rows > MANY and (checked := _at_once(spec, values)) is not None:
        return checked
    if kind == "float":
        return _floats(spec, values)
    if kind in ("string", "category"):
        return _texts(spec, values)
    if kind == "bool":
        for value in values:
            if type(value) is not bool and not (value is None and spec.nullable):
                raise _wrong(spec, value)
        return values
    if kind == "timestamp" and iso:
        values = [_from_iso(spec, value) if type(value) is str else value for value in values]
    return _ints(spec, values)


def too_many(signature: Signature) -> TooLarge:
    """The error of a request that has more rows than one may have."""
    return TooLarge(f"the request has over {signature.most_rows} rows")


def _at_once(spec: Input, values: list[Any]) -> Column | None:
    """The checked column where all values are of the input's own type, none is missing or out of range; else None."""
    kinds = set(map(type, values))
    if spec.type == "float":
        if kinds <= FINITE:
            try:
                checked = list(map(float, values)) if int in kinds else values
                return checked if math.isfinite(sum(checked)) else None
            except OverflowError:
                return None
    elif spec.type == "bool":
        if kinds == {bool}:
            return values
    elif spec.type in ("int", "timestamp") and kinds == {int}:
        first, last = _limits(spec)
        if first <= min(values) and max(values) <= last:
            return values
    return None


def _floats(spec: Input, values: list[Any]) -> Column:
    checked = []
    for value in values:
        kind = type(value)
        if kind is float:
            if not math.isfinite(value):
                if value != value and spec.nullable:  # a NaN from a binary tensor is a missing value
                    checked.append(math.nan)
                    continue
                raise _wrong(spec, value)
            checked.append(value)
        elif kind is int:
            try:
                checked.append(float(value))
            except OverflowError:
                raise _wrong(spec, value) from None
        elif value is None and spec.nullable:
            checked.append(math.nan)
        else:
            raise _wrong(spec, value)
    return checked


def _limits(spec: Input) -> tuple[int, int]:
    """The first and the last whole number that the input takes."""
    if spec.type == "timestamp":
        return FIRST_US, LAST_US
    return (-EXACT, EXACT) if spec.nullable else (1 - 2**63, 2**63 - 1)


def _ints(spec: Input, values: list[Any]) -> Column:
    first, last = _limits(spec)
    checked: Column = []
    for value in values:
        if type(value) is float and value.is_integer():  # JSON knows one kind of number: 3.0 is 3
            value = int(value)
        if type(value) is int and first <= value <= last:
            checked.append(value)
        elif value is None and spec.nullable:
            checked.append(None)
        else:
            raise _wrong(spec, value)
    return checked


def _texts(spec: Input, values: list[Any]) -> Column:
    for value in values:
        if type(value) is not str and not (value is None and spec.nullable):
            raise _wrong(spec, value)
    if spec.unseen == "refuse" and spec.categories:
        known = spec.categories if len(values) <= MANY else frozenset(spec.categories)
        for value in values:
            if value is not None and value not in known:
                some = ", ".join(spec.categories[:10]) + (" …" if len(spec.categories) > 10 else "")
                raise InvalidRequest(f"input {spec.name!r}: expected one of {some}, got {_shown(value)}")
    return values


def _from_iso(spec: Input, text: str) -> int:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise _wrong(spec, text) from None
    if at.tzinfo is None:
        raise InvalidRequest(f"input {spec.name!r}: expected a time with an offset, got {_shown(text)}")
    return to_us(at)


def _wrong(spec: Input, value: Any) -> InvalidRequest:
    years = " in the years 1 to 9999" if spec.type == "timestamp" else ""
    expected = f"{spec.datatype} ({spec.type}{years}{', or null' if spec.nullable else ', not null'})"
    return InvalidRequest(f"input {spec.name!r}: expected {expected}, got {_shown(value)}")


def _shown(value: Any) -> str:
    text = repr(value) if not isinstance(value, str) else f'"{value}"'
    return text if len(text) <= 60 else text[:60] + "…"


def pack(signature: Signature, columns: Columns) -> Packed:
    """Checked columns, in the signature's order, as they travel and are logged."""
    if isinstance(columns, Matrix):
        return [columns.values.tobytes()]
    if signature.numeric:
        if len(columns[0]) > MANY:
            return [np.array(columns, np.float64).T.tobytes()]
        return [array("d", chain.from_iterable(zip(*columns, strict=True))).tobytes()]
    return [_pack_one(spec, column) for spec, column in zip(signature.inputs, columns, strict=True)]


def pack_arrays(signature: Signature, arrays: list[Array]) -> Packed:
    """What `pack` gives, from the arrays that `unpack` gives."""
    if signature.numeric:
        return [np.stack(arrays, axis=1).tobytes()]
    return [one.tolist() if one.dtype == object else one.tobytes() for one in arrays]


def first_row(columns: Columns) -> Columns:
    """The columns of the first row alone."""
    if isinstance(columns, Matrix):
        return Matrix(columns.values[: columns.width], columns.width)
    return [one[:1] for one in columns]


def split(buffer: bytes, width: int) -> list[bytes]:
    """The columns of rows that were packed as one buffer."""
    return [column.tobytes() for column in np.frombuffer(buffer).reshape(-1, width).T]


def join(packed: list[Packed]) -> Packed:
    """The packed columns of several requests as those of one."""
    if len(packed) == 1:
        return packed[0]
    return [
        b"".join(parts) if isinstance(parts[0], bytes) else list(chain.from_iterable(parts))
        for parts in zip(*packed, strict=True)
    ]


def packed_type(kind: str, *, nullable: bool) -> np.dtype[Any]:
    """The type of a packed column's values, by its logical type; text is not packed."""
    if kind == "timestamp":
        return np.dtype(np.int64)
    if kind == "float" or nullable:
        return np.dtype(np.float64)
    return np.dtype(np.int64 if kind == "int" else np.bool_)


def _pack_one(spec: Input, column: Column) -> bytes | Column:
    kind = spec.type
    if kind == "float":
        return array("d", column).tobytes()
    if kind in ("string", "category"):
        return column
    if kind == "timestamp":
        return array("q", [NAT if value is None else value for value in column]).tobytes()
    if spec.nullable:
        return array("d", [math.nan if value is None else value for value in column]).tobytes()
    return array("q", column).tobytes() if kind == "int" else bytes(column)


def unpack(signature: Signature, packed: Packed) -> list[Array]:
    """The arrays of packed columns."""
    inputs = signature.inputs
    if signature.numeric:
        (rows,) = (
            packed  # iterating over a matrix gives its rows, so turned it is a list of columns that `matrix` need not copy
        )
        return cast(list[Array], np.frombuffer(cast(bytes, rows)).reshape(-1, len(inputs)).T)
    return [_unpack_one(spec, buffer) for spec, buffer in zip(inputs, packed, strict=True)]


def _unpack_one(spec: Input, buffer: Any) -> Array:
    if spec.type in ("string", "category"):
        return np.array(buffer, dtype=object)
    return np.frombuffer(buffer, packed_type(spec.type, nullable=spec.nullable))


def to_lists(inputs: tuple[Input, ...], arrays: list[Array]) -> list[Column]:
    """Arrays as JSON-ready lists (missing = None): raw rows as a client would send them."""
    lists: list[Column] = []
    for spec, values in zip(inputs, arrays, strict=True):
        column = values.tolist()
        if spec.type == "timestamp":
            column = [None if value == NAT else value for value in column]
        elif values.dtype.kind == "f":
            whole = int if spec.type == "int" else bool if spec.type == "bool" else float
            column = [None if value != value else whole(value) for value in column]
        lists.append(column)
    return lists
