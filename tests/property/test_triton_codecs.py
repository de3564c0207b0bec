"""What NVIDIA's tritonclient sends, through every codec: the same columns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from hypothesis import given
from tests.property.test_columns import Table
from tests.property.test_oip_codecs import by_grpc, packed, tables
from tritonclient import grpc as triton_grpc
from tritonclient import http as triton_http

from interlock.model import oip, oip_binary
from interlock.model.signature import Signature

NUMPY = {"FP64": np.float64, "INT64": np.int64, "BOOL": np.bool_, "BYTES": np.object_}
FIELDS = {"FP64": "fp64_contents", "INT64": "int64_contents", "BOOL": "bool_contents", "BYTES": "bytes_contents"}


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


@given(tables())
def test_every_codec_reads_the_same_columns(table: Table) -> None:
    inputs = oip.write_inputs(Signature("regression", table.inputs), table.lists)
    expected = packed(table, oip.decode(oip.encode({"inputs": inputs})))
    assert packed(table, oip_binary.decode(*binary(table))) == expected
    assert packed(table, by_grpc(message(table, raw=True))) == expected
    assert packed(table, by_grpc(message(table, raw=False))) == expected
