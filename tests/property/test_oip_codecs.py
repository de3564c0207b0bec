"""One request, four codecs: the same columns; and whatever else comes is refused as an invalid request."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.property.test_columns import VALUES, Table
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from interlock.core.errors import InvalidRequest
from interlock.model import inference_pb2 as pb
from interlock.model import oip, oip_binary, oip_grpc
from interlock.model.columns import pack
from interlock.model.signature import Input, Signature

NUMPY = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}
FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}


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


def arrays(table: Table) -> list[Any]:
    """What a client with numpy holds."""
    columns = [[math.nan if value is None else value for value in column] for column in table.lists]
    return [np.array(column, NUMPY[spec.datatype]) for spec, column in zip(table.inputs, columns, strict=True)]


def binary(table: Table) -> tuple[bytes, str]:
    inputs = []
    for spec, array in zip(table.inputs, arrays(table), strict=True):
        inputs.append(triton_http.InferInput(spec.name, array.shape, spec.datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=True)
    body, size = triton_http.InferenceServerClient.generate_request_body(inputs)
    return body, str(size)


def message(table: Table, *, raw: bool) -> bytes:
    request = triton_grpc.service_pb2.ModelInferRequest(model_name="m")
    for spec, array in zip(table.inputs, arrays(table), strict=True):
        one = triton_grpc.InferInput(spec.name, array.shape, spec.datatype)
        one.set_data_from_numpy(array)
        tensor = request.inputs.add()
        tensor.CopyFrom(one._get_tensor())
        if raw:
            request.raw_input_contents.append(one._get_content())
        else:
            values = [value.encode() for value in array] if spec.datatype == "BYTES" else array.tolist()
            getattr(tensor.contents, FIELDS[spec.datatype]).extend(values)
    data: bytes = request.SerializeToString()
    return data


def packed(table: Table, request: oip.InferRequest) -> list[Any]:
    return pack(table.signature, oip.read_columns(table.signature, request)[1])


def by_grpc(data: bytes) -> oip.InferRequest:
    return oip_grpc.read(oip_grpc.parse(pb.ModelInferRequest, data))


@given(tables())
def test_every_codec_reads_the_same_columns(table: Table) -> None:
    inputs = oip.write_inputs(Signature("regression", table.inputs), table.lists)
    expected = packed(table, oip.decode(oip.encode({"inputs": inputs})))
    assert packed(table, oip_binary.decode(*binary(table))) == expected
    assert packed(table, by_grpc(message(table, raw=True))) == expected
    assert packed(table, by_grpc(message(table, raw=False))) == expected


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
    body, size = binary(table)
    header = data.draw(st.sampled_from([size, "0", "-1", "1e3", "", "x", "²", str(len(body)), "9" * 5000]))
    with contextlib.suppress(InvalidRequest):
        packed(table, oip_binary.decode(data.draw(damaged(body)), header))


@given(st.data())
def test_damaged_messages_are_invalid_requests_or_rows(data: st.DataObject) -> None:
    table = data.draw(tables())
    with contextlib.suppress(InvalidRequest):
        packed(table, by_grpc(data.draw(damaged(message(table, raw=data.draw(st.booleans()))))))


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
