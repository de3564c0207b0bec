"""What the machine allows at all: the least that can stand between a client and this model in a process of its own.

No log, no split, no parameters, no checks, no errors: granian reads a request, what waits travels as one message of floats, the
model answers it with one call, two messages at a time. Nothing to use: the limit beside which the others are read.
    python bare_path.py PORT
"""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import sys
from pathlib import Path

import joblib
import msgspec
import numpy as np
from granian.constants import Interfaces, Loops
from granian.server import Server

HEAD = struct.Struct("<II")
"""Bytes that follow, and the width of a row."""
MESSAGES = 2
LINK = f"{os.environ['MODEL_FILE']}.sock"


class Tensor(msgspec.Struct):
    shape: list[int]
    data: list[float]


class Request(msgspec.Struct):
    inputs: list[Tensor]


class Model(asyncio.Protocol):
    """The link to the model: requests that wait become the next message."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Tensor, asyncio.Future[list[float]]]] = []
        self.sent: list[list[tuple[Tensor, asyncio.Future[list[float]]]]] = []
        self.arrived = b""

    def connection_made(self, transport):
        self.transport = transport

    def ask(self, tensor: Tensor) -> asyncio.Future[list[float]]:
        loop = asyncio.get_running_loop()
        if not self.waiting:
            loop.call_soon(self.send)
        self.waiting.append((tensor, loop.create_future()))
        return self.waiting[-1][1]

    def send(self) -> None:
        if self.waiting and len(self.sent) < MESSAGES:
            batch, self.waiting = self.waiting, []
            self.sent.append(batch)
            rows = np.array([value for tensor, _ in batch for value in tensor.data])
            self.transport.write(HEAD.pack(rows.nbytes, batch[0][0].shape[1]) + rows.tobytes())

    def data_received(self, data: bytes) -> None:
        self.arrived += data
        while len(self.arrived) >= HEAD.size:
            end = HEAD.size + HEAD.unpack_from(self.arrived)[0]
            if len(self.arrived) < end:
                return
            scores, self.arrived = np.frombuffer(self.arrived[HEAD.size : end]).tolist(), self.arrived[end:]
            for tensor, future in self.sent.pop(0):
                future.set_result(scores[: tensor.shape[0]])
                del scores[: tensor.shape[0]]
        self.send()


class App:
    """RSGI."""

    def __rsgi_init__(self, loop):
        self.decode, self.encode = msgspec.json.Decoder(Request).decode, msgspec.json.Encoder().encode
        _, self.model = loop.run_until_complete(loop.create_unix_connection(Model, LINK))

    async def __rsgi__(self, scope, protocol):
        tensor = self.decode(await protocol()).inputs[0]
        scores = await self.model.ask(tensor)
        output = {"name": "score", "datatype": "FP64", "shape": [len(scores)], "data": scores}
        answer = self.encode({"model_name": "bench", "outputs": [output]})
        protocol.response_bytes(200, [("content-type", "application/json")], answer)


app = App()


def serve_model(listener: socket.socket) -> None:
    """One connection, one message after the other."""
    model = joblib.load(os.environ["MODEL_FILE"])
    link, _ = listener.accept()
    while head := link.recv(HEAD.size, socket.MSG_WAITALL):
        size, width = HEAD.unpack(head)
        rows = np.frombuffer(link.recv(size, socket.MSG_WAITALL)).reshape(-1, width)
        scores = model.predict_proba(rows)[:, 1]
        link.sendall(HEAD.pack(scores.nbytes, 1) + scores.tobytes())


if __name__ == "__main__":
    Path(LINK).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(LINK)
    listener.listen()
    if os.fork() == 0:
        serve_model(listener)
        os._exit(0)
    gateway = Server(
        "bare_path:app", port=int(sys.argv[1]), interface=Interfaces.RSGI, loop=Loops.uvloop, log_enabled=False
    )
    gateway.serve()
