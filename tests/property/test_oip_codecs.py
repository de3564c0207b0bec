"""One request, four codecs: the same columns, also of narrower tensors; and whatever else comes is an invalid request."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_columns import VALUES, Table

from interlock.core.errors import InvalidRequest
from interlock.model import inference_pb2 as pb
from interlock.model import oip, oip_binary, oip_grpc
from interlock.model.columns import pack
from interlock.model.signature import Input, Signature


@st.composite
def tables(draw: st.DrawFn) -> Table:
    """Rows that a binary tensor can hold: only floats have a value for missing."""
    rows = draw(st.integers(1, 5))
    inputs, lists = [], []
    for at, kind in enumerate(draw(st.lists(st.sampled_from(list(VALUES)), min_size=1, max_size=5))):
        nullable = kind == "float" and draw(st.booleans())
        values = st.none() | VALUES[kind] if nullable else VALUES[kind]
        inputs.append(Input(f"{kind}_{at}", kind, nullable=nullable))  # type: ignore[arg-type]  # a key of VALUES
        lists.append(draw(st.lists(values, min_size=rows, max_size=rows)))
    return Table(tuple(inputs), lists)


def sent(table: Table) -> list[dict[str, Any]]:
    return oip.write_inputs(Signature("regression", table.inputs), table.lists)


def binary(tensors: list[dict[str, Any]]) -> tuple[bytes, str]:
    """Body and header of a request whose tensors all follow the JSON."""
    parts, described = [], []
    for one in tensors:
        values = [math.nan if value is None else value for value in one["data"]]
        parts.append(oip_binary.to_raw(one["datatype"], values))
        about = {key: one[key] for key in ("name", "shape", "datatype")}
        described.append(about | {"parameters": {"binary_data_size": len(parts[-1])}})
    head = oip.encode({"inputs": described})
    return b"".join((head, *parts)), str(len(head))


def packed(table: Table, request: oip.InferRequest) -> list[Any]:
    return pack(table.signature, oip.read_columns(table.signature, request)[1])


def by_grpc(data: bytes) -> oip.InferRequest:
    return oip_grpc.read(oip_grpc.parse(pb.ModelInferRequest, data))


HALF, SINGLE = (st.floats(width=width, allow_nan=False, allow_infinity=False) for width in (16, 32))
INTS = {f"{sign}INT{bits}": (sign, bits) for sign in ("", "U") for bits in (8, 16, 32)}
NARROWER = {"FP16": HALF, "FP32": SINGLE} | {
    name: st.integers(0, 2**bits - 1) if sign else st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, (sign, bits) in INTS.items()
}
WIDER = {name: "FP64" if name in ("FP16", "FP32") else "INT64" for name in NARROWER}
CODECS: dict[str, Callable[[list[dict[str, Any]]], oip.InferRequest]] = {
    "json": lambda tensors: oip.decode(oip.encode({"inputs": tensors})),
    "nested json": lambda tensors: oip.decode(oip.encode({"inputs": [nested(one) for one in tensors]})),
    "binary": lambda tensors: oip_binary.decode(*binary(tensors)),
    "grpc, raw": lambda tensors: by_grpc(oip_grpc.question("m", tensors, raw=True)),
    "grpc, typed": lambda tensors: by_grpc(oip_grpc.question("m", tensors, raw=False)),
}


def nested(tensor: dict[str, Any]) -> dict[str, Any]:
    rows, width = tensor["shape"][0], len(tensor["data"]) // tensor["shape"][0]
    data = [tensor["data"][at : at + width] for at in range(0, rows * width, width)]
    return tensor | {"shape": [rows, width], "data": data}


@st.composite
def narrower(draw: st.DrawFn) -> tuple[Signature, list[dict[str, Any]]]:
    """Tensors of narrower datatypes, each now and then, or one matrix; a missing float where one may be."""
    rows, width, matrix = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.booleans())
    names = draw(st.lists(st.sampled_from(list(NARROWER)), min_size=width, max_size=width))
    names = names[:1] * width if matrix else names
    inputs, lists = [], []
    for at, name in enumerate(names):
        nullable = WIDER[name] == "FP64" and draw(st.booleans())
        values = st.none() | NARROWER[name] if nullable else NARROWER[name]
        inputs.append(Input(f"i{at}", "float" if WIDER[name] == "FP64" else "int", nullable=nullable))
        lists.append(draw(st.lists(values, min_size=rows, max_size=rows)))
    signature = Signature("regression", tuple(inputs), layout="matrix" if matrix else "columns")
    tensors = oip.write_inputs(signature, lists)
    return signature, [one | {"datatype": name} for one, name in zip(tensors, names, strict=False)]


def columns(signature: Signature, request: oip.InferRequest) -> list[Any]:
    return pack(signature, oip.read_columns(signature, request)[1])


@given(narrower())
def test_a_narrower_tensor_is_the_same_values_in_the_wider_datatype(
    made: tuple[Signature, list[dict[str, Any]]],
) -> None:
    signature, tensors = made
    wide = oip.decode(oip.encode({"inputs": [one | {"datatype": WIDER[one["datatype"]]} for one in tensors]}))
    assert oip.widen(signature, wide) == []
    expected = columns(signature, wide)
    for name, codec in CODECS.items():
        if name == "grpc, typed" and any(one["datatype"] == "FP16" for one in tensors):
            continue  # the protocol has no field for it
        with pytest.raises(InvalidRequest, match="expected datatype"):
            oip.read_columns(signature, codec(tensors))
        request = codec(tensors)
        assert oip.widen(signature, request) == [one["name"] for one in tensors]
        assert columns(signature, request) == expected, name


@given(st.lists(st.floats(-3e38, 3e38), min_size=1, max_size=4))
def test_numbers_in_json_are_rounded_to_the_datatype_that_they_say(values: list[float]) -> None:
    signature = Signature("regression", (Input("a", "float"),))
    tensor = {"name": "a", "shape": [len(values)], "datatype": "FP32", "data": values}
    answers = []
    for codec in CODECS.values():
        request = codec([tensor])
        oip.widen(signature, request)
        answers.append(columns(signature, request))
    assert answers == [[np.array(values, np.float32).astype(np.float64).tobytes()]] * len(CODECS)


@pytest.mark.parametrize(
    ("kind", "datatype", "value", "says"),
    [
        ("int", "INT8", 128, "expected INT8, got 128"),
        ("int", "UINT32", -1, "expected UINT32, got -1"),
        ("int", "INT32", 1.5, "expected INT64 .*, got 1.5"),
        ("int", "UINT64", 1, "expected datatype INT64, got UINT64"),
        ("int", "FP32", 1.0, "expected datatype INT64, got FP32"),
        ("int", "BOOL", True, "expected datatype INT64, got BOOL"),
        ("float", "INT64", 1, "expected datatype FP64, got INT64"),
        ("float", "INT32", 1, "expected datatype FP64, got INT32"),
        ("float", "FP32", 1e39, "expected FP32, got 1e\\+39"),
        ("float", "FP16", -70_000, "expected FP16, got -70000"),
        ("float", "FP32", 10**400, "expected FP64 .*, got 1000"),
        ("float", "FP32", True, "expected FP64 .*, got True"),
        ("float", "FP32", "1", "expected FP64 .*, got "),
        ("float", "FP32", None, "expected FP64 .*, got nan"),
    ],
)
def test_what_its_own_datatype_cannot_hold_or_the_wider_one_not_exactly_is_refused(
    kind: Any, datatype: str, value: Any, says: str
) -> None:
    signature = Signature("regression", (Input("a", kind),))
    tensor = {"name": "a", "shape": [1], "datatype": datatype, "data": [value]}
    request = oip.InferRequest(msgspec.convert([tensor], list[oip.Tensor]))
    with pytest.raises(InvalidRequest, match=f"input 'a': {says}"):  # noqa: PT012  # either of the two may refuse
        oip.widen(signature, request)
        oip.read_columns(signature, request)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """Cut short, or with some bytes changed, or something else altogether."""
    cut = bytearray(data[: draw(st.integers(0, len(data)))])
    for at in draw(st.lists(st.integers(0, max(0, len(cut) - 1)), max_size=4)) if cut else ():
        cut[at] = draw(st.integers(0, 255))
    return draw(st.sampled_from([bytes(cut), draw(st.binary(max_size=60))]))


@given(st.data())
def test_damaged_binary_bodies_are_invalid_requests_or_rows(data: st.DataObject) -> None:
    table = data.draw(tables())
    body, size = binary(sent(table))
    header = data.draw(st.sampled_from([size, "0", "-1", "1e3", "", "x", "²", str(len(body)), "9" * 5000]))
    with contextlib.suppress(InvalidRequest):
        packed(table, oip_binary.decode(data.draw(damaged(body)), header))


@given(st.data())
def test_damaged_messages_are_invalid_requests_or_rows(data: st.DataObject) -> None:
    table = data.draw(tables())
    with contextlib.suppress(InvalidRequest):
        message = oip_grpc.question("m", sent(table), raw=data.draw(st.booleans()))
        packed(table, by_grpc(data.draw(damaged(message))))


@pytest.mark.parametrize(
    ("datatype", "raw", "says"),
    [
        ("FP64", b"1234567", "8 bytes for each FP64, got 7"),
        ("BOOL", b"\0\1\2", "bytes 0 and 1"),
        ("BF16", b"12", "'BF16' is not one of BYTES, BOOL"),
        ("BYTES", b"\1\0\0", "element 0 goes beyond"),
        ("BYTES", b"\1\0\0\0a\5\0\0\0b", "element 1 goes beyond"),
        ("BYTES", b"\1\0\0\0\xff", "UTF-8"),
    ],
)
def test_raw_bytes_that_do_not_fit_are_refused_by_name(datatype: str, raw: bytes, says: str) -> None:
    with pytest.raises(InvalidRequest, match=f"input 'a'.*{says}"):
        oip_binary.from_raw("a", datatype, raw)


def one(**more: Any) -> Any:
    return pb.ModelInferRequest(inputs=[{"name": "a", "datatype": "FP64", "shape": [1], **more}])


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        (one(contents={"fp32_contents": [1.0]}), "expected FP64 in fp64_contents, got fp32_contents"),
        (one(datatype="FP16"), "'FP16' is not one of"),
        (pb.ModelInferRequest(raw_input_contents=[b""]), "each of 0 inputs, got 1"),
    ],
)
def test_contents_that_do_not_match_are_refused(request_: Any, says: str) -> None:
    with pytest.raises(InvalidRequest, match=says):
        oip_grpc.read(request_)


def test_raw_and_typed_contents_exclude_each_other() -> None:
    both = one(contents={"fp64_contents": [1.0]})
    both.raw_input_contents.append(bytes(8))
    with pytest.raises(InvalidRequest, match="got both"):
        oip_grpc.read(both)


@pytest.mark.parametrize(
    ("tensor", "tail", "says"),
    [
        (b'"data":[1],"parameters":{"binary_data_size":8}', bytes(8), "got both"),
        (b'"parameters":{"binary_data_size":16}', bytes(8), "up to 8, got 16"),
        (b'"parameters":{"binary_data_size":-1}', b"", "up to 0, got -1"),
        (b'"parameters":{"binary_data_size":"8"}', bytes(8), "up to 8, got '8'"),
        (b'"parameters":{"binary_data_size":8}', bytes(9), "1 bytes of the body belong to no input"),
    ],
)
def test_sizes_that_do_not_add_up_are_refused(tensor: bytes, tail: bytes, says: str) -> None:
    head = b'{"inputs":[{"name":"a","shape":[1],"datatype":"FP64",' + tensor + b"}]}"
    with pytest.raises(InvalidRequest, match=says):
        oip_binary.decode(head + tail, str(len(head)))
