"""Every wire codec from a client's side: raw rows to a model server on Unix sockets, its answers back."""

from __future__ import annotations

import contextlib
import csv
import http.client
import io
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from interlock.core.errors import RecipeFailed
from interlock.model import oip, oip_binary
from interlock.model.answers import Answer, derive
from interlock.model.columns import Columns, pack
from interlock.model.manifest import Manifest
from interlock.model.signature import Signature
from interlock.model.wire import BatchRequest, decode_answer, frame, frames

ANSWER_SECONDS = 60.0
SIZES = (1, 2, 61)
"""Rows of the requests, over and over: alone, few, many."""
Lists = list[list[Any]]
"""Rows as JSON-ready columns in the signature's order; missing = None."""
Encoded = tuple[str, bytes, dict[str, str]]
"""Path, body and headers of a request."""


class _Predictions(msgspec.Struct):
    predictions: list[dict[str, Any]]


def _oip_json(manifest: Manifest, part: Lists) -> Encoded:
    body = oip.encode({"inputs": oip.write_inputs(manifest.signature, part)})
    return f"/v2/models/{manifest.model}/infer", body, {"content-type": "application/json"}


def _oip_binary(manifest: Manifest, part: Lists) -> Encoded:
    """Tensors in binary; one with a missing value that is no number, which binary cannot say, stays JSON."""
    tensors, parts = oip.write_inputs(manifest.signature, part), []
    for tensor in tensors:
        data = tensor["data"]
        if None not in data or tensor["datatype"] == "FP64":
            del tensor["data"]
            parts.append(oip_binary.to_raw(tensor["datatype"], [np.nan if value is None else value for value in data]))
            tensor["parameters"] = {"binary_data_size": len(parts[-1])}
    head = oip.encode({"inputs": tensors})
    headers = {"content-type": "application/octet-stream", oip_binary.HEADER: str(len(head))}
    return f"/v2/models/{manifest.model}/infer", b"".join((head, *parts)), headers


def _scoring_json(manifest: Manifest, part: Lists) -> Encoded:
    names = [spec.name for spec in manifest.signature.inputs]
    body = {"dataframe_split": {"columns": names, "data": list(zip(*part, strict=True))}}
    return "/invocations", msgspec.json.encode(body), {"content-type": "application/json"}


def _csv(manifest: Manifest, part: Lists) -> Encoded:
    """An empty text cannot be told from a missing one in CSV, so it is sent as JSON."""
    if any("" in column for column in part):
        return _scoring_json(manifest, part)
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(spec.name for spec in manifest.signature.inputs)
    writer.writerows(zip(*part, strict=True))
    return "/invocations", text.getvalue().encode(), {"content-type": "text/csv"}


def _by_http(encode: Callable[[Manifest, Lists], Encoded]) -> Callable[[Path, Manifest, Lists], Iterator[Answer]]:
    def ask(path: Path, manifest: Manifest, lists: Lists) -> Iterator[Answer]:
        connection = _UnixConnection(path.with_name(path.name + ".http"))
        with contextlib.closing(connection):
            for part in _requests(lists):
                where, body, headers = encode(manifest, part)
                connection.request("POST", where, body, headers)
                response = connection.getresponse()
                content = response.read()
                if response.status != 200:
                    said = content.decode(errors="replace")
                    raise RecipeFailed(f"the model server answered {response.status} at {where}: {said}")
                yield _answer(where, content)

    return ask


def _answer(where: str, content: bytes) -> Answer:
    if where == "/invocations":
        rows = msgspec.json.decode(content, type=_Predictions).predictions
        return Answer({name: [row[name] for row in rows] for name in rows[0]})
    reply = msgspec.json.decode(content, type=oip.InferResponse)
    return Answer({one.name: _rows_of(one) for one in reply.outputs})


def _by_grpc(path: Path, manifest: Manifest, lists: Lists) -> Iterator[Answer]:
    """Raw and typed contents in turn; rows that the protocol cannot say, because a value is missing, go as batches."""
    import grpc

    from interlock.model import oip_grpc

    with grpc.insecure_channel(f"unix:{path.with_name(path.name + '.grpc')}") as channel:
        ask = channel.unary_unary(f"/{oip_grpc.SERVICE}/ModelInfer")
        for turn, part in enumerate(_requests(lists)):
            tensors = oip.write_inputs(manifest.signature, part)
            if any(None in tensor["data"] and tensor["datatype"] != "FP64" for tensor in tensors):
                yield from _by_batches(path, manifest, part)
                continue
            message = oip_grpc.question(manifest.model, tensors, raw=turn % 2 == 0)
            try:
                reply = ask(message, timeout=ANSWER_SECONDS)
            except grpc.RpcError as error:
                raise RecipeFailed(f"the model server answered over gRPC: {error}") from error
            yield Answer({one.name: _rows_of(one) for one in oip_grpc.answers(reply)})


def _by_batches(path: Path, manifest: Manifest, lists: Lists) -> Iterator[Answer]:
    """The gateway's frames: several requests of several rows in one message."""
    signature = manifest.signature
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(ANSWER_SECONDS)
        connection.connect(str(path))
        for number, part in enumerate(_requests(lists)):
            columns = _checked(signature, part)
            rows = len(columns[0])
            counts = [1] * min(rows, 3) + ([rows - 3] if rows > 3 else [])
            connection.sendall(frame(number, BatchRequest(counts, pack(signature, columns))))
            answer = decode_answer(_one_frame(connection, number))
            if answer.failures:
                raise RecipeFailed(f"the model server failed: {next(iter(answer.failures.values()))}")
            yield derive(signature, np.frombuffer(answer.numbers).tolist(), manifest.threshold)


CODECS: dict[str, Callable[[Path, Manifest, Lists], Iterator[Answer]]] = {
    "oip-json": _by_http(_oip_json),
    "oip-binary": _by_http(_oip_binary),
    "grpc": _by_grpc,
    "scoring-json": _by_http(_scoring_json),
    "csv": _by_http(_csv),
    "batch": _by_batches,
}
"""Name → sends all rows to the model server behind a socket, and yields its answers in order."""


def _requests(lists: Lists) -> Iterator[Lists]:
    at, turn, rows = 0, 0, len(lists[0])
    while at < rows:
        size = SIZES[turn % len(SIZES)]
        yield [column[at : at + size] for column in lists]
        at, turn = at + size, turn + 1


def _checked(signature: Signature, lists: Lists) -> Columns:
    """Rows as a gateway holds them after reading a request."""
    request = oip.InferRequest(msgspec.convert(oip.write_inputs(signature, lists), list[oip.Tensor]))
    return oip.read_columns(signature, request)[1]


def _one_frame(connection: socket.socket, number: int) -> bytes:
    buffer = bytearray()
    while True:
        for found, payload in frames(buffer):
            if found == number:
                return payload
        data = connection.recv(1 << 16)
        if not data:
            raise RecipeFailed("the model server closed the connection instead of answering")
        buffer += data


def _rows_of(tensor: oip.OutputTensor) -> list[object]:
    if len(tensor.shape) == 1:
        return tensor.data
    width = tensor.shape[1]
    return [tensor.data[at : at + width] for at in range(0, len(tensor.data), width)]


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=ANSWER_SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect to the socket's path instead of a port."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(ANSWER_SECONDS)
        self.sock.connect(str(self._path))
