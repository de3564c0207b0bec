"""Tensors as bytes: the raw contents of gRPC, and the binary tensor data extension of REST, where they follow the JSON.

Row-major, little-endian, no padding; BOOL is one byte, 0 or 1; each BYTES element stands behind its length as uint32.
Source: https://github.com/triton-inference-server/server (docs/protocol/extension_binary_data.md).
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import Any

import msgspec
import numpy as np

from interlock.core.errors import InvalidRequest
from interlock.core.http import JSON
from interlock.model import oip
from interlock.model.signature import VALUES

HEADER = "inference-header-content-length"
"""Bytes of the JSON in front of the tensors; the request or answer is plain JSON without it."""
_DIGITS = 12
_LENGTH = struct.Struct("<I")
_DTYPES = {"BOOL": "?", "UINT8": "<u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8"}
_DTYPES |= {"INT8": "<i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8"}


class BinaryOutput(msgspec.Struct):
    """An answer tensor whose data follow the JSON; `parameters` say how many bytes."""

    name: str
    datatype: str
    shape: list[int]
    parameters: dict[str, int]


def from_raw(name: str, datatype: str, raw: bytes, most: int = VALUES) -> list[Any]:
    """The values of an input tensor; whether they are as many as its shape says, `oip.read_columns` checks.

    Raises:
        InvalidRequest: a datatype that has no such form, bytes left over, or BYTES that are no UTF-8.
        TooLarge: more than `most` elements of BYTES, each of which takes as long as a hundred numbers.
    """
    if datatype == "BYTES":
        return texts(name, _elements(name, raw, most))
    if datatype not in _DTYPES:
        raise InvalidRequest(f"input {name!r:.60}: datatype {datatype!r:.60} is not one of BYTES, {', '.join(_DTYPES)}")
    dtype = np.dtype(_DTYPES[datatype])
    if len(raw) % dtype.itemsize:
        raise InvalidRequest(
            f"input {name!r:.60}: expected {dtype.itemsize} bytes for each {datatype}, got {len(raw)} in all"
        )
    if datatype == "BOOL" and raw.translate(None, b"\0\1"):
        raise InvalidRequest(f"input {name!r:.60}: expected BOOL as bytes 0 and 1, got others")
    values: list[Any] = np.frombuffer(raw, dtype).tolist()
    return values


def _elements(name: str, raw: bytes, most: int) -> list[bytes]:
    elements: list[bytes] = []
    at, end = 0, len(raw)
    while at < end:
        start = at + _LENGTH.size
        at = start + _LENGTH.unpack_from(raw, at)[0] if start <= end else start
        if at > end:
            raise InvalidRequest(
                f"input {name!r:.60}: BYTES element {len(elements)} goes beyond the tensor's {end} bytes"
            )
        if len(elements) == most:
            raise oip.too_many_values()
        elements.append(raw[start:at])
    return elements


def texts(name: str, elements: Iterable[bytes]) -> list[str]:
    """BYTES elements of an input, which hold UTF-8.

    Raises:
        InvalidRequest: one does not.
    """
    try:
        return list(map(bytes.decode, elements))
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"input {name!r:.60}: expected BYTES in UTF-8, got {error.object[:20]!r}") from None


def to_raw(datatype: str, values: list[Any]) -> bytes:
    """The bytes of an output tensor."""
    if datatype == "BYTES":
        elements = [value.encode() for value in values]
        return b"".join(part for one in elements for part in (_LENGTH.pack(len(one)), one))
    return np.array(values, _DTYPES[datatype]).tobytes()


def decode(body: bytes, header: str) -> oip.InferRequest:
    """Parse a body whose first `header` bytes are JSON; tensors with `binary_data_size` take theirs from what follows.

    Raises:
        InvalidRequest: the sizes do not add up, or one of the parts is not what it should be.
        TooLarge: it holds more than `VALUES` values.
    """
    if not (header.isascii() and header.isdigit()) or len(header) > _DIGITS or int(header) > len(body):
        raise InvalidRequest(f"{HEADER}: expected a number up to the body's {len(body)} bytes, got {header[:20]!r}")
    at, most = int(header), VALUES
    request = oip.decode(body[:at])
    for tensor in request.inputs:
        size = (tensor.parameters or {}).get("binary_data_size")
        if size is None:
            continue
        if type(size) is not int or not 0 <= size <= len(body) - at:
            left = len(body) - at
            raise InvalidRequest(f"input {tensor.name!r:.60}: expected binary_data_size up to {left}, got {size!r:.60}")
        if tensor.data:
            raise InvalidRequest(f"input {tensor.name!r:.60}: expected data or binary_data_size, got both")
        tensor.data = from_raw(tensor.name, tensor.datatype, body[at : at + size], most)
        most = max(0, most - len(tensor.data))
        at += size
    if at != len(body):
        raise InvalidRequest(f"{len(body) - at} bytes of the body belong to no input: check {HEADER}, binary_data_size")
    return request


def respond(asked: oip.InferRequest, response: oip.InferResponse) -> tuple[bytes, list[tuple[str, str]]]:
    """Body and headers of an answer; the outputs that the client wants in binary follow the JSON."""
    every = asked.parameters is not None and asked.parameters.get("binary_data_output") is True
    if asked.outputs is None and not every:
        return oip.encode(response), JSON
    said = {one.name: (one.parameters or {}).get("binary_data", every) is True for one in asked.outputs or ()}
    outputs: list[Any] = []
    parts = []
    for output in response.outputs:
        if said.get(output.name, every):
            parts.append(to_raw(output.datatype, output.data))
            size = {"binary_data_size": len(parts[-1])}
            outputs.append(BinaryOutput(output.name, output.datatype, output.shape, size))
        else:
            outputs.append(output)
    content = oip.encode(msgspec.structs.replace(response, outputs=outputs))
    if not parts:
        return content, JSON
    headers = [("content-type", "application/octet-stream"), (HEADER, str(len(content)))]
    return b"".join((content, *parts)), headers
