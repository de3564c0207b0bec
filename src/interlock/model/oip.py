"""Open Inference Protocol v2: its structs, requests into checked columns, answers into tensors, and the JSON of REST.

The other codecs, `oip_binary` and `oip_grpc`, fill the same structs, so all of them are checked here.
Source: https://github.com/kserve/open-inference-protocol (inference_rest.md).
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
import numpy as np

from interlock import __version__
from interlock.core.errors import InvalidRequest
from interlock.model.answers import Answer
from interlock.model.columns import Columns, Matrix, check
from interlock.model.signature import Signature

DEPTH = 64
_FLOATS = {float}
_NUMBERS = {float, int, type(None)}
_NARROWER: dict[str, dict[str, np.dtype[Any]]] = {
    "FP64": {"FP16": np.dtype(np.float16), "FP32": np.dtype(np.float32)},
    "INT64": {name: np.dtype(name.lower()) for name in ("INT8", "INT16", "INT32", "UINT8", "UINT16", "UINT32")},
}
"""Datatypes of which every value is one of the wider datatype too."""
T = TypeVar("T")
SERVER: dict[str, Any] = {"name": "interlock", "version": __version__, "extensions": ["binary_tensor_data"]}
"""Server metadata as the protocol wants it."""
Scalar = str | int | float | bool | None


class Tensor(msgspec.Struct):
    """An input tensor. `data`, row-major, flat or nested, is not in the JSON where it follows in binary."""

    name: str
    shape: list[int]
    datatype: str
    data: list[Any] = []
    parameters: dict[str, Scalar] | None = None


class RequestedOutput(msgspec.Struct):
    """An output the client asks for."""

    name: str
    parameters: dict[str, Scalar] | None = None


class InferRequest(msgspec.Struct):
    """The body of `POST …/infer`."""

    inputs: list[Tensor]
    id: str | None = None
    parameters: dict[str, Scalar] | None = None
    outputs: list[RequestedOutput] | None = None


class OutputTensor(msgspec.Struct):
    """An answer tensor."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any]


class InferResponse(msgspec.Struct, omit_defaults=True):
    """The body of an answer."""

    model_name: str
    model_version: str
    outputs: list[OutputTensor]
    id: str | None = None
    parameters: dict[str, Scalar] | None = None


_decode = msgspec.json.Decoder(InferRequest).decode
encode = msgspec.json.Encoder().encode


def decode(body: bytes) -> InferRequest:
    """Parse a request body.

    Raises:
        InvalidRequest: no JSON, NaN or infinity tokens, nested deeper than 64, or not of the protocol's form.
    """
    return read_json(_decode, body, "an Open Inference Protocol request")


def read_json(read: Callable[[bytes], T], body: bytes, what: str) -> T:
    """A body read by a typed decoder; `what` it should be.

    Raises:
        InvalidRequest: no JSON, NaN or infinity tokens, nested deeper than 64, or of another form.
    """
    check_depth(body)
    try:
        return read(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"not {what}: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error


def check_depth(body: bytes) -> None:
    """Refuse JSON that is nested deeper than 64; almost free for bodies with few brackets.

    Raises:
        InvalidRequest: it is.
    """
    if body.count(b"[") + body.count(b"{") <= DEPTH:
        return
    codes = np.frombuffer(body, np.uint8)
    steps = np.zeros(len(codes), np.int32)
    steps[(codes == 0x5B) | (codes == 0x7B)] = 1
    steps[(codes == 0x5D) | (codes == 0x7D)] = -1
    if np.cumsum(steps).max() > DEPTH and _exact_depth(body) > DEPTH:
        raise InvalidRequest(f"the body is nested deeper than {DEPTH}")


def _exact_depth(body: bytes) -> int:
    """The nesting with brackets inside strings left out; only for bodies that look too deep."""
    depth = deepest = 0
    inside = escaped = False
    for byte in body:
        if inside:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                inside = False
        elif byte == 0x22:
            inside = True
        elif byte in b"[{":
            depth += 1
            if depth > DEPTH:
                return depth
        elif byte in b"]}":
            depth -= 1
        deepest = max(deepest, depth)
    return deepest


def read_columns(signature: Signature, request: InferRequest) -> tuple[int, Columns]:
    """Rows and checked columns in the signature's order.

    Raises:
        InvalidRequest: an input is unknown, missing, twice, of another type or shape; the message names it.
    """
    if request.outputs:
        known = [output.name for output in signature.outputs]
        for output in request.outputs:
            if output.name not in known:
                raise InvalidRequest(f"output {output.name!r} is not one of {', '.join(known)}")
    if signature.layout == "matrix":
        return _matrix(signature, request.inputs)
    tensors: dict[str, Tensor] = {}
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise InvalidRequest(f"input {tensor.name!r} came twice")
        tensors[tensor.name] = tensor
    columns = []
    rows = -1
    for spec in signature.inputs:
        found = tensors.pop(spec.name, None)
        if found is None:
            raise InvalidRequest(f"input {spec.name!r} is missing: expected {spec.datatype} ({spec.type})")
        if found.datatype != spec.datatype:
            raise InvalidRequest(f"input {spec.name!r}: expected datatype {spec.datatype}, got {found.datatype}")
        shape = found.shape
        if not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1) or shape[0] < 1:
            raise InvalidRequest(f"input {spec.name!r}: expected shape [n] or [n, 1] with n ≥ 1, got {shape}")
        if rows not in (-1, shape[0]):
            raise InvalidRequest(f"input {spec.name!r}: expected {rows} rows as in the inputs before, got {shape[0]}")
        rows = shape[0]
        data = found.data
        if data and type(data[0]) is list:
            data = _flat(spec.name, data, 1)
        columns.append(check(spec, data, rows))
    if tensors:
        raise InvalidRequest(
            f"input {next(iter(tensors))!r} is unknown; known: {', '.join(i.name for i in signature.inputs)}"
        )
    return rows, columns


def _matrix(signature: Signature, inputs: list[Tensor]) -> tuple[int, Columns]:
    width = len(signature.inputs)
    if len(inputs) != 1 or inputs[0].name != "input":
        names = [tensor.name for tensor in inputs]
        raise InvalidRequest(f"expected one input 'input' of shape [-1, {width}], got {', '.join(names) or 'none'}")
    tensor = inputs[0]
    datatype = signature.inputs[0].datatype
    if tensor.datatype != datatype:
        raise InvalidRequest(f"input 'input': expected datatype {datatype}, got {tensor.datatype}")
    if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 1:
        raise InvalidRequest(f"input 'input': expected shape [n, {width}] with n ≥ 1, got {tensor.shape}")
    rows, data = tensor.shape[0], tensor.data
    if data and type(data[0]) is list:
        data = _flat("input", data, width)
    if len(data) != rows * width:
        raise InvalidRequest(f"input 'input': expected {rows * width} values, got {len(data)}")
    if datatype == "FP64" and set(map(type, data)) == _FLOATS and math.isfinite(sum(data)):  # the usual case, at once
        return rows, Matrix(array("d", data), width)
    return rows, [check(spec, data[i::width], rows) for i, spec in enumerate(signature.inputs)]


def widen(signature: Signature, request: InferRequest) -> list[str]:
    """Make narrower tensors, in place, tensors of the signature's datatypes; the names of these inputs.

    FP16 and FP32 become FP64, and integers of up to 32 bits INT64. Numbers in JSON are what the narrower datatype holds of
    them: rounded. Every other tensor stays as it is.

    Raises:
        InvalidRequest: a value is beyond the tensor's own datatype; the message names the input.
    """
    wanted = {spec.name: spec.datatype for spec in signature.inputs}
    if signature.layout == "matrix":
        wanted = {"input": signature.inputs[0].datatype}
    widened = []
    for tensor in request.inputs:
        wide = wanted.get(tensor.name, "")
        dtype = _NARROWER.get(wide, {}).get(tensor.datatype)
        if dtype is not None:
            tensor.data, tensor.datatype = _held(tensor, dtype), wide
            widened.append(tensor.name)
    return widened


def _held(tensor: Tensor, dtype: np.dtype[Any]) -> list[Any]:
    """A tensor's flat values as its datatype holds them; a value that is no number stays, for `check` to refuse."""
    data = tensor.data
    if data and type(data[0]) is list:
        data = _flat(tensor.name, data, tensor.shape[1] if len(tensor.shape) == 2 else 1)
    if not set(map(type, data)) <= _NUMBERS:
        return data
    if dtype.kind == "f":
        try:
            with np.errstate(over="ignore"):
                held = np.array(data, np.float64).astype(dtype)
        except OverflowError:  # an integer that no float holds: `check` says so
            return data
        values: list[Any] = held.tolist()
        beyond = np.flatnonzero(np.isinf(held)).tolist()
    else:
        limits = np.iinfo(dtype)
        values = data
        beyond = [i for i, one in enumerate(data) if one is not None and not limits.min <= one <= limits.max]
    if beyond:
        raise InvalidRequest(f"input {tensor.name!r}: expected {tensor.datatype}, got {data[beyond[0]]!r:.60}")
    return values


def _flat(name: str, data: list[Any], width: int) -> list[Any]:
    flat: list[Any] = []
    for row in data:
        if type(row) is not list or len(row) != width:
            raise InvalidRequest(f"input {name!r}: expected every nested row to hold {width} values")
        flat += row
    return flat


def tensors(
    signature: Signature, answer: Answer, rows: int, wanted: list[RequestedOutput] | None
) -> list[OutputTensor]:
    """The answer as tensors, only the wanted ones; `probabilities` as `[rows, k]`, flat."""
    names = [output.name for output in wanted] if wanted else None
    made = []
    for output in signature.outputs:
        if names is not None and output.name not in names:
            continue
        data = answer.outputs[output.name]
        if len(output.shape) == 2:
            flat = [number for row in data for number in row]
            made.append(OutputTensor(output.name, output.datatype, [rows, output.shape[1]], flat))
        else:
            made.append(OutputTensor(output.name, output.datatype, [rows], data))
    return made


def write_inputs(signature: Signature, lists: Columns) -> list[dict[str, Any]]:
    """The `inputs` of a request for raw rows given as JSON-ready lists (see `columns.to_lists`)."""
    rows = len(lists[0]) if lists else 0
    if signature.layout == "matrix":
        data = [value for row in zip(*lists, strict=True) for value in row]
        datatype = signature.inputs[0].datatype
        return [{"name": "input", "shape": [rows, len(lists)], "datatype": datatype, "data": data}]
    return [
        {"name": spec.name, "shape": [rows], "datatype": spec.datatype, "data": column}
        for spec, column in zip(signature.inputs, lists, strict=True)
    ]


def metadata(name: str, versions: list[str], signature: Signature) -> dict[str, Any]:
    """Model metadata as the protocol wants it."""
    if signature.layout == "matrix":
        first = signature.inputs[0].datatype
        inputs: list[dict[str, Any]] = [{"name": "input", "datatype": first, "shape": [-1, len(signature.inputs)]}]
    else:
        inputs = [{"name": spec.name, "datatype": spec.datatype, "shape": [-1]} for spec in signature.inputs]
    outputs = [{"name": o.name, "datatype": o.datatype, "shape": list(o.shape)} for o in signature.outputs]
    return {"name": name, "versions": versions, "platform": "interlock", "inputs": inputs, "outputs": outputs}
