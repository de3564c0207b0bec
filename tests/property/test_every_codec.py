"""One table through every codec, as a client of each would send it: the same checked columns, or the same refusal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from datetime import timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_columns import GOOD, VALUES, Table
from tests.property.test_oip_codecs import CODECS

from interlock.core.clock import from_us
from interlock.core.errors import InvalidRequest
from interlock.model import oip
from interlock.model.columns import EXACT, pack
from interlock.model.scoring import CsvQuestion, JsonQuestion
from interlock.model.signature import Input, Signature

AWKWARD = [
    '"',
    '""',
    ",",
    "\n",
    "\r\n",
    "\r",
    ";",
    " a ",
    "'",
    "\\",
    "\ufeff",
    "null",
    "1",
    "true",
    "é, ü",
    "[{",
    "\t\x00",
]
EDGES = {
    "int": st.sampled_from([0, -1, EXACT, -EXACT, EXACT + 1, 2**63 - 1, 1 - 2**63]),
    "float": st.sampled_from([0.0, -0.0, 5e-324, 1.7976931348623157e308, 1e22, 2.0**53, -1.0]),
    "string": st.sampled_from(AWKWARD),
}
NAMES = st.sampled_from([*(one for one in AWKWARD if one != "\ufeff"), "a", "b c", "ß", "inputs"])
OFFSETS = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Rows of any types; a string that is missing is told from an empty one by every codec but CSV."""
    rows = draw(st.integers(1, 4) | st.integers(17, 20))  # few are checked one by one, many at once
    kinds = draw(st.just(["float"]) | st.just(list(VALUES)))
    names = draw(st.lists(NAMES, min_size=1, max_size=6, unique=True))
    inputs, lists = [], []
    for name in names:
        kind = draw(st.sampled_from(kinds))
        nullable = draw(st.booleans())
        values = VALUES[kind] | EDGES.get(kind, VALUES[kind])
        values = values.filter(lambda value: abs(value) <= EXACT) if kind == "int" and nullable else values
        lists.append(draw(st.lists(st.none() | values if nullable else values, min_size=rows, max_size=rows)))
        inputs.append(Input(name, kind, nullable=nullable))  # type: ignore[arg-type]  # a key of VALUES
    return Table(tuple(inputs), lists)


@st.composite
def spelled(draw: st.DrawFn, table: Table) -> list[list[Any]]:
    """The columns with some time stamps as text, each with an offset of its own."""

    def spell(value: Any) -> Any:
        if value is None or not draw(st.booleans()):
            return value
        try:
            return from_us(value).astimezone(draw(OFFSETS)).isoformat()
        except OverflowError:  # on the first or the last day there is no such local time
            return value

    return [
        [spell(value) for value in column] if spec.type == "timestamp" else column
        for spec, column in zip(table.inputs, table.lists, strict=True)
    ]


def by_rows(lists: list[list[Any]]) -> list[list[Any]]:
    return [list(row) for row in zip(*lists, strict=True)]


def records(names: list[str], lists: list[list[Any]]) -> list[dict[str, Any]]:
    return [dict(zip(names, row, strict=True)) for row in by_rows(lists)]


FORMS: dict[str, Callable[[list[str], list[list[Any]]], Any]] = {
    "split": lambda names, lists: {"dataframe_split": {"columns": names, "data": by_rows(lists)}},
    "split, turned": lambda names, lists: {
        "dataframe_split": {"columns": names[::-1], "data": by_rows(lists[::-1]), "index": [*range(len(lists[0]))]}
    },
    "records": lambda names, lists: {"dataframe_records": records(names, lists)},
    "instances, by name": lambda names, lists: {"instances": records(names, lists)},
    "instances, by position": lambda names, lists: {"instances": by_rows(lists)},
    "instances, columns": lambda names, lists: {"instances": dict(zip(names, lists, strict=True))},
    "inputs": lambda names, lists: {"inputs": dict(zip(names, lists, strict=True))},
    "inputs, by position": lambda names, lists: {"inputs": by_rows(lists)},
}
WRITERS: list[Callable[[Any], bytes]] = [lambda content: json.dumps(content).encode(), oip.encode]


def csv_of(names: list[str], lists: list[list[Any]], **dialect: Any) -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, **dialect)
    writer.writerow(names)
    writer.writerows(by_rows(lists))
    return text.getvalue().encode()


def outcome(signature: Signature, read: Callable[[bytes], Any], body: bytes) -> Any:
    """Rows and packed columns of a scoring request, or what is said."""
    try:
        rows, columns = read(body).columns(signature)
    except InvalidRequest as error:
        return error.message
    return rows, pack(signature, columns)


def asked(signature: Signature, request: oip.InferRequest) -> Any:
    """The same of an Open Inference request."""
    rows, columns = oip.read_columns(signature, request)
    return rows, pack(signature, columns)


@given(st.data())
def test_every_codec_gives_the_same_columns(data: st.DataObject) -> None:
    table = data.draw(tables())
    signature = table.signature
    names = [spec.name for spec in table.inputs]
    tensors = oip.write_inputs(signature, table.lists)
    expected = asked(signature, oip.decode(oip.encode({"inputs": tensors})))
    assert expected[0] == len(table.lists[0])
    sayable = all(
        None not in column or spec.type == "float" for spec, column in zip(table.inputs, table.lists, strict=True)
    )
    for name, codec in CODECS.items():
        if sayable or "json" in name:
            assert asked(signature, codec(tensors)) == expected, name
    write = data.draw(st.sampled_from(WRITERS))
    lists = data.draw(spelled(table))
    for name, form in FORMS.items():
        assert outcome(signature, JsonQuestion, write(form(names, lists))) == expected, name


@given(st.data())
def test_csv_gives_them_too_but_an_empty_text_is_a_missing_one(data: st.DataObject) -> None:
    table = data.draw(tables())
    signature = table.signature
    names = [spec.name for spec in table.inputs]
    lists = [[None if value == "" else value for value in column] for column in table.lists]
    expected = outcome(signature, JsonQuestion, oip.encode({"inputs": dict(zip(names, lists, strict=True))}))
    dialect = data.draw(st.sampled_from([{}, {"quoting": csv.QUOTE_ALL, "lineterminator": "\n"}]))
    body = csv_of(names, data.draw(spelled(table)), **dialect)
    assert outcome(signature, CsvQuestion, body) == expected


@given(st.data())
def test_every_codec_gives_the_same_matrix(data: st.DataObject) -> None:
    names = [f"i{at}" for at in range(data.draw(st.integers(2, 5)))]
    rows = data.draw(st.integers(1, 4) | st.integers(17, 20))
    nullable = data.draw(st.booleans())
    values = VALUES["float"] | EDGES["float"] | st.integers(-(2**53), 2**53)
    column = st.lists(st.none() | values if nullable else values, min_size=rows, max_size=rows)
    lists = [data.draw(column) for _ in names]
    inputs = tuple(Input(name, "float", nullable=nullable) for name in names)
    signature, apart = Signature("regression", inputs, layout="matrix"), Signature("regression", inputs)
    expected = asked(apart, oip.decode(oip.encode({"inputs": oip.write_inputs(apart, lists)})))
    tensors = oip.write_inputs(signature, lists)
    for name, codec in CODECS.items():
        assert asked(signature, codec(tensors)) == expected, name
    for name, form in FORMS.items():
        assert outcome(signature, JsonQuestion, oip.encode(form(names, lists))) == expected, name
    assert outcome(signature, CsvQuestion, csv_of(names, lists)) == expected


WRONG: dict[str, list[Any]] = {
    "float": ["x", [1], {}],
    "int": [1.5, "x", 2**64],
    "bool": ["maybe"],
    "string": [[], {"a": 1}],
    "category": [[]],
    "timestamp": ["soon", "2026-01-01T00:00:00", 2**63 - 1, "0001-01-01T00:00:00+01:00"],
}


@given(st.data())
def test_every_codec_says_the_same_of_a_value_that_does_not_fit(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(list(WRONG)))
    spec = Input("a", kind, nullable=data.draw(st.booleans()))  # type: ignore[arg-type]  # a key of WRONG
    signature = Signature("regression", (Input("b", "int"), spec))
    rows = data.draw(st.sampled_from([1, 3, 40]))
    column = [GOOD[kind]] * rows
    column[data.draw(st.integers(0, rows - 1))] = data.draw(st.sampled_from(WRONG[kind]))
    bodies = [oip.encode(form(["b", "a"], [[1] * rows, column])) for form in FORMS.values()]
    said = {outcome(signature, JsonQuestion, body) for body in bodies}
    assert len(said) == 1
    assert said.pop().startswith("input 'a': expected")


@pytest.mark.parametrize("blank", ["", "\n\n", "\r\n"])
def test_blank_lines_of_a_csv_are_no_rows(blank: str) -> None:
    signature = Signature("regression", (Input("a", "int"),))
    assert CsvQuestion(f"{blank}a\n{blank}1\n{blank}2{blank}".encode()).columns(signature) == (2, [[1, 2]])
