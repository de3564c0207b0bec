"""Random conditions of the right types over random rows: the same truth as the library's own reading, and never an exception."""

from __future__ import annotations

from typing import Any

import cel
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.clock import from_us
from interlock.model.conditions import Conditions
from interlock.model.signature import Input, Signature

SIGNATURE = Signature(
    task="regression",
    inputs=(
        Input("a", "float", nullable=True),
        Input("b c", "int"),
        Input("d", "string", nullable=True),
        Input("e", "bool"),
        Input("f", "timestamp"),
    ),
)
LEAVES = {
    "double": ["input.a", "1.5", "-2.0", "1e9"],
    "int": ['input["b c"]', "3", "0", "-9223372036854775807"],
    "string": ["input.d", "unit", "'x'", '"\\"y"'],
    "bool": ["input.e", "true", "false", "(input.a == null)", "(input.d != null)"],
    "timestamp": ["input.f", "time", "timestamp('2020-01-01T00:00:00Z')"],
    "duration": ["duration('36h')", "(time - input.f)"],
}
SHAPES = {
    "double": ["{double} {sign} {double}", "double({int})", "-({double})", "({bool} ? {double} : {double})"],
    "int": ["{int} {sign} {int}", "{int} % {int}", "int({double})", "{string}.size()", "{timestamp}.getDayOfYear()"],
    "string": ["({string} + {string})", "string({int})"],
    "bool": [
        "{bool} && {bool}", "{bool} || {bool}", "!({bool})", "({bool})", "({double} < {int})", "({string} >= {string})",
        "({int} == {double})", "({string} in ['x', {string}])", "{string}.contains({string})", "({duration} > {duration})",
        "({timestamp} < {timestamp})", "({bool} ? {bool} : {bool})", "(({bool}) == ({bool}))", "({int} - {int} != {int})",
    ],
    "timestamp": ["({timestamp} + {duration})"],
    "duration": ["({duration} + {duration})"],
}  # fmt: skip


@st.composite
def texts(draw: st.DrawFn, kind: str = "bool", depth: int = 4) -> str:
    if depth == 0 or draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from(LEAVES[kind]))
    text, made = draw(st.sampled_from(SHAPES[kind])), ""
    for part in text.split("{"):
        name, bracket, rest = part.partition("}")
        if not bracket:
            made += part
        else:
            made += (draw(st.sampled_from("+-*/")) if name == "sign" else draw(texts(name, depth - 1))) + rest
    return made


WORDS = st.text(st.characters(exclude_categories=["Cs"]), max_size=4)
ROWS = st.tuples(
    st.floats(allow_infinity=False),
    st.integers(-(2**63), 2**63 - 1),
    st.none() | WORDS,
    st.booleans(),
    st.integers(-(10**15), 4 * 10**15),
)


def truth(text: str, row: tuple[Any, ...], unit: str, at: int) -> bool:
    """What the library says about the text as it was written."""
    a, b, d, e, f = row
    values = {"a": None if a != a else a, "b c": b, "d": d, "e": e, "f": from_us(f)}
    try:
        return bool(cel.evaluate(text, {"input": values, "unit": unit, "time": from_us(at)}))
    except (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError):
        return False


@given(st.lists(texts(), min_size=1, max_size=4), st.lists(ROWS, min_size=1, max_size=3), WORDS, ROWS)
def test_the_first_that_holds_for_any_row(
    conditions: list[str], rows: list[tuple[Any, ...]], unit: str, other: tuple[Any, ...]
) -> None:
    at = other[4]
    expected = [any(truth(text, row, unit, at) for row in rows) for text in conditions]
    compiled = Conditions(conditions, SIGNATURE)
    columns = [list(column) for column in zip(*rows, strict=True)]
    found = compiled.first(columns, len(rows), unit, at)
    assert found == (expected.index(True) if True in expected else None)
