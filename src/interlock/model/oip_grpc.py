"""Open Inference Protocol v2 over gRPC: its messages from and to the protocol's own structs, and its six methods."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol

from google.protobuf.message import DecodeError

from interlock.core.errors import InvalidRequest, TooLarge
from interlock.core.grpc import Answer, Method
from interlock.model import inference_pb2 as pb
from interlock.model import oip
from interlock.model.oip_binary import from_raw, texts, to_raw
from interlock.model.signature import VALUES

SERVICE = "inference.GRPCInferenceService"
PARTS = 10_000
"""As many inputs, outputs and parameters a message has at the most."""
_CONTENTS = {"BOOL": "bool_contents", "INT64": "int64_contents", "UINT64": "uint64_contents", "BYTES": "bytes_contents"}
_CONTENTS |= {"FP32": "fp32_contents", "FP64": "fp64_contents"}
_CONTENTS |= dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents")
_CONTENTS |= dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents")
_CHOICES = {bool: "bool_param", int: "int64_param", float: "double_param", str: "string_param"}
Infer = Callable[[Any, Mapping[str, str], float], Awaitable[Answer]]
"""Answers a `ModelInferRequest`, with the call's metadata and the time left for it."""


class Door(Protocol):
    """What a server tells of itself, whatever the transport."""

    def unready(self) -> str:
        """Why the server is not ready; empty = it is."""
        ...

    def ready(self, name: str, version: str) -> bool:
        """Whether a model (`version` empty: any) can answer.

        Raises:
            NotFound, UnknownVersion: there is no such model, or version of it.
        """
        ...

    def describe(self, name: str, version: str, headers: Mapping[str, str]) -> dict[str, Any]:
        """A model's metadata, see `oip.metadata`, for who sends these headers.

        Raises:
            NotFound, UnknownVersion: as above.
        """
        ...


def methods(door: Door, infer: Infer) -> dict[str, Method]:
    """The service's methods by name."""

    async def server_live(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        return _said(pb.ServerLiveResponse(live=True))

    async def server_ready(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        return _said(pb.ServerReadyResponse(ready=not door.unready()))

    async def model_ready(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        asked = parse(pb.ModelReadyRequest, body)
        return _said(pb.ModelReadyResponse(ready=door.ready(asked.name, asked.version)))

    async def server_metadata(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        return _said(pb.ServerMetadataResponse(**oip.SERVER))

    async def model_metadata(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        asked = parse(pb.ModelMetadataRequest, body)
        return _said(pb.ModelMetadataResponse(**door.describe(asked.name, asked.version, metadata)))

    async def model_infer(body: bytes, metadata: Mapping[str, str], left: float) -> Answer:
        return await infer(parse(pb.ModelInferRequest, body), metadata, left)

    return {
        "ServerLive": server_live,
        "ServerReady": server_ready,
        "ModelReady": model_ready,
        "ServerMetadata": server_metadata,
        "ModelMetadata": model_metadata,
        "ModelInfer": model_infer,
    }


def _said(message: Any) -> Answer:
    return Answer(message.SerializeToString())


def parse(kind: Any, body: bytes) -> Any:
    """A message of a generated class.

    Raises:
        InvalidRequest: the bytes are not of that class.
    """
    try:
        return kind.FromString(body)
    except DecodeError as error:
        raise InvalidRequest(f"the message is no {kind.DESCRIPTOR.name}: {error}") from error


def read(message: Any) -> oip.InferRequest:
    """The request in a `ModelInferRequest`.

    Raises:
        InvalidRequest: raw contents that do not match the inputs, or contents in another field than the datatype's.
        TooLarge: it has more than `PARTS` parts or `VALUES` values.
    """
    _check_parts(message)
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise InvalidRequest(
            f"raw_input_contents: expected one for each of {len(message.inputs)} inputs, got {len(raw)}"
        )
    tensors, most = [], VALUES
    for i, tensor in enumerate(message.inputs):
        if raw and tensor.contents.ListFields():
            raise InvalidRequest(f"input {tensor.name!r:.60}: expected contents or raw_input_contents, got both")
        data = from_raw(tensor.name, tensor.datatype, raw[i], most) if raw else _typed(tensor, most)
        most = max(0, most - len(data))
        told = _scalars(tensor.parameters)
        tensors.append(oip.Tensor(tensor.name, tensor.shape[:3], tensor.datatype, data, told))
    outputs = [oip.RequestedOutput(output.name, _scalars(output.parameters)) for output in message.outputs]
    return oip.InferRequest(tensors, message.id or None, _scalars(message.parameters), outputs or None)


def _check_parts(message: Any) -> None:
    parts = len(message.inputs) + len(message.outputs)
    if parts <= PARTS:
        parts += sum(len(one.parameters) for one in (message, *message.inputs, *message.outputs))
    if parts > PARTS:
        raise TooLarge(f"the message has over {PARTS} inputs, outputs and parameters")


def _typed(tensor: Any, most: int = VALUES) -> list[Any]:
    field = _CONTENTS.get(tensor.datatype)
    if field is None:
        known = ", ".join(_CONTENTS)
        raise InvalidRequest(f"input {tensor.name!r:.60}: datatype {tensor.datatype!r:.60} is not one of {known}")
    for other, _ in tensor.contents.ListFields():
        if other.name != field:
            raise InvalidRequest(f"input {tensor.name!r:.60}: expected {tensor.datatype} in {field}, got {other.name}")
    values = getattr(tensor.contents, field)
    if len(values) > most:
        raise oip.too_many_values()
    return texts(tensor.name, values) if tensor.datatype == "BYTES" else list(values)


def _scalars(parameters: Any) -> dict[str, oip.Scalar]:
    chosen = ((key, value, value.WhichOneof("parameter_choice")) for key, value in parameters.items())
    return {key: getattr(value, choice) if choice else None for key, value, choice in chosen}


def write(response: oip.InferResponse, *, raw: bool) -> bytes:
    """The bytes of a `ModelInferResponse`, its tensors raw or in the fields of their datatypes."""
    message = pb.ModelInferResponse(
        model_name=response.model_name, model_version=response.model_version, id=response.id or ""
    )
    for key, value in (response.parameters or {}).items():
        setattr(message.parameters[key], _CHOICES[type(value)], value)
    for output in response.outputs:
        tensor = message.outputs.add(name=output.name, datatype=output.datatype, shape=output.shape)
        if raw:
            message.raw_output_contents.append(to_raw(output.datatype, output.data))
        else:
            values = [one.encode() for one in output.data] if output.datatype == "BYTES" else output.data
            getattr(tensor.contents, _CONTENTS[output.datatype]).extend(values)
    data: bytes = message.SerializeToString()
    return data


def question(model: str, tensors: list[dict[str, Any]], *, raw: bool) -> bytes:
    """The bytes of a `ModelInferRequest` for inputs as `oip.write_inputs` gives them; a missing FP64 is NaN."""
    message = pb.ModelInferRequest(model_name=model)
    for one in tensors:
        values: list[Any] = [math.nan if value is None else value for value in one["data"]]
        tensor = message.inputs.add(name=one["name"], datatype=one["datatype"], shape=one["shape"])
        if raw:
            message.raw_input_contents.append(to_raw(one["datatype"], values))
        else:
            encoded = [value.encode() for value in values] if one["datatype"] == "BYTES" else values
            getattr(tensor.contents, _CONTENTS[one["datatype"]]).extend(encoded)
    data: bytes = message.SerializeToString()
    return data


def answers(body: bytes) -> list[oip.OutputTensor]:
    """The outputs in the bytes of a `ModelInferResponse`."""
    message = parse(pb.ModelInferResponse, body)
    raw = message.raw_output_contents
    return [
        oip.OutputTensor(
            one.name,
            one.datatype,
            list(one.shape),
            from_raw(one.name, one.datatype, raw[i]) if raw else _typed(one),
        )
        for i, one in enumerate(message.outputs)
    ]
