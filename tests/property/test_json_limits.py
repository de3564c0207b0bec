"""Limits of a body, found before anything is made of it: nesting, numbers of values and rows, numbers that are slow to read."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_oip_codecs import CODECS

from interlock.core.errors import InvalidRequest, TooLarge
from interlock.model import inference_pb2 as pb
from interlock.model import oip, oip_binary, oip_grpc
from interlock.model.columns import Columns, pack
from interlock.model.scoring import CsvQuestion, JsonQuestion
from interlock.model.signature import ALWAYS, ROWS, VALUES, Input, Signature
from interlock.model.wire import LIMIT

MIB = 1 << 20
SIGNATURE = Signature("regression", (Input("a", "float"),))
HEAD = b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP64","data":['
WORDS = st.text(st.sampled_from('[]{},:"\\/a\n'), max_size=80)
TREES = st.recursive(
    st.none() | st.integers() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=20,
)


def depth(tree: Any) -> int:
    inner = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else None
    return 0 if inner is None else 1 + max(map(depth, inner), default=0)


@given(TREES, st.integers(55, 68), st.text("[{", max_size=70))
def test_nesting_is_counted_outside_of_strings(tree: Any, around: int, word: str) -> None:
    deep: Any = [word, tree]
    for at in range(around):
        deep = {word: deep} if at % 3 == 0 else [deep, word]
    body = json.dumps(deep).encode()
    if depth(deep) > oip.DEPTH:
        with pytest.raises(InvalidRequest, match="nested deeper than 64"):
            oip.check_structure(body)
    else:
        oip.check_structure(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"a":"' + b"[" * 10 * MIB + b'"}',
        b'{"a":"' + b'\\"[' * 3 * MIB + b'"}',
        b'{"a":"' + b"[" * 100 + b"\\\\" * 5 * MIB + b'"}',
        b'"' + b"[" * 10 * MIB,
        b"[" * 65 + b'"' * 10 * MIB,
        b"[" * 63 + b"[]" * 5 * MIB,
        b'"["[],' * (10 * MIB // 6),
    ],
    ids=["brackets", "escaped quotes", "backslashes", "no end", "quotes", "lists", "in turn"],
)
def test_no_body_is_slow_to_look_through(body: bytes) -> None:
    began = time.process_time()
    try:
        oip.check_structure(body)
    except InvalidRequest as error:
        assert "nested" in error.message or "values" in error.message  # noqa: PT017  # some are refused, none is slow
    assert time.process_time() - began < 1.0


@pytest.mark.parametrize("number", ["1e308", "4.9E-324", "-1.7976931348623157e308"])
def test_numbers_that_are_slow_to_read_are_read_the_same(number: str) -> None:
    began = time.process_time()
    many = oip.decode(HEAD + b",".join([number.encode()] * 300_000) + b"]}]}").inputs[0]
    assert time.process_time() - began < 2.0
    assert many.data == [float(number)] * 300_000
    parameters = b",".join(b'"%d":%s' % (i, number.encode()) for i in range(20_000))
    asked = oip.decode(b'{"inputs":[],"parameters":{' + parameters + b"}}")
    assert asked.parameters == {str(i): float(number) for i in range(20_000)}


@pytest.mark.parametrize("wrong", [b"1e400", b"NaN", b"1e", b'"\xff"'])
def test_what_is_wrong_is_wrong_in_a_long_body_too(wrong: bytes) -> None:
    with pytest.raises(InvalidRequest):
        oip.decode(HEAD + wrong + b"]}]}")
    with pytest.raises(InvalidRequest):
        oip.decode(HEAD + b"1e3," * 20_000 + wrong + b"]}]}")
    with pytest.raises(InvalidRequest, match=r"not an Open Inference .* got `int` - at `\$\.id`"):
        oip.decode(b'{"id":1,"inputs":[],"x":[' + b"1e3," * 20_000 + b"1]}")


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"1," * VALUES + b"1,1]}]}",
        HEAD + b"[1]," * VALUES + b"[1],[1]]}]}",
        b'{"x":[' + b'"",' * VALUES + b'"",""],"inputs":[]}',
    ],
)
def test_more_values_than_a_request_may_have_are_refused_unread(body: bytes) -> None:
    with pytest.raises(TooLarge, match=f"over {VALUES} values"):
        oip.decode(body)
    assert oip.decode(b'{"id":"' + b"," * 2 * VALUES + b'","inputs":[]}').id == "," * 2 * VALUES


def by_csv(lists: list[list[Any]]) -> bytes:
    return "\n".join(["a", *map(str, lists[0])]).encode()


def by_json(form: Callable[[list[Any]], Any]) -> Callable[[list[list[Any]]], bytes]:
    return lambda lists: oip.encode(form(lists[0]))


SCORING: dict[str, tuple[Callable[[bytes], JsonQuestion | CsvQuestion], Callable[[list[list[Any]]], bytes]]] = {
    "split": (JsonQuestion, by_json(lambda a: {"dataframe_split": {"columns": ["a"], "data": [[one] for one in a]}})),
    "records": (JsonQuestion, by_json(lambda a: {"dataframe_records": [{"a": one} for one in a]})),
    "instances": (JsonQuestion, by_json(lambda a: {"instances": [[one] for one in a]})),
    "inputs": (JsonQuestion, by_json(lambda a: {"inputs": {"a": a}})),
    "csv": (CsvQuestion, by_csv),
}
"""Each form's reader, and what a client sends."""


def read(codec: str, signature: Signature, lists: list[list[Any]]) -> tuple[int, Columns]:
    if codec in SCORING:
        kind, write = SCORING[codec]
        return kind(write(lists)).columns(signature)
    return oip.read_columns(signature, CODECS[codec](oip.write_inputs(signature, lists)))


@pytest.mark.parametrize("codec", [*CODECS, *SCORING])
def test_a_request_has_so_many_rows_and_no_more(codec: str) -> None:
    rows, columns = read(codec, SIGNATURE, [[0.5] * ROWS])
    assert (rows, len(pack(SIGNATURE, columns)[0])) == (ROWS, 8 * ROWS)
    with pytest.raises(TooLarge, match=f"over {ROWS} rows"):
        read(codec, SIGNATURE, [[0.5] * (ROWS + 1)])


@pytest.mark.parametrize("codec", CODECS)
def test_a_matrix_has_so_many_rows_and_no_more(codec: str) -> None:
    signature = Signature("regression", (Input("a", "float"), Input("b", "float")), layout="matrix")
    assert read(codec, signature, [[1] * ROWS, [2] * ROWS])[0] == ROWS
    with pytest.raises(TooLarge, match=f"over {ROWS} rows"):
        read(codec, signature, [[1] * (ROWS + 1)] * 2)


def test_many_inputs_or_classes_leave_fewer_rows_but_never_less_than_a_thousand() -> None:
    inputs = tuple(Input(f"i{at}", "float") for at in range(49))
    assert Signature("regression", inputs).most_rows == VALUES // 50
    assert Signature("multiclass", inputs[:10], classes=tuple(range(90))).most_rows == VALUES // 100
    assert Signature("multiclass", inputs, classes=tuple(range(1000))).most_rows == ALWAYS
    huge = Signature("multiclass", inputs, classes=tuple(range(100_000)))
    assert 0 < huge.most_rows * huge.width * 8 < LIMIT, "its answer fits into one message"


def message(**more: Any) -> bytes:
    data: bytes = pb.ModelInferRequest(**more).SerializeToString()
    return data


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (message(outputs=[{}] * 10_001), "over 10000 inputs, outputs and parameters"),
        (message(inputs=[{"parameters": {str(i): {} for i in range(10_001)}}]), "over 10000 inputs"),
        (message(inputs=[{"datatype": "BYTES", "contents": {"bytes_contents": [b""] * (VALUES + 1)}}]), "values"),
        (message(inputs=[{"datatype": "BOOL", "contents": {"bool_contents": [True] * (VALUES + 1)}}]), "values"),
        (message(inputs=[{"datatype": "BYTES"}] * 2, raw_input_contents=[bytes(4 * VALUES), bytes(8)]), "values"),
    ],
)
def test_a_message_of_too_many_parts_is_refused(body: bytes, says: str) -> None:
    with pytest.raises(TooLarge, match=says):
        oip_grpc.read(oip_grpc.parse(pb.ModelInferRequest, body))


def test_a_binary_tensor_of_too_many_texts_is_refused() -> None:
    about = {"name": "a", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 4 * VALUES + 4}}
    head = oip.encode({"inputs": [about]})
    with pytest.raises(TooLarge, match="values"):
        oip_binary.decode(head + bytes(4 * VALUES + 4), str(len(head)))


@pytest.mark.parametrize("name", ["datatype", "name"])
def test_an_error_quotes_no_more_than_the_beginning(name: str) -> None:
    tensor = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1]} | {name: "x" * MIB}
    signature = Signature("regression", (Input("a", "float"), Input("b", "float")))
    for one in (signature, Signature("regression", signature.inputs, layout="matrix")):
        for inputs in ([tensor], [tensor, tensor], [{**tensor, "name": "input"}]):
            with pytest.raises(InvalidRequest) as refused:
                oip.read_columns(one, oip.decode(oip.encode({"inputs": inputs})))
            assert len(refused.value.message) < 400
