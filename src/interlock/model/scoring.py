"""MLflow's scoring requests: exactly one of four JSON forms, or CSV with a header. SageMaker's runtime sends the same."""

from __future__ import annotations

import csv
import io
from abc import ABC, abstractmethod
from collections.abc import Callable
from itertools import islice
from typing import Any

import msgspec

from interlock.core.errors import InvalidRequest, UnsupportedMedia
from interlock.core.settings import Logical
from interlock.model import oip
from interlock.model.columns import Columns, check, too_many
from interlock.model.signature import ALWAYS, ROWS, VALUES, Input, Signature

WORDS = {"true": True, "false": False, "1": True, "0": False}


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


_decoder = msgspec.json.Decoder(_Scoring)
_FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def parser(content_type: str | None, identity: str | None = None) -> Callable[[bytes], ScoringQuestion]:
    """What reads a body of that type; it refuses one of a type that is not spoken here. `identity`: the request's own id.

    Raises (from the parser):
        UnsupportedMedia: neither JSON nor CSV.
    """
    media = (content_type or "application/json").partition(";")[0].strip().lower()

    def parse(body: bytes) -> ScoringQuestion:
        if media not in KINDS:
            raise UnsupportedMedia(f"content type {media!r} is not spoken here; send {' or '.join(KINDS)}")
        question = KINDS[media](body)
        question.id = identity
        return question

    return parse


class ScoringQuestion(ABC):
    """A table whose columns are read once the signature is known; see `questions.Question`."""

    id: str | None = None
    parameters: dict[str, Any]

    def __init__(self, body: bytes) -> None:
        self.parameters = {}

    def widen(self, signature: Signature) -> list[str]:
        """Nothing: its values have no datatype of their own; see `questions.Question`."""
        return []

    def columns(self, signature: Signature) -> tuple[int, Columns]:
        """Rows and checked columns.

        Raises:
            InvalidRequest: they do not fit the signature.
            TooLarge: more rows than `Signature.most_rows`.
        """
        names = [spec.name for spec in signature.inputs]
        table = self._table(signature)
        for name in table:
            if name not in names:
                raise InvalidRequest(f"input {name!r:.60} is unknown; known: {', '.join(names)}")
        for spec in signature.inputs:
            if spec.name not in table:
                raise InvalidRequest(f"input {spec.name!r} is missing: expected {spec.datatype} ({spec.type})")
        rows = len(table[names[0]])
        if rows < 1:
            raise InvalidRequest("expected at least one row")
        if rows > signature.most_rows:
            raise too_many(signature)
        return rows, [check(spec, table[spec.name], rows, iso=True) for spec in signature.inputs]

    @abstractmethod
    def _table(self, signature: Signature) -> dict[str, list[Any]]:
        """Values by input."""


class JsonQuestion(ScoringQuestion):
    """`dataframe_split`, `dataframe_records`, `instances` or `inputs`."""

    def __init__(self, body: bytes) -> None:
        scoring = oip.read_json(_decoder, body, "a scoring request")
        given = [form for form in _FORMS if getattr(scoring, form) is not None]
        if len(given) != 1:
            raise InvalidRequest(f"expected exactly one of {', '.join(_FORMS)}, got {', '.join(given) or 'none'}")
        self.parameters = scoring.params or {}
        self._value: Any = getattr(scoring, given[0])

    def _table(self, signature: Signature) -> dict[str, list[Any]]:
        value = self._value
        if isinstance(value, _Split):
            return _by_position(value.columns, value.data)
        if isinstance(value, dict):
            for name, column in value.items():
                if not isinstance(column, list):
                    raise InvalidRequest(f"input {name!r:.60}: expected a list of values, got {type(column).__name__}")
            return value
        if value and isinstance(value[0], dict):
            return _by_name(value)
        return _by_position([spec.name for spec in signature.inputs], value)


class CsvQuestion(ScoringQuestion):
    """A header of the inputs' names, then rows; an empty cell is a missing value."""

    def __init__(self, body: bytes) -> None:
        super().__init__(body)
        try:
            lines = filter(None, csv.reader(io.StringIO(body.decode("utf-8-sig"), newline=""), strict=True))
            self._names = next(lines, [])
            most = max(ALWAYS, min(ROWS, VALUES // max(1, len(self._names))))
            self._rows = list(islice(lines, most + 1))  # no model takes that many
        except (csv.Error, UnicodeDecodeError) as error:
            raise InvalidRequest(f"the body is not valid CSV: {error}") from error
        if not self._names:
            raise InvalidRequest("the CSV has no header with the inputs' names")

    def _table(self, signature: Signature) -> dict[str, list[Any]]:
        table = _by_position(self._names, self._rows)
        return table | {spec.name: _cells(spec, table[spec.name]) for spec in signature.inputs if spec.name in table}


KINDS: dict[str, Callable[[bytes], ScoringQuestion]] = {"application/json": JsonQuestion, "text/csv": CsvQuestion}


def _instant(text: str) -> int | str:
    """Microseconds; any other text may be ISO 8601, which `check` reads."""
    return int(text) if text.lstrip("-").isdecimal() else text


SPELLED: dict[Logical, Callable[[str], Any]] = {
    "float": float, "int": int, "bool": lambda text: WORDS[text.strip().lower()], "timestamp": _instant,
}  # fmt: skip
"""What a cell says; the others are text."""


def _cells(spec: Input, texts: list[str]) -> list[Any]:
    """The values that cells spell; what does not fit stays text, and is refused with its input's name."""
    read = SPELLED.get(spec.type, str)
    if "" not in texts:
        try:
            return list(map(read, texts))
        except (ValueError, KeyError):
            pass
    return [_cell(read, text) if text else None for text in texts]


def _cell(read: Callable[[str], Any], text: str) -> Any:
    try:
        return read(text)
    except (ValueError, KeyError):
        return text


def _by_position(names: list[str], data: list[Any]) -> dict[str, list[Any]]:
    if len(set(names)) != len(names):
        raise InvalidRequest("a column name came twice")
    for row in data:
        if not isinstance(row, list) or len(row) != len(names):
            some = ", ".join(names[:10])
            raise InvalidRequest(f"expected every row to be a list of {len(names)} values ({some:.200})")
    return dict(zip(names, map(list, zip(*data, strict=True)), strict=True)) if data else {name: [] for name in names}


def _by_name(records: list[Any]) -> dict[str, list[Any]]:
    first = records[0].keys()
    for i, record in enumerate(records):
        if not isinstance(record, dict) or record.keys() != first:
            some = ", ".join(islice(first, 10))
            raise InvalidRequest(f"row {i}: expected an object with {some:.200}")
    return {name: [record[name] for record in records] for name in first}
