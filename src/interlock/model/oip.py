"""Open Inference Protocol v2: its structs, requests into checked columns, answers into tensors, and the JSON of REST.

The other codecs, `oip_binary` and `oip_grpc`, fill the same structs, so all of them are checked here.
Source: https://github.com/kserve/open-inference-protocol (inference_rest.md).
"""

from __future__ import annotations

import math
from array import array
from typing import Any, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from interlock import __version__
from interlock.core.errors import InvalidRequest, TooLarge
from interlock.model.answers import Answer
from interlock.model.columns import FINITE, Columns, Matrix, check, too_many
from interlock.model.signature import VALUES, Signature

DEPTH = 64
LARGE, EXPONENTS = 1 << 16, 10_000
"""A body of more bytes with more letters e is read in a way that no number can make slow."""
_NUMBERS = {*FINITE, type(None)}
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


_decoder = msgspec.json.Decoder(InferRequest)
encode = msgspec.json.Encoder().encode


def decode(body: bytes) -> InferRequest:
    """Parse a request body.

    Raises:
        InvalidRequest: no JSON, NaN or infinity tokens, nested deeper than 64, or not of the protocol's form.
        TooLarge: it holds more than `VALUES` values.
    """
    return read_json(_decoder, body, "an Open Inference Protocol request")


def read_json(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """A body read by a typed decoder; `what` it should be.

    Raises:
        InvalidRequest: no JSON, NaN or infinity tokens, nested deeper than 64, or of another form.
        TooLarge: it holds more than `VALUES` values.
    """
    check_structure(body)
    try:
        if len(body) > LARGE and _slow(body):
            return msgspec.convert(_patient(body), decoder.type)
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"not {what}: {error}") from error
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise InvalidRequest(f"the body is not valid JSON: {error}") from error


def _slow(body: bytes) -> bool:
    late = any(body.find(letter, LARGE // 16) > 0 for letter in (b"e", b"E"))  # quicker to say no than to count
    return late and body.count(b"e") + body.count(b"E") > EXPONENTS


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError("number out of range")
    return number


_NO_MARKS = bytes(set(range(256)) - {*b'"[]{}'})
_patient = msgspec.json.Decoder(float_hook=_finite).decode
"""Reads any JSON. The library's own reader of numbers takes 12 µs for one near the ends of the range, such as 1e308."""


def check_structure(body: bytes) -> None:
    """Refuse JSON that is nested deeper than 64 or holds over `VALUES` values, before anything is made of it.

    Almost free for bodies with few brackets, and below `VALUES` bytes.

    Raises:
        InvalidRequest: it is nested deeper.
        TooLarge: it holds more.
    """
    crowded = len(body) > VALUES and body.count(b",") > VALUES
    if not crowded and (body.count(b"[") + body.count(b"{") <= DEPTH or _shallow(body)):
        return
    marks = _outside_strings(body, b"," if crowded else b"")
    if crowded and np.count_nonzero(marks == ord(",")) > VALUES:
        raise too_many_values()
    marks |= 0x20  # which makes [ ] to { }
    steps = (marks == ord("{")).view(np.int8) - (marks == ord("}")).view(np.int8)
    if np.cumsum(steps, dtype=np.int32).max(initial=0) > DEPTH:
        raise InvalidRequest(f"the body is nested deeper than {DEPTH}")


def too_many_values() -> TooLarge:
    """The error of a request with more values than one may have, whatever the model."""
    return TooLarge(f"the request holds over {VALUES} values")


def _shallow(body: bytes) -> bool:
    """Whether few brackets are left of a short body once the innermost are gone: a quick look, which most requests pass."""
    if len(body) > VALUES or b"\\" in body:
        return False
    marks = body.translate(None, _NO_MARKS).replace(b'""', b"")  # then a quote that is left has brackets in its string
    return b'"' not in marks and len(marks.replace(b"[]", b"").replace(b"{}", b"").replace(b"[]", b"")) <= DEPTH // 2


def _outside_strings(body: bytes, more: bytes) -> NDArray[np.uint8]:
    """Codes of the brackets, and of more characters, outside of strings, in their order; among them closing quotes and zeros.

    A place is in a string where the quotes up to it are odd in number; a shift counts 64 places at once.
    Source: Langdale and Lemire, Parsing Gigabytes of JSON per Second (2019), 3.1.1.
    """
    if b"\\" in body:
        body = body.replace(b"\\\\", b"").replace(b'\\"', b"")
    kept = body.translate(None, bytes({*_NO_MARKS} - {*more}))
    codes = np.frombuffer(kept + bytes(-len(kept) % 64), np.uint8)
    inside = np.packbits(codes == ord('"'), bitorder="little").view("<u8")
    for places in (1, 2, 4, 8, 16, 32):
        inside ^= inside << places
    inside[1:] ^= -np.bitwise_xor.accumulate(inside >> 63)[:-1]
    found: NDArray[np.uint8] = codes[np.unpackbits(~inside.view(np.uint8), bitorder="little").view(bool)]
    return found


def read_columns(signature: Signature, request: InferRequest) -> tuple[int, Columns]:
    """Rows and checked columns in the signature's order.

    Raises:
        InvalidRequest: an input is unknown, missing, twice, of another type or shape; the message names it.
        TooLarge: more rows than `Signature.most_rows`.
    """
    if request.outputs:
        known = [output.name for output in signature.outputs]
        for output in request.outputs:
            if output.name not in known:
                raise InvalidRequest(f"output {output.name!r:.60} is not one of {', '.join(known)}")
    if signature.layout == "matrix":
        return _matrix(signature, request.inputs)
    tensors: dict[str, Tensor] = {}
    for tensor in request.inputs:
        if tensor.name in tensors:
            raise InvalidRequest(f"input {tensor.name!r:.60} came twice")
        tensors[tensor.name] = tensor
    columns = []
    rows, most = -1, signature.most_rows
    for spec in signature.inputs:
        found = tensors.pop(spec.name, None)
        if found is None:
            raise InvalidRequest(f"input {spec.name!r} is missing: expected {spec.datatype} ({spec.type})")
        if found.datatype != spec.datatype:
            raise InvalidRequest(f"input {spec.name!r}: expected datatype {spec.datatype}, got {found.datatype:.60}")
        shape = found.shape
        if not shape or len(shape) > 2 or (len(shape) == 2 and shape[1] != 1) or not 1 <= shape[0] <= most:
            if shape and shape[0] > most:
                raise too_many(signature)
            raise InvalidRequest(f"input {spec.name!r}: expected shape [n] or [n, 1] with n ≥ 1, got {shape!s:.60}")
        if rows not in (-1, shape[0]):
            raise InvalidRequest(f"input {spec.name!r}: expected {rows} rows as in the inputs before, got {shape[0]}")
        rows = shape[0]
        data = found.data
        if data and type(data[0]) is list:
            data = _flat(spec.name, data, 1)
        columns.append(check(spec, data, rows))
    if tensors:
        raise InvalidRequest(
            f"input {next(iter(tensors))!r:.60} is unknown; known: {', '.join(i.name for i in signature.inputs)}"
        )
    return rows, columns


def _matrix(signature: Signature, inputs: list[Tensor]) -> tuple[int, Columns]:
    width = len(signature.inputs)
    if len(inputs) != 1 or inputs[0].name != "input":
        names = ", ".join(tensor.name for tensor in inputs[:10])
        raise InvalidRequest(f"expected one input 'input' of shape [-1, {width}], got {names or 'none':.200}")
    tensor = inputs[0]
    datatype = signature.inputs[0].datatype
    if tensor.datatype != datatype:
        raise InvalidRequest(f"input 'input': expected datatype {datatype}, got {tensor.datatype:.60}")
    if len(tensor.shape) != 2 or tensor.shape[1] != width or tensor.shape[0] < 1:
        raise InvalidRequest(f"input 'input': expected shape [n, {width}] with n ≥ 1, got {tensor.shape!s:.60}")
    rows, data = tensor.shape[0], tensor.data
    if rows > signature.most_rows:
        raise too_many(signature)
    if data and type(data[0]) is list:
        data = _flat("input", data, width)
    if len(data) != rows * width:
        raise InvalidRequest(f"input 'input': expected {rows * width} values, got {len(data)}")
    if datatype == "FP64" and set(map(type, data)) <= FINITE:  # the usual case, at once
        try:
            if math.isfinite(sum(data)):
                return rows, Matrix(array("d", data), width)
        except OverflowError:  # an integer that no float holds: `check` says which
            pass
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
