"""What a client asks, whatever the codec: who, when, which rows. Codecs: Open Inference Protocol and MLflow's scoring JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from interlock.core.clock import now_us, parse_time, to_us
from interlock.core.errors import InvalidRequest
from interlock.model import oip
from interlock.model.columns import Column, check
from interlock.model.signature import Signature

UNIT_BYTES = 256


class Question(Protocol):
    """A parsed body; the columns are read once the arm, and so the signature, is known."""

    id: str | None
    parameters: dict[str, Any]

    def columns(self, signature: Signature) -> tuple[int, list[Column]]:
        """Rows and checked columns.

        Raises:
            InvalidRequest: they do not fit the signature.
        """
        ...


class OipQuestion:
    """Open Inference Protocol: the JSON of `POST /v2/models/{m}/infer`, or what another `decode` makes of a body."""

    def __init__(self, body: bytes, decode: Callable[[bytes], oip.InferRequest] = oip.decode) -> None:
        self.request = decode(body)
        self.id = self.request.id
        self.parameters: dict[str, Any] = dict(self.request.parameters or {})

    def columns(self, signature: Signature) -> tuple[int, list[Column]]:
        """See `Question`."""
        return oip.read_columns(signature, self.request)


class _Split(msgspec.Struct):
    columns: list[str]
    data: list[list[Any]]
    index: list[Any] | None = None


class _Scoring(msgspec.Struct):
    dataframe_split: _Split | None = None
    dataframe_records: list[dict[str, Any]] | None = None
    instances: list[Any] | dict[str, list[Any]] | None = None
    inputs: dict[str, Any] | list[Any] | None = None
    params: dict[str, Any] | None = None


_decode_scoring = msgspec.json.Decoder(_Scoring).decode
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


class ScoringQuestion:
    """`POST /endpoints/{name}/invocations` with MLflow's JSON: exactly one of its four forms."""

    def __init__(self, body: bytes) -> None:
        oip.check_depth(body)
        try:
            scoring = _decode_scoring(body)
        except msgspec.ValidationError as error:
            raise InvalidRequest(f"not a scoring request: {error}") from error
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not valid JSON: {error}") from error
        given = [form for form in _FORMS if getattr(scoring, form) is not None]
        if len(given) != 1:
            raise InvalidRequest(f"expected exactly one of {', '.join(_FORMS)}, got {', '.join(given) or 'none'}")
        self.id: str | None = None
        self.parameters: dict[str, Any] = scoring.params or {}
        self._form = given[0]
        self._value: Any = getattr(scoring, given[0])

    def columns(self, signature: Signature) -> tuple[int, list[Column]]:
        """See `Question`."""
        names = [spec.name for spec in signature.inputs]
        table = self._table(names)
        for name in table:
            if name not in names:
                raise InvalidRequest(f"input {name!r} is unknown; known: {', '.join(names)}")
        for spec in signature.inputs:
            if spec.name not in table:
                raise InvalidRequest(f"input {spec.name!r} is missing: expected {spec.datatype} ({spec.type})")
        rows = len(table[names[0]])
        if rows < 1:
            raise InvalidRequest("expected at least one row")
        return rows, [check(spec, table[spec.name], rows, iso=True) for spec in signature.inputs]

    def _table(self, names: list[str]) -> dict[str, list[Any]]:
        value = self._value
        if self._form == "dataframe_split":
            return _by_position(value.columns, value.data)
        if isinstance(value, dict):
            for name, column in value.items():
                if not isinstance(column, list):
                    raise InvalidRequest(f"input {name!r}: expected a list of values, got {type(column).__name__}")
            return value
        if value and isinstance(value[0], dict):
            return _by_name(value)
        return _by_position(names, value)


def _by_position(names: list[str], data: list[Any]) -> dict[str, list[Any]]:
    if len(set(names)) != len(names):
        raise InvalidRequest("a column name came twice")
    for row in data:
        if not isinstance(row, list) or len(row) != len(names):
            raise InvalidRequest(f"expected every row to be a list of {len(names)} values ({', '.join(names)})")
    return {name: [row[i] for row in data] for i, name in enumerate(names)}


def _by_name(records: list[Any]) -> dict[str, list[Any]]:
    first = records[0].keys()
    for i, record in enumerate(records):
        if not isinstance(record, dict) or record.keys() != first:
            raise InvalidRequest(f"row {i}: expected an object with {', '.join(first)}")
    return {name: [record[name] for record in records] for name in first}


def unit_of(given: Any) -> str:
    """A client's unit id; empty = none came.

    Raises:
        InvalidRequest: no text or number, or over 256 bytes.
    """
    if given is None or given == "":
        return ""
    if not isinstance(given, str | int) or isinstance(given, bool):
        raise InvalidRequest(f"unit_id: expected text, got {type(given).__name__}")
    text = str(given)
    if len(text.encode()) > UNIT_BYTES:
        raise InvalidRequest(f"unit_id is over {UNIT_BYTES} bytes")
    return text


def time_of(given: Any, name: str = "event_time") -> int:
    """A client's time in microseconds: ISO 8601 with offset, or microseconds; none = now.

    Raises:
        InvalidRequest: neither.
    """
    if given is None or given == "":
        return now_us()
    if isinstance(given, int) and not isinstance(given, bool) and abs(given) < 2**62:
        return given
    if isinstance(given, str):
        try:
            return to_us(parse_time(given))
        except ValueError as error:
            raise InvalidRequest(f"{name}: expected ISO 8601 with an offset, got {given[:60]!r}") from error
    raise InvalidRequest(f"{name}: expected ISO 8601 with an offset, got {type(given).__name__}")
